"""Kernel sources that measure the machine: the FMA peak, and memory bandwidth reading and in a triad.

They follow the signature of every kernel; with several threads each takes its share (FMA: all of the work, on its own
accumulators; memory: its part of the arrays).
"""

from __future__ import annotations

from dataclasses import dataclass

from graphc.codegen.host import host

_VECTORS = 8  # a step of the memory kernels


@dataclass(frozen=True)
class PeakKernel:
    """A measuring kernel: `source` defines `name`; for the runtime count `n` it does `flops(n)` and moves `bytes(n)`.

    Arguments in order: the float32 buffers of `buffers` (elements each; 0 means `n`, of which whole steps of
    `step` elements per thread are used), then the count n.
    """

    name: str
    source: str
    buffers: tuple[int, ...]
    step: int
    flops_per_count: int
    bytes_per_count: int

    def flops(self, n: int) -> int:
        """Floating-point operations of one call of one thread with the count n."""
        return n * self.flops_per_count

    def bytes(self, n: int) -> int:
        """Bytes moved by one call of all threads with the count n (a triad's write counts once)."""
        return n * self.bytes_per_count


def _rows() -> int:
    """Rows of the FMA loop's tile of 2 vectors: enough accumulators to hide the latency, and no spills."""
    return min(8, host().accumulators // 2)


def fma_peak_source() -> str:
    """`fma_peak`: n steps of independent fused multiply-adds on registers; 2 * rows * 2 * lanes FLOP a step."""
    rows, lanes = _rows(), host().lanes
    return f"""\
def fma_peak(args, thread, threads):
    buffer = operand_f32(args, 0)
    n = extent(args, 1)
    base = thread * {rows * 2 * lanes}
    acc = tile_load(buffer, base, {2 * lanes}, {rows}, 2)
    factor = tile_load(buffer, base, 0, {rows}, 2)
    for k in range(n):
        acc = tile_fma(factor, acc, acc)
    tile_store(buffer, base, {2 * lanes}, acc)
"""


def memory_read_source() -> str:
    """`memory_read`: the sum of n float32 elements of buffer 0, one sum a thread into buffer 1; 4 n bytes."""
    step = _VECTORS * host().lanes
    return f"""\
def memory_read(args, thread, threads):
    x = operand_f32(args, 0)
    total = operand_f32(args, 1)
    n = extent(args, 2)
    first = n // {step} * thread // threads * {step}
    last = n // {step} * (thread + 1) // threads * {step}
    acc = tile_zeros_f32(1, {_VECTORS})
    for i in range(first, last, {step}):
        acc = acc + tile_load(x, i, 0, 1, {_VECTORS})
    store_scalar(total, thread, tile_sum(acc))
"""


def memory_triad_source() -> str:
    """`memory_triad`: a = b + 3 c on n float32 elements; 12 n bytes (McCalpin's STREAM counting)."""
    step = _VECTORS * host().lanes
    return f"""\
def memory_triad(args, thread, threads):
    a = operand_f32(args, 0)
    b = operand_f32(args, 1)
    c = operand_f32(args, 2)
    n = extent(args, 3)
    first = n // {step} * thread // threads * {step}
    last = n // {step} * (thread + 1) // threads * {step}
    for i in range(first, last, {step}):
        tile_store(a, i, 0, tile_fma(tile_load(c, i, 0, 1, {_VECTORS}), 3.0, tile_load(b, i, 0, 1, {_VECTORS})))
"""


def peak_kernels(threads: int) -> tuple[PeakKernel, PeakKernel, PeakKernel]:
    """The three measuring kernels, for up to `threads` threads."""
    rows, lanes = _rows(), host().lanes
    step = _VECTORS * lanes
    return (PeakKernel("fma_peak", fma_peak_source(), (threads * rows * 2 * lanes,), 1, 2 * rows * 2 * lanes, 0),
            PeakKernel("memory_read", memory_read_source(), (0, threads), step, 1, 4),
            PeakKernel("memory_triad", memory_triad_source(), (0, 0, 0), step, 2, 12))
