"""The child program of `processes.py`: applies the math rules to batches it reads, until its input closes.

Batches and what became of them are pickled, parent and child being the same program; the first thing sent is "ready".
"""

from __future__ import annotations

import logging
import os
import pickle
import resource
import sys

from replication.corpora.batches import judge
from replication.corpora.math_rules import MathRules


def main() -> None:
    """Serve: `python -m replication.corpora.math_worker MEMORY_MIB`."""
    memory = int(sys.argv[1]) << 20
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable(logging.CRITICAL)
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not get between the replies
    requests = sys.stdin.buffer
    rules = MathRules(pickle.load(requests))
    pickle.dump("ready", replies)
    replies.flush()
    while True:
        try:
            batch = pickle.load(requests)
        except EOFError:
            return
        pickle.dump(judge(batch, rules), replies)
        replies.flush()


if __name__ == "__main__":
    main()
