"""What the enumeration of a contraction's schedules holds: the chooser's first, all of them with code that is right."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.codegen.candidates import candidates
from graphc.codegen.choose import choose
from graphc.codegen.cpu.emit import schedulable
from graphc.codegen.host import Host, host
from graphc.codegen.tiles import fits_dot, fits_outer
from graphc.kernel.parser import parse_kernel

HOSTS = (Host("test", "", 16, 32), Host("test", "", 8, 16), Host("test", "", 4, 32))
FORMS = {
    "linear": "(x: f32[N,84], W: f32[10,84], b: f32[10]) -> (y: f32[N,10]) where N <= 37 { space n < N, o < 10"
    " stage { reduce k < 84 acc: f32 = sum(x[n, k] * W[o, k]) y[n, o] = max(acc + b[o], 0.0) } }",
    "product": "(x: f32[N,50], W: f32[50,40]) -> (y: f32[N,40]) where N <= 100 { space n < N, o < 40"
    " stage { reduce k < 50 acc: f32 = sum(x[n, k] * W[k, o]) y[n, o] = acc } }",
    "update": "(g: f32[N,12], x: f32[N,33], inout W: f32[12,33]) -> () where N <= 20 { space o < 12, k < 33"
    " stage { reduce n < N acc: f32 = sum(g[n, o] * x[n, k]) W[o, k] = W[o, k] - acc * 0.1 } }",
    "wide": "(x: f64[30,20], W: f64[20,24]) -> (y: f64[30,24]) { space n < 30, o < 24"
    " stage { reduce k < 20 acc: f64 = sum(x[n, k] * W[k, o]) y[n, o] = acc } }",
    "batched": "(x: f32[3,N,16], W: f32[3,16,20]) -> (y: f32[3,N,20]) where N <= 9 { space b < 3, n < N, o < 20"
    " stage { reduce k < 16 acc: f32 = sum(x[b, n, k] * W[b, k, o]) y[b, n, o] = acc } }",
    "convolution": "(W: f32[6,3,3,3], X: f32[3,8,8,N], b: f32[6]) -> (Y: f32[6,8,8,N]) where N <= 20 {"
    " space co < 6, y < 8, x < 8, n < N stage {"
    " reduce ci < 3, ky in max(0, 1-y) .. min(3, 9-y), kx in max(0, 1-x) .. min(3, 9-x)"
    " acc: f32 = sum(W[co, ci, ky, kx] * X[ci, y+ky-1, x+kx-1, n]) Y[co, y, x, n] = acc + b[co] } }",
    "two_products": "(a: f32[N,9], b: f32[N,20], c: f32[N,9], d: f32[N,20]) -> (y: f32[9,20]) where N <= 13 {"
    " space i < 9, j < 20 stage { reduce n < N acc: f32 = sum(a[n, i] * b[n, j] - c[n, i] * d[n, j]) y[i, j] = acc } }",
}


def form(name: str):
    return parse_kernel(f"kernel {name} {FORMS[name]}")


@pytest.mark.parametrize("machine", HOSTS)
@pytest.mark.parametrize("name", FORMS)
def test_the_first_is_what_the_chooser_picks(name: str, machine: Host) -> None:
    found = candidates(form(name), machine)
    assert found[0].schedule == choose(form(name), machine)
    costs = [round(candidate.cost, 3) for candidate in found]
    assert costs == sorted(costs)
    assert len({candidate.schedule for candidate in found}) == len(found)


@pytest.mark.parametrize("machine", HOSTS)
@pytest.mark.parametrize("name", FORMS)
def test_schedules_are_complete_and_fit_the_registers(name: str, machine: Host) -> None:
    axes = [axis.name for axis in schedulable(form(name)).space]
    registers = machine.registers // (2 if name == "wide" else 1)
    for candidate in candidates(form(name), machine):
        schedule = candidate.schedule
        assert sorted(schedule.order) == sorted(axes)
        assert schedule.parallel is None or schedule.parallel in axes
        (_, rows), (_, columns), *vector = schedule.tile
        if schedule.kind == "outer":
            assert columns % machine.lanes == 0
            assert fits_outer(rows, columns // machine.lanes, registers)
        else:
            assert vector == [(schedule.vector_axis, machine.lanes)]
            assert fits_dot(rows, columns, registers)


def test_kinds_tiles_and_orders_are_all_there() -> None:
    found = [candidate.schedule for candidate in candidates(form("convolution"), HOSTS[0])]
    assert {(s.tile[0][0], s.vector_axis) for s in found} == {("co", "n")}
    assert {s.order for s in found} >= {("y", "x", "n", "co"), ("y", "co", "n", "x"), ("co", "n", "y", "x")}
    kinds = {s.kind for c in candidates(form("linear"), HOSTS[0]) for s in (c.schedule,)}
    assert kinds == {"dot"}  # neither operand is contiguous along the columns
    # All columns' tiles of two vectors that fit: the columns have no more.
    found = [candidate.schedule for candidate in candidates(form("update"), HOSTS[0])]
    assert {s.tile[0] for s in found if s.tile[1] == ("k", 32)} == {("o", rows) for rows in range(4, 13)}


def test_other_kernels_have_none() -> None:
    assert candidates(parse_kernel("kernel k (x: f32[8]) -> (y: f32[8]) { space i < 8 stage { y[i] = exp(x[i]) } }"),
                      host()) == []  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_candidates_compute_what_the_form_says(name: str, build) -> None:
    draw, kernel = np.random.default_rng(0), form(name)
    counts = {symbol: capacity - 2 for symbol, capacity in kernel.capacities.items()}
    inputs = {
        operand.name: draw.normal(size=[counts.get(str(dim), dim) for dim in operand.shape]).astype(
            operand.dtype.numpy)
        for operand in kernel.inputs
    }  # fmt: skip
    found = candidates(kernel, host())
    for candidate in draw.choice(np.array(found, object), 4, replace=False):
        build(kernel, candidate.schedule).check(inputs, counts)
