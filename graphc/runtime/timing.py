"""How long the machine code of kernels takes, each by itself on memory of its own kind, to compare schedules.

Times are those of one thread with the operands in the caches, as far as they fit. Codes take turns, round after round,
so that a neighbour's noise hits all of them, and the least time of each counts.
"""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.ir.buffers import address, aligned_empty
from graphc.ir.types import DType
from graphc.runtime.loader import LoadedCode, assemble, load

ROUNDS, FEWEST_ROUNDS = 12, 4
ENOUGH_SECONDS = 0.06  # of rounds, for each code: there are fewer rounds where a call takes milliseconds
SAMPLE_SECONDS = 4e-4  # of one code in a round, at least: much longer than the clock and a call from Python take
MOST_REPEATS = 1 << 20

# Calls a kernel again and again without Python in between.
_REPEAT = """
define void @graphc_repeat(ptr %kernel, ptr %args, i64 %times) {
entry:
  br label %turn
turn:
  %i = phi i64 [ 0, %entry ], [ %i.next, %turn ]
  call void %kernel(ptr %args, i64 0, i64 1)
  %i.next = add i64 %i, 1
  %more = icmp slt i64 %i.next, %times
  br i1 %more, label %turn, label %done
done:
  ret void
}
"""


@dataclass(frozen=True)
class Memory:
    """An operand of a kernel: so many elements of a dtype.

    Floats are filled with random numbers, others with integers in `low <= element < high` (indices that are valid).
    written: the kernel writes it, so it is filled again before every round.
    """

    dtype: DType
    elements: int
    low: int = 0
    high: int = 2
    written: bool = False


def least_seconds(
    codes: Mapping[str, bytes],
    operands: Sequence[Memory],
    counts: Sequence[int] = (),
    *,
    rounds: int = ROUNDS,
    sample_seconds: float = SAMPLE_SECONDS,
) -> list[float]:
    """Seconds a call of each kernel takes at least, in the order of `codes`, which maps symbols to object files.

    All have the same operands and runtime counts. There are `rounds` rounds, or at least `FEWEST_ROUNDS` of them if
    calls take long. Raises CompileError for what is no object file.
    """
    loaded = load(codes)
    call, _ = _repeat()
    arrays = [_filled(memory, number) for number, memory in enumerate(operands)]
    saved = [(array, array.copy()) for array, memory in zip(arrays, operands, strict=True) if memory.written]
    cells = np.array(counts, np.int64)
    places = [*map(address, arrays), *(address(cells) + 8 * number for number in range(len(counts)))]
    args = np.array(places or [0], np.int64)

    def sample(symbol: str, repeats: int) -> float:
        for array, start in saved:
            array[...] = start
        call(loaded.addresses[symbol], address(args), 1)  # into the caches
        start_time = time.perf_counter()
        call(loaded.addresses[symbol], address(args), repeats)
        return (time.perf_counter() - start_time) / repeats

    repeats = {symbol: _repeats(functools.partial(sample, symbol), sample_seconds) for symbol in codes}
    times: list[list[float]] = []
    end = time.perf_counter() + ENOUGH_SECONDS * len(codes)
    while len(times) < rounds and (len(times) < FEWEST_ROUNDS or time.perf_counter() < end):
        times.append([sample(symbol, repeats[symbol]) for symbol in codes])
    return [min(column) for column in zip(*times, strict=True)]


def _repeats(sample: Callable[[int], float], seconds: float) -> int:
    """How often a kernel is to be called to take so long."""
    repeats = 1
    while repeats < MOST_REPEATS and (taken := sample(repeats) * repeats) < seconds / 2:
        repeats = min(MOST_REPEATS, max(2 * repeats, int(repeats * seconds / max(taken, 1e-9))), 64 * repeats)
    return repeats


def _filled(memory: Memory, seed: int) -> np.ndarray:
    array, draw = aligned_empty((memory.elements,), memory.dtype), np.random.default_rng(seed)
    if memory.dtype.is_float:
        array[...] = draw.uniform(-1.0, 1.0, memory.elements)
    else:
        array[...] = draw.integers(memory.low, max(memory.high, memory.low + 1), memory.elements)
    return array


@functools.cache
def _repeat() -> tuple[Callable[[int, int, int], Any], LoadedCode]:
    """`repeat(kernel, args, times)`, and the code that lives as long as the function."""
    code = load({"graphc_repeat": assemble(_REPEAT)})
    return ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(code.addresses["graphc_repeat"]), code
