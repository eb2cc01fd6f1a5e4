"""Run a program as a script once for each input and send back what it wrote to standard output.

Each run is a fork of its own with files in memory as standard input and output: nothing waits for end-of-file on a
pipe that a grandchild may hold.
"""

from __future__ import annotations

import io
import os
import sys
import time
from typing import Any

from channel import Channel, describe  # type: ignore[import-not-found]


def run(request: dict[str, Any], channel: Channel) -> None:
    """Answer with one line when the program compiles and one for each input; the first error ends it."""
    try:
        code = compile(request["code"], "<program>", "exec")
    except BaseException as error:
        channel.write({"x": describe(error)})
        return
    channel.write({"loaded": True})
    for text in request["inputs"]:
        started = time.perf_counter()
        reply = _run_once(code, text, request["output_bytes"])
        channel.write(reply | {"s": time.perf_counter() - started})
        if "x" in reply:
            return


def _run_once(code: Any, text: str, output_bytes: int) -> dict[str, Any]:
    given, written, failed = (os.memfd_create(name) for name in ("stdin", "stdout", "error"))
    with open(given, "wb", closefd=False) as file:
        file.write(text.encode("utf-8", "surrogatepass"))
    os.lseek(given, 0, os.SEEK_SET)
    child = os.fork()
    if child == 0:
        _be_the_script(code, given, written, failed)
    _, status = os.waitpid(child, 0)
    exit_code = os.waitstatus_to_exitcode(status)
    size = os.fstat(written).st_size
    output = os.pread(written, min(size, output_bytes + 1), 0)
    error = os.pread(failed, 400, 0).decode("utf-8", "replace")
    for descriptor in (given, written, failed):
        os.close(descriptor)
    if exit_code != 0:
        name, _, message = error.partition("\n")
        return {"x": [name or f"exit code {exit_code}", message], "code": exit_code}
    if size > output_bytes:
        return {"v": {"o": f"output of {size} bytes"}}
    return {"v": output.decode("utf-8", "replace")}


def _be_the_script(code: Any, given: int, written: int, failed: int) -> None:
    exit_code = 1
    try:
        os.dup2(given, 0)
        os.dup2(written, 1)
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8")
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False)), encoding="utf-8")
        namespace = {"__name__": "__main__"}
        try:
            exec(code, namespace)
            exit_code = 0
        except SystemExit as error:
            exit_code = 0 if error.code in (None, 0) else 1
        sys.stdout.flush()
    except BaseException as error:
        exit_code = 1
        os.write(failed, "\n".join(describe(error)).encode("utf-8", "replace")[:400])
    finally:
        os._exit(exit_code)
