"""How many threads programs use by default: the physical cores that this process may run on."""

from __future__ import annotations

import ctypes
import functools
import math
import operator
import os
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from graphc.errors import CompileError, InputError

MOST_THREADS = 256
VARIABLE = "GRAPHC_THREADS"
_CPUS = Path("/sys/devices/system/cpu")


def chosen_threads(threads: int | None, environment: Mapping[str, str]) -> int:
    """`threads` itself, or the default where it is None. Raises CompileError for anything but 1 ... 256.

    More than there are cores is allowed: it gives the same bits, and steps run on one thread where that is quicker.
    """
    if threads is None:
        return default_threads(environment)
    if isinstance(threads, bool) or not hasattr(threads, "__index__") or not 1 <= threads <= MOST_THREADS:
        raise CompileError(f"threads must be a number from 1 to {MOST_THREADS}, or None for as many as there are "
                           f"cores ({available_cores()} here), got {threads!r}")
    return operator.index(threads)


def default_threads(environment: Mapping[str, str]) -> int:
    """What `GRAPHC_THREADS` says, else `available_cores()`. Raises InputError for anything but 1 ... 256."""
    text = environment.get(VARIABLE, "").strip()
    if not text:
        return min(available_cores(), MOST_THREADS)
    if not text.isdecimal() or not 1 <= int(text) <= MOST_THREADS:
        raise InputError(f"{VARIABLE} must be a number of threads, 1 ... {MOST_THREADS}, got {text!r}")
    return int(text)


def available_cores() -> int:
    """Physical cores that this process may use: those of its CPU set, two hardware threads of a core counted once,
    and no more than a container's CPU quota. 1 where the system tells nothing."""
    if sys.platform == "darwin":
        return _macos_cores() or os.cpu_count() or 1
    affinity: Callable[[int], Collection[int]] | None = getattr(os, "sched_getaffinity", None)
    if affinity is None:
        return os.cpu_count() or 1
    cores = physical_cores(affinity(0), _CPUS)
    quota = cpu_quota(Path("/sys/fs/cgroup/cpu.max"))
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def physical_cores(cpus: Collection[int], folder: Path) -> int:
    """How many cores the logical `cpus` make; `folder` has `cpu<n>/topology`, as Linux' /sys/devices/system/cpu."""
    return max(1, len({_core(cpu, folder) for cpu in cpus}))


def apart(cpus: Collection[int], taken: int, folder: Path = _CPUS) -> list[int]:
    """One of the logical `cpus` of each core, but for the core of the CPU `taken`."""
    by_core: dict[str, int] = {}
    for cpu in sorted(cpus):
        by_core.setdefault(_core(cpu, folder), cpu)
    by_core.pop(_core(taken, folder), None)
    return list(by_core.values())


@functools.cache
def _core(cpu: int, folder: Path) -> str:
    """The core that a logical CPU belongs to, by the CPUs that it has."""
    try:
        return (folder / f"cpu{cpu}/topology/thread_siblings_list").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return str(cpu)


def cpu_quota(file: Path) -> float | None:
    """The CPUs' worth of time that a control group may use, from its `cpu.max`; None without a limit."""
    try:
        quota, period = file.read_text(encoding="ascii").split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max 100000": no limit
        return None


def _macos_cores() -> int:
    """Performance cores where there are such, else all physical ones; 0 if the system does not tell."""
    found, size = ctypes.c_int32(0), ctypes.c_size_t(4)
    system = ctypes.CDLL(None)
    for name in (b"hw.perflevel0.physicalcpu", b"hw.physicalcpu"):
        if system.sysctlbyname(name, ctypes.byref(found), ctypes.byref(size), None, ctypes.c_size_t(0)) == 0:
            return found.value
    return 0
