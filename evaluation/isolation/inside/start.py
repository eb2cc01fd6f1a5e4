"""The first thing that runs inside an isolation: build the root where needed, set the limits, run the harness.

Run by path with one argument, a JSON object, by an interpreter without site packages. `root` (namespaces only) holds
what the root is built from; `limits` are resource limits; `path` is prepended to the import path; `harness` is the
module to run, arguments for its `main` after colons. Only the standard library is used, and nothing here is secret.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys

TYPE_CHECKING = False  # importing typing would cost every process some milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_BIND, _RECURSIVE, _PRIVATE = 4096, 16384, 1 << 18
_READ_ONLY, _NO_SUID, _NO_DEVICES, _REMOUNT = 1, 2, 4, 32
_DETACH = 2


def _library() -> Callable[..., None]:
    import ctypes
    library = ctypes.CDLL(None, use_errno=True)

    def call(name: str, *arguments: Any) -> None:
        if getattr(library, name)(*arguments) != 0:
            raise OSError(ctypes.get_errno(), f"{name}{arguments}")
    return call


def _build_root(call: Callable[..., None], root: dict[str, Any]) -> None:
    """Assemble the new root on a tmpfs, enter it and let the old one go."""
    new = root["place"]
    call("mount", b"none", b"/", None, _PRIVATE | _RECURSIVE, None)
    call("mount", b"tmpfs", new.encode(), b"tmpfs", _NO_SUID | _NO_DEVICES, b"size=4m,mode=755")
    for source, place in root["binds"]:
        _bind(call, source, new + place)
    for target, place in root["links"]:
        os.makedirs(os.path.dirname(new + place), exist_ok=True)
        os.symlink(target, new + place)
    for device in ("null", "zero", "full", "random", "urandom"):
        _bind(call, f"/dev/{device}", f"{new}/dev/{device}", device=True)
    for place, size in (("/dev/shm", 8 << 20), ("/tmp", root["scratch_bytes"])):
        os.makedirs(new + place, exist_ok=True)
        options = f"size={size},nr_inodes=65536,mode=1777".encode()
        call("mount", b"tmpfs", (new + place).encode(), b"tmpfs", _NO_SUID | _NO_DEVICES, options)
    os.makedirs(new + "/proc")
    call("mount", b"proc", (new + "/proc").encode(), b"proc", _NO_SUID | _NO_DEVICES | 8, None)
    os.chdir(new)
    import ctypes
    number = {"x86_64": 155, "aarch64": 41}[os.uname().machine]
    if ctypes.CDLL(None, use_errno=True).syscall(number, b".", b".") != 0:
        raise OSError(ctypes.get_errno(), "pivot_root")
    call("umount2", b".", _DETACH)
    os.chdir("/")
    with open("/proc/sys/user/max_user_namespaces", "w") as file:
        file.write("0")
    # As root, the isolated user is still the kernel's user 0, who owns what lies in /proc/sys: hence read-only.
    call("mount", b"none", b"/proc", None, _REMOUNT | _BIND | _READ_ONLY | _NO_SUID | _NO_DEVICES | 8, None)
    call("mount", b"none", b"/", None, _REMOUNT | _BIND | _READ_ONLY | _NO_SUID | _NO_DEVICES, None)
    os.chdir("/tmp")


def _bind(call: Callable[..., None], source: str, place: str, device: bool = False) -> None:
    if os.path.isdir(source):
        os.makedirs(place, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "w"):
            pass
    call("mount", source.encode(), place.encode(), None, _BIND | _RECURSIVE, None)
    if not device:
        # Flags that the source's file system has are locked: they must be repeated, the rest are added.
        kept = os.statvfs(place).f_flag & (_NO_SUID | _NO_DEVICES | 8 | 1024 | 2048)
        flags = _REMOUNT | _BIND | _READ_ONLY | _NO_SUID | _NO_DEVICES | kept
        call("mount", b"none", place.encode(), None, flags, None)


def _drop_privileges(call: Callable[..., None], code: str | None) -> None:
    """No new privileges, no capability in any set, then the filter."""
    import base64
    import ctypes
    call("prctl", 38, 1, 0, 0, 0)
    for capability in range(64):
        try:
            call("prctl", 24, capability, 0, 0, 0)
        except OSError:
            break
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    call("capset", header, (ctypes.c_uint32 * 6)())
    if code is None:
        return

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))
    raw = base64.b64decode(code)
    buffer = ctypes.create_string_buffer(raw, len(raw))
    program = Program(len(raw) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    call("prctl", 22, 2, ctypes.byref(program), 0, 0)


def _become_child() -> None:
    """Leave this process behind as the namespace's init: it reaps, and ends when the harness ends."""
    child = os.fork()
    if child == 0:
        return
    os.closerange(0, 64)
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def _set_limits(limits: dict[str, int]) -> None:
    for name, value in limits.items():
        kind = getattr(resource, name)
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def main() -> None:
    """Read the settings, shut the door, run the harness."""
    settings = json.loads(sys.argv[1])
    sys.argv[1:] = []
    root = settings["root"]
    if root:
        call = _library()
        os.umask(0o022)
        _build_root(call, root)
        _drop_privileges(call, root["seccomp"])
        _become_child()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.umask(0o077)
    _set_limits(settings["limits"])
    sys.path[:0] = settings["path"]
    name, *arguments = settings["harness"].split(":")
    __import__(name).main(*arguments)


if __name__ == "__main__":
    main()
