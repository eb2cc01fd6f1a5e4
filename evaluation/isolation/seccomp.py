"""A filter of system calls as a BPF program, for machines where we know the numbers (x86-64 and AArch64).

It is a second line behind the namespaces: calls that a graded program has no use for and that reach much kernel code
or other processes (tracing, keys, mounting, new namespaces, modules, io_uring, BPF) fail with EPERM; a call through
another architecture's table ends the process.
"""

from __future__ import annotations

import platform
import struct

_EPERM, _ALLOW, _KILL = 0x00050001, 0x7FFF0000, 0x80000000
_LOAD, _EQUAL, _AT_LEAST, _AND_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_X32 = 0x40000000
_NEW_NAMESPACES = 0x7E020080  # CLONE_NEW*: user, pid, net, ipc, uts, cgroup, mount, time

# name: (x86-64, AArch64); -1 where the architecture lacks it
_DENIED: dict[str, tuple[int, int]] = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "unshare": (272, 97), "setns": (308, 268),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "mount_setattr": (442, 442), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225), "syslog": (103, 116), "acct": (163, 89),
    "quotactl": (179, 60), "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264), "iopl": (172, -1),
    "ioperm": (173, -1), "settimeofday": (164, 170), "clock_settime": (227, 112), "personality": (135, 92),
}
_ARCHITECTURES = {"x86_64": (0xC000003E, 0, 56), "aarch64": (0xC00000B7, 1, 220)}


def filter_program() -> bytes | None:
    """Return the filter as an array of `struct sock_filter`, or None on a machine it is not written for."""
    known = _ARCHITECTURES.get(platform.machine())
    if known is None:
        return None
    architecture, column, clone = known
    denied = [number for row in _DENIED.values() if (number := row[column]) >= 0]
    code = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    if column == 0:
        code += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _KILL)]
    # clone3 hides its flags behind a pointer: "not implemented" sends the C library back to clone.
    code += [(_EQUAL, 0, 1, 435), (_RETURN, 0, 0, 0x00050000 | 38)]
    code += [(_EQUAL, 0, 3, clone), (_LOAD, 0, 0, 16), (_AND_SET, 0, 1, _NEW_NAMESPACES), (_RETURN, 0, 0, _EPERM)]
    code += [(_LOAD, 0, 0, 0)]
    for number in denied:
        code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _EPERM)]
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)
