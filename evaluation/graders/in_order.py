"""Many small jobs on a few threads, their results in the order of the items."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
_AHEAD = 4  # items in work or waiting for each worker


def in_order(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """Yield `function(item)` of every item, in their order, a bounded number of items ahead.

    What waits is not begun any more once an item raises or the caller stops.
    """
    pending = iter(items)
    executor = ThreadPoolExecutor(workers)
    try:
        window: deque[Future[Result]] = deque(
            executor.submit(function, item) for item in islice(pending, _AHEAD * workers))
        while window:
            yield window.popleft().result()
            window.extend(executor.submit(function, item) for item in islice(pending, 1))
    finally:
        executor.shutdown(cancel_futures=True)
