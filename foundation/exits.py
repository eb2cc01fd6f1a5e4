"""How every command line of the suite ends: with a code, and for a user's mistake with a message and no traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from foundation.errors import SuiteError


def exit_with_message(action: Callable[[], int], *, interrupted: str = "interrupted") -> NoReturn:
    """Exit with the action's code; the user's mistakes end with a message and no traceback."""
    try:
        code = action()
        sys.stdout.flush()
    except SuiteError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        code = 130
    except BrokenPipeError:  # only our own printing meets one: `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)
