"""What the host's vector unit looks like: lanes, registers, CPU name and features."""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import llvmlite.binding as llvm


@dataclass(frozen=True)
class Host:
    """The vector unit that kernels are compiled for.

    `lanes` is the number of float32 lanes of one hardware vector and the number of lanes of *every* tile vector,
    whatever its dtype, so that tiles of different dtypes have the same shape; a float64 or int64 tile vector
    therefore takes two hardware registers. `registers` is the number of hardware vector registers, and `fused` tells
    whether there is a fused multiply-add instruction (without one it is a library call a lane: right, but slow).
    `first_level` and `second_level` are the bytes of a core's caches, `first_ways` and `second_ways` how many lines of
    64 bytes one set of each holds.
    """

    cpu: str
    features: str
    lanes: int
    registers: int
    fused: bool = True
    first_level: int = 32 << 10
    second_level: int = 1 << 20
    first_ways: int = 8
    second_ways: int = 16

    @property
    def accumulators(self) -> int:
        """The most float32 accumulator vectors a contraction may hold without spilling (24 of 32, 12 of 16)."""
        return self.registers * 3 // 4


@functools.cache
def host() -> Host:
    """Read the host from LLVM: AVX-512 has 16 lanes and 32 registers, AVX2 8 and 16, NEON 4 and 32, else 4 and 16."""
    features = llvm.get_host_cpu_features()
    triple = llvm.get_process_triple()
    if features.get("avx512f") and features.get("avx512dq") and features.get("avx512vl"):
        lanes, registers = 16, 32
    elif features.get("avx2") and features.get("fma"):
        lanes, registers = 8, 16
    elif triple.startswith(("aarch64", "arm64")):
        lanes, registers = 4, 32
    else:
        lanes, registers = 4, 16
    fused = bool(features.get("fma")) or registers == 32
    (first, first_ways), (second, second_ways) = _cache(1, (32 << 10, 8)), _cache(2, (1 << 20, 16))
    name = llvm.get_host_cpu_name()
    return Host(name, features.flatten(), lanes, registers, fused, first, second, first_ways, second_ways)


def _cache(level: int, default: tuple[int, int]) -> tuple[int, int]:
    """Bytes and ways of a core's data cache of a level; `default` where the system does not tell."""
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            names = ("level", "type", "size", "ways_of_associativity")
            number, kind, size, ways = ((folder / name).read_text(encoding="ascii").strip() for name in names)
        except OSError:
            continue
        if number == str(level) and kind in ("Data", "Unified") and re.fullmatch(r"\d+K", size):
            return int(size[:-1]) << 10, int(ways) if re.fullmatch(r"[1-9]\d*", ways) else default[1]
    return default


def host_key() -> str:
    """What machine code depends on besides its source: CPU, features, Numba and llvmlite versions (not imported)."""
    machine = host()
    caches = f"{machine.first_level} {machine.second_level} {machine.first_ways} {machine.second_ways}"
    text = f"{llvm.get_process_triple()} {machine.cpu} {machine.features} {caches}"
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"{machine.cpu}-{digest}-numba{version('numba')}-llvmlite{version('llvmlite')}"
