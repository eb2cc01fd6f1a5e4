"""Isolation of generated code: a program is run so that it can neither reach the machine nor stop its owner.

Covered, by every safe kind (tests/test_isolation.py holds each to it):
- files: read-only view of the interpreter and its libraries, one private scratch folder of bounded size, no other file;
- environment: a fixed list of harmless variables; processes: only the tree's own are visible or can be signalled;
- network: none but an empty loopback; privileges: no capability, none to gain, no further user namespace;
- system calls of no use to a graded program fail (x86-64 and AArch64), core dumps are off;
- wall time, processor time, memory and processes of the whole tree, file size, open files, scratch, message size;
- the end: one SIGKILL to the namespace's first process ends every process of the tree; the tree dies with its owner.

Not covered: defects of the kernel itself, side channels (timing, shared caches), use of both cores up to the limits,
reading public facts about the machine (kernel version, processor, total memory, the interpreter's path). Where control
groups cannot be used, memory and processes are watched from outside every 20 ms and may be exceeded for that long;
`Isolation.missing` says so. `none` covers nothing at all and must be asked for by name.
"""

from evaluation.isolation.kinds import Isolation, find_isolation
from evaluation.isolation.limits import Limits
from evaluation.isolation.pool import Pool
from evaluation.isolation.sandbox import Sandbox

__all__ = ["Isolation", "Limits", "Pool", "Sandbox", "find_isolation"]
