"""What an isolated program sees of the machine's files: an interpreter with its libraries, and nothing else."""

from __future__ import annotations

import os
import sys
import sysconfig
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from foundation.errors import PrerequisiteError

START = "/start"  # where the folder with the first program appears
HARNESS = "/harness"  # where the folder with the harness appears
PACKAGES = "/packages"  # where selected packages appear, one folder each
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
START_FOLDER = Path(__file__).with_name("inside")
_FILES = ("/etc/ld.so.cache", "/usr/share/zoneinfo")

# All a program learns about its surroundings; nothing of the caller's environment crosses.
ENVIRONMENT = {
    "PATH": "/nowhere", "HOME": "/tmp", "TMPDIR": "/tmp", "LANG": "C.UTF-8", "TZ": "UTC", "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MPLBACKEND": "Agg",
    "MPLCONFIGDIR": "/tmp/.matplotlib",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """Read-only paths: `binds` are (source, place) pairs, `links` (target, place) pairs; `interpreter` runs in it."""

    interpreter: str
    binds: tuple[tuple[str, str], ...]
    links: tuple[tuple[str, str], ...]

    @property
    def import_path(self) -> list[str]:
        """Where packages beyond the standard library are found inside."""
        return [PACKAGES] if any(place.startswith(PACKAGES) for _, place in self.binds) else []


@lru_cache(maxsize=8)
def interpreter_view(harness: str, packages: tuple[str, ...] = ()) -> View:
    """Return the view with this interpreter, a harness folder and some packages.

    Args:
        harness: the folder that appears as HARNESS.
        packages: names of installed packages to show, each with its `NAME.libs` folder; ("*",) shows all of them.

    Raises:
        PrerequisiteError: a package is not installed.
    """
    interpreter = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    standard = {os.path.realpath(sysconfig.get_path(name, vars={"base": sys.base_prefix, "platbase": sys.base_prefix}))
                for name in ("stdlib", "platstdlib")}
    sources = [interpreter, *sorted(standard)]
    shared = sysconfig.get_config_var("LDLIBRARY") or ""
    if shared.endswith((".so", ".dylib")):
        sources += [str(path) for path in Path(sysconfig.get_config_var("LIBDIR") or "/nowhere").glob("libpython*.so*")]
    links = [(os.readlink(path), path) for path in _LIBRARIES if os.path.islink(path)]
    sources += [path for path in _LIBRARIES if os.path.isdir(path) and not os.path.islink(path)]
    sources = [path for path in sources if not any(path.startswith(other + "/") for other in sources)]
    sources += [path for path in _FILES if os.path.exists(path)]
    binds = [(path, path) for path in dict.fromkeys(sources)]
    binds += [(os.path.realpath(START_FOLDER), START), (os.path.realpath(harness), HARNESS)]
    return View(interpreter=interpreter, binds=tuple(binds + _package_binds(packages)), links=tuple(links))


def _package_binds(packages: tuple[str, ...]) -> list[tuple[str, str]]:
    site = Path(sysconfig.get_path("purelib"))
    if packages == ("*",):
        return [(str(site), PACKAGES)]
    binds = []
    for name in packages:
        if not (site / name).is_dir():
            raise PrerequisiteError(f"package {name!r} is not in {site}, so graded programs cannot be given it; "
                                    f"install it with: pip install {name}")
        binds += [(str(path), f"{PACKAGES}/{path.name}") for path in (site / name, site / f"{name}.libs")
                  if path.is_dir()]
    return binds
