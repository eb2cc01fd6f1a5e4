"""The evaluation part from the command line: `python -m evaluation COMMAND --help`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import cast

from evaluation.commands import COMMANDS
from foundation.errors import InputError, PrerequisiteError
from foundation.exits import exit_with_message


def main() -> int:
    """Run the named command with the rest of the arguments and return its exit code."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print("usage: python -m evaluation COMMAND [--help] ...\n")
        for command, (_, what) in COMMANDS.items():
            print(f"  {command:<14} {what}")
        return 0
    if name not in COMMANDS:
        raise InputError(f"command {name!r} is unknown; choose one of: {', '.join(COMMANDS)}")
    module = COMMANDS[name][0]
    try:
        run = cast("Callable[[list[str]], int]", importlib.import_module(module).main)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise PrerequisiteError(f"{name} is not part of this version (there is no {module})") from error
    return run(arguments)


if __name__ == "__main__":
    exit_with_message(main)
