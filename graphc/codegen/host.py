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
    `first_level` and `second_level` are the bytes of a core's caches.
    """

    cpu: str
    features: str
    lanes: int
    registers: int
    fused: bool = True
    first_level: int = 32 << 10
    second_level: int = 1 << 20

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
    caches = [_cache_bytes(level, default) for level, default in ((1, 32 << 10), (2, 1 << 20))]
    return Host(llvm.get_host_cpu_name(), features.flatten(), lanes, registers, fused, *caches)


def _cache_bytes(level: int, default: int) -> int:
    """Bytes of a core's data cache of a level; `default` where the system does not tell."""
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            texts = [(folder / name).read_text(encoding="ascii").strip() for name in ("level", "type", "size")]
        except OSError:
            continue
        if texts[0] == str(level) and texts[1] in ("Data", "Unified") and re.fullmatch(r"\d+K", texts[2]):
            return int(texts[2][:-1]) << 10
    return default


def host_key() -> str:
    """What machine code depends on besides its source: CPU, features, Numba and llvmlite versions (not imported)."""
    machine = host()
    caches = f"{machine.first_level} {machine.second_level}"
    text = f"{llvm.get_process_triple()} {machine.cpu} {machine.features} {caches}"
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"{machine.cpu}-{digest}-numba{version('numba')}-llvmlite{version('llvmlite')}"
