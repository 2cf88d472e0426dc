"""What this machine can do at most: fused multiply-adds on registers, and memory bandwidth; measured, not looked up."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from graphc.codegen.host import host
from graphc.codegen.machine import compile_source
from graphc.codegen.tile.peak import PeakKernel, peak_kernels
from graphc.ir.buffers import aligned_zeros
from graphc.runtime.loader import LoadedCode, load

_FMA_STEPS = 200_000  # of 16 or more instructions each: a few milliseconds, much longer than waking a thread
_MEMORY_ELEMENTS = 1 << 24  # 64 MiB of float32 an array, more than a last-level cache holds


@dataclass(frozen=True)
class Peak:
    """The machine's limits: float32 GFLOP/s and GB/s of `threads` threads, each the best of many runs."""

    threads: int
    fma_gflops: float
    read_gbytes_s: float
    triad_gbytes_s: float
    cpu: str
    lanes: int

    def to_json(self) -> dict[str, Any]:
        """The fields, as `graphc bench peak --json` prints them."""
        return {"system": "graphc", "workload": "peak", **asdict(self)}

    def __str__(self) -> str:
        threads = f"{self.threads} thread" + "s" * (self.threads > 1)
        return (f"{self.cpu}, {self.lanes} float32 lanes, {threads}: fused multiply-add {self.fma_gflops:.1f} GFLOP/s, "
                f"memory read {self.read_gbytes_s:.1f} GB/s, triad {self.triad_gbytes_s:.1f} GB/s")


def measure_peak(threads: int = 1, seconds: float = 1.5) -> Peak:
    """Measure this machine with `threads` threads, in about `seconds` (at least three runs of each kernel)."""
    _, read, triad = peak_kernels(threads)
    share = seconds / 3
    read_time, triad_time = (_best(kernel, _MEMORY_ELEMENTS, threads, share) for kernel in (read, triad))
    return Peak(
        threads=threads,
        fma_gflops=fma_gflops(threads, share),
        read_gbytes_s=read.bytes(_MEMORY_ELEMENTS) / read_time / 1e9,
        triad_gbytes_s=triad.bytes(_MEMORY_ELEMENTS) / triad_time / 1e9,
        cpu=host().cpu,
        lanes=host().lanes,
    )


def fma_gflops(threads: int = 1, seconds: float = 0.2) -> float:
    """The float32 fused multiply-add peak of `threads` threads together, in GFLOP/s."""
    kernel = peak_kernels(threads)[0]
    return threads * kernel.flops(_FMA_STEPS) / _best(kernel, _FMA_STEPS, threads, seconds) / 1e9


def _best(kernel: PeakKernel, n: int, threads: int, seconds: float) -> float:
    """The least time of a call of all threads, in seconds."""
    run, arguments, code = _prepared(kernel, n)
    with ThreadPoolExecutor(max(threads - 1, 1)) as pool:

        def once() -> float:
            start = time.perf_counter()
            others = [pool.submit(run, arguments.ctypes.data, thread, threads) for thread in range(1, threads)]
            run(arguments.ctypes.data, 0, threads)
            for other in others:
                other.result()
            return time.perf_counter() - start

        end = time.perf_counter() + seconds
        times = [once() for _ in range(3)]
        while time.perf_counter() < end:
            times.append(once())
    del code  # the machine code had to live until here
    return min(times)


def _prepared(kernel: PeakKernel, n: int) -> tuple[Callable[[int, int, int], None], Any, LoadedCode]:
    """The compiled kernel, its arguments (an array of addresses) and the owner of its code."""
    compiled = compile_source(kernel.source, kernel.name)
    code = load({compiled.symbol: compiled.object_bytes})
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
    buffers = [aligned_zeros((size or n,), "f32") for size in kernel.buffers]
    for buffer in buffers:
        buffer.fill(0.0)  # takes the pages: unwritten ones would all be one page of zeros, in cache
    count = aligned_zeros((1,), "i64")
    count[0] = n
    arguments = aligned_zeros((len(buffers) + 1,), "i64")
    arguments[:] = [array.ctypes.data for array in (*buffers, count)]
    function = prototype(code.addresses[compiled.symbol])
    return _owning(function, buffers, count), arguments, code


def _owning(function: Callable[..., None], *owned: Any) -> Callable[[int, int, int], None]:
    """`function`, keeping `owned` alive as long as itself."""

    def run(arguments: int, thread: int, threads: int) -> None:
        assert owned
        function(arguments, thread, threads)

    return run
