"""Measuring schedules of kernels, and what operands hold meanwhile."""

from __future__ import annotations

import pytest

from graphc.codegen.candidates import candidates
from graphc.codegen.host import host
from graphc.errors import CompileError
from graphc.ir.types import f32, i32
from graphc.kernel.parser import parse_kernel
from graphc.kernel.schedule import Schedule
from graphc.runtime.timing import Memory
from graphc.tuning import measure, memories

PRODUCT = parse_kernel(
    "kernel product (x: f32[N,8], W: f32[8,20]+4, inout y: f32[N,20]) -> () where N <= 16 { space n < N, o < 20"
    " stage { reduce k < 8 acc: f32 = sum(x[n, k] * W[k, o]) y[n, o] = y[n, o] + acc } }"
)
LOOKUP = parse_kernel(
    "kernel lookup (E: f32[30,8], t: i32[N], u: i32[N], W: f32[8,20]) -> (y: f32[N,20]) where N <= 16 {"
    " space n < N, o < 20 stage { reduce k < 8"
    " acc: f32 = sum(E[i64(t[n]) + 2 in 0 .. 30, k] * W[k, o]) y[n, o] = acc + f32(u[n]) } }"
)


def test_every_schedule_has_its_time() -> None:
    found = [candidate.schedule for candidate in candidates(PRODUCT, host())]
    times = measure(PRODUCT, [found[0], found[1], Schedule("scalar"), found[0]], rounds=1, sample_seconds=0)
    assert len(times) == 4
    assert all(seconds > 0 for seconds in times)
    assert times[0] == times[3]  # one code, measured once


def test_operands_are_like_those_of_the_program() -> None:
    assert memories(PRODUCT) == [Memory(f32, 16 * 8), Memory(f32, 8 * 24), Memory(f32, 16 * 20, written=True)]


def test_indices_are_within_their_bounds() -> None:
    assert memories(LOOKUP)[1] == Memory(i32, 16, -2, 28)
    assert memories(LOOKUP)[2] == Memory(i32, 16, 0, 2)
    assert measure(LOOKUP, [Schedule("scalar")], rounds=1, sample_seconds=0)[0] > 0


def test_a_schedule_without_code_is_refused() -> None:
    with pytest.raises(CompileError, match="dot schedule"):
        measure(PRODUCT, [Schedule("dot", "k", (("n", 2), ("o", 2), ("k", 3)))])
