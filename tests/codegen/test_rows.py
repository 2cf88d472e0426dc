"""Loops that each thread walks with rows of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.autodiff.expand import expand_derivatives
from graphc.codegen import choose, rows, sharing
from graphc.codegen.cpu import emit
from graphc.codegen.host import Host, host
from graphc.codegen.rows import Scheduled, in_units, part_of_units, shared_by
from graphc.errors import CompileError
from graphc.interpret import evaluate
from graphc.ir.dims import parse_dim
from graphc.kernel.parser import parse_kernel
from graphc.kernel.plan import Loop, walk
from graphc.kernel.plan_text import _entries
from graphc.kernel.schedule import parse_schedule
from graphc.program import Program

HOST = Host("rows", "", 16, 32)
PRODUCT = """
kernel product(h: f32[{rows},48], w: f32[48,64]) -> (g: f32[{rows},64]){where} {{
  space i < {rows}, j < 64
  stage {{
    reduce k < 48
    acc: f32 = sum(h[i, k] * w[k, j])
    g[i, j] = tanh(acc)
  }}
}}
"""
MAP = """
kernel map(g: f32[{rows},64], x: f32[{rows},64]) -> (h: f32[{rows},64]){where} {{
  space i < {rows}, j < 64
  stage {{
    h[i, j] = g[i, j] * x[i, j]
  }}
}}
"""
GATES = """
kernel gates(g: f32[{rows},64], x: f32[{rows},32]) -> (h: f32[{rows},32]){where} {{
  space i < {rows}, j < 32
  stage {{
    h[i, j] = sigmoid(g[i, j]) * tanh(g[i, j+32]) + x[i, j]
  }}
}}
"""
FORMS = {"product": PRODUCT, "map": MAP, "gates": GATES}


def text(name: str, count: int | str, capacity: int = 32) -> str:
    """One of the forms above with so many rows."""
    return FORMS[name].format(rows=count, where="" if isinstance(count, int) else f" where N <= {capacity}")


def scheduled(name: str, count: int | str, capacity: int = 32) -> Scheduled:
    form = parse_kernel(text(name, count, capacity))
    return Scheduled(form, choose.choose(form, HOST))


# ---- schedules ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "unit"), [("N", 8), ("N", 4), (32, 8)])
def test_kernels_share_equal_units_of_rows(count: int | str, unit: int) -> None:
    """Rows of a product, of a map whose axes are merged, and of one whose are not."""
    found = [shared_by(scheduled(name, count), parse_dim(str(count)), unit, HOST) for name in FORMS]
    assert [str(pair and pair[0]).split("tile ")[1] for pair in found] == [
        f"i:{unit} j:32; order j i; parallel i:{unit}",
        f"j:64; order j; parallel j:{64 * unit}",
        f"j:32; order i j; parallel i:{unit}",
    ]


def test_what_has_no_such_rows_is_not_shared_by_them() -> None:
    assert shared_by(scheduled("product", "N"), parse_dim("M"), 8, HOST) is None
    assert shared_by(scheduled("product", 32), 24, 8, HOST) is None
    filled = parse_kernel(text("map", 32).replace("(h: f32[32,64])", "(h: f32[32,64] init 0)"))
    assert shared_by(Scheduled(filled, choose.choose(filled, HOST)), 32, 8, HOST) is None


def test_rows_beyond_the_last_tile_cost_more() -> None:
    """They may not move back into the rows of another thread."""
    pairs = [shared_by(scheduled("product", "N", capacity), parse_dim("N"), 8, HOST) for capacity in (32, 37)]
    assert [pair[1] > 1.1 for pair in pairs if pair] == [False, True]


def test_units_of_the_same_rows_are_the_same_part() -> None:
    N = parse_dim("N")
    assert part_of_units(N, 8, 512) == part_of_units(128 * N, 1024, 4) == ("N points by 8", 512)
    assert part_of_units(32, 8, 512) == part_of_units(4096, 1024, 4) == ("4 points by 1", 4096)
    assert part_of_units(N, 4, 512) != part_of_units(N, 8, 512)


def test_the_longer_share_of_two_threads() -> None:
    kernels = {name: scheduled(name, "N", 24) for name in FORMS}
    shares = {dict(units.schedules)["map"].unit // 64: units.share for units in in_units(kernels, {}, HOST)}
    assert shares.items() >= {1: 0.5, 4: 0.5, 8: 16 / 24, 16: 16 / 24}.items()
    assert {units.share for units in in_units({"map": scheduled("map", 1)}, {}, HOST)} == set()


# ---- code -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("count", [32, 37, "N"])
@pytest.mark.parametrize("unit", [1, 8])
def test_every_thread_has_whole_units(build: Callable[..., Any], name: str, count: int | str, unit: int) -> None:
    found = shared_by(scheduled(name, count, 37), parse_dim(str(count)), unit, host())
    if found is None:
        pytest.skip("this processor's vectors do not divide the rows, so threads cannot share whole rows")
    kernel, rng = build(text(name, count, 37), found[0]), np.random.default_rng(0)
    for n in (1, 3, 8, 13, 37) if count == "N" else (count,):
        inputs = {o.name: rng.standard_normal([d if isinstance(d, int) else n for d in o.shape]).astype("f4")
                  for o in kernel.form.operands if o.role == "in"}
        kernel.check(inputs, {"N": n} if count == "N" else {}, threads=(1, 2, 3, 4, 7))


def test_a_units_share_in_the_source() -> None:
    source = emit(parse_kernel(text("product", "N")), shared_by(scheduled("product", "N"), parse_dim("N"), 8, HOST)[0],
                  HOST)  # type: ignore[index]
    assert "i_units = (N + 7) // 8" in source
    assert "range(i_units * thread // threads * 8, tile_minimum(i_units * (thread + 1) // threads * 8, N), 8)" in source


def test_units_that_tiles_do_not_fill_are_refused() -> None:
    form = parse_kernel(text("product", 32))
    with pytest.raises(CompileError, match="unit of 12 points of 'i' .* tiles of 8"):
        emit(form, parse_schedule("outer; vector j; tile i:8 j:32; order j i; parallel i:12"), HOST)
    with pytest.raises(CompileError, match="initial value"):
        filled = parse_kernel(text("map", 32).replace("(h: f32[32,64])", "(h: f32[32,64] init 0)"))
        emit(filled, parse_schedule("vector; vector j; tile j:64; parallel j:512"), HOST)


# ---- programs -------------------------------------------------------------------------------------------------------

LENGTH, WIDTH = 5, 48


def lstm(count: int | str, **scan: Any) -> tuple[list[gc.Input], list[gc.Symbol]]:
    xs = gc.input("xs", (LENGTH, count, 4 * WIDTH))
    U = gc.param("U", (WIDTH, 4 * WIDTH), init=gc.init.normal(0.0, 0.2))

    def cell(h: gc.Symbol, c: gc.Symbol, x: gc.Symbol) -> tuple[gc.Symbol, ...]:
        i, f, o, n = (part for part in gc.split(x + h @ U, 4, axis=1))
        c = gc.sigmoid(f) * c + gc.sigmoid(i) * gc.tanh(n)
        h = gc.sigmoid(o) * gc.tanh(c)
        return h, c, h

    zeros = gc.zeros((xs.shape[1], WIDTH))
    *_, hs = gc.scan(cell, [xs], [zeros, zeros], **scan)
    loss = gc.sum(gc.sin(hs))
    return [xs], [loss, *gc.grad(loss, [xs, U])]


def dropped(count: int | str) -> tuple[list[gc.Input], list[gc.Symbol]]:
    """A scan in a scan, with dropout in the inner one, which runs backwards."""
    xs, U = gc.input("xs", (LENGTH, count, WIDTH)), gc.param("U", (WIDTH, WIDTH), init=gc.init.normal(0.0, 0.2))

    def inner(h: gc.Symbol, x: gc.Symbol) -> tuple[gc.Symbol, gc.Symbol]:
        kept = x * gc.random.bernoulli(0.7, x.shape)
        return gc.tanh(h @ U + kept), h

    def outer(h: gc.Symbol, x: gc.Symbol) -> tuple[gc.Symbol, gc.Symbol]:
        h, hs = gc.scan(inner, [xs], [h + x], reverse=True)
        return h, gc.sum(hs, axis=0)

    last, sums = gc.scan(outer, [xs], [gc.zeros((xs.shape[1], WIDTH))])
    loss = gc.sum(last * last) + gc.sum(gc.sin(sums))
    return [xs], [loss, *gc.grad(loss, [xs, U])]


PROGRAMS: dict[str, Callable[[int | str], tuple[list[gc.Input], list[gc.Symbol]]]] = {
    "lstm": lstm,
    "reversed": lambda count: lstm(count, reverse=True),
    "dropped": dropped,
}


@pytest.fixture
def meetings_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small programs are shared too, where that saves more than the barriers."""
    monkeypatch.setattr(choose, "SMALLEST_SHARED", 1)
    monkeypatch.setattr(sharing, "SMALLEST_SHARED", (1,))
    monkeypatch.setattr(sharing, "LEAST_GAIN", 0)


def compiled(name: str, count: int | str, capacity: int = 20) -> Program:
    inputs, outputs = PROGRAMS[name](count)
    return gc.compile(inputs, outputs, dims={} if isinstance(count, int) else {count: capacity}, threads=2, seed=3,
                      cache=False)


def bodies(program: Program) -> list[list[str]]:
    """The entries of loops that hold no other loop."""
    loops = [e for e in walk(program.plan.entries) if isinstance(e, Loop)]
    return [[line.split("(")[0] for line in _entries(loop.body)] for loop in loops
            if not any(isinstance(e, Loop) for e in loop.body)]  # fmt: skip


@pytest.mark.usefixtures("meetings_cost")
@pytest.mark.parametrize("count", [32, "N"])
def test_threads_do_not_meet_in_the_loops_of_a_recurrent_network(monkeypatch: pytest.MonkeyPatch,
                                                               count: int | str) -> None:
    after = bodies(compiled("lstm", count, 32))
    monkeypatch.setattr(rows, "MOST_COUNTS", 0)
    before = bodies(compiled("lstm", count, 32))
    assert [len(body) > 1 and "barrier" in body for body in before] == [True, True]
    assert all("barrier" not in body for body in after)
    assert [len(body) - body.count("barrier") for body in before] == [len(body) for body in after]


@pytest.mark.usefixtures("meetings_cost")
@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("count", [13, "N"])
def test_bits_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch, name: str,
                                                     count: int | str) -> None:
    monkeypatch.setattr(sharing, "MEETING", 100 if name == "dropped" else 700)
    program = compiled(name, count)
    assert any("barrier" not in body for body in bodies(program))
    rng = np.random.default_rng(1)
    for n in (13,) if isinstance(count, int) else (20, 1, 7, 16):
        xs = rng.normal(size=(LENGTH, n, program.declared.inputs[0].shape[2])).astype(np.float32)
        assert_equal_bits(program, xs)


def assert_equal_bits(program: Program, xs: np.ndarray) -> None:
    executable = program._executable_for({"xs": xs})
    with executable.lock:
        found: list[Sequence[bytes]] = []
        for threads in (1, 2, 3, 4, 2, 4):
            for _ in range(5):
                executable.steps = 0
                found.append([a.tobytes() for a in executable.step([xs], threads=threads)])
    assert all(bits == found[0] for bits in found)
    executable.steps = 0
    known = {"xs": xs, "U": program.declared.variables[0].value}
    if not program.declared.uses_rng:
        for mine, oracle in zip(program(xs), evaluate(expand_derivatives(program.graph), known), strict=True):
            np.testing.assert_allclose(mine, oracle, rtol=1e-3, atol=1e-4 * np.abs(oracle).max())


def test_weights_beyond_the_caches_are_not_read_by_all_threads() -> None:
    """Where rows would cost more than they save, columns are shared."""
    form = parse_kernel(PRODUCT.format(rows="N", where=" where N <= 32").replace("48", "1024").replace("64", "1024"))
    kernel = Scheduled(form, choose.choose(form, HOST))
    units = next(u for u in in_units({"product": kernel}, {}, HOST) if u.share == 0.5)
    near, far = (Host("rows", "", 16, 32, second_level=size) for size in (64 << 20, 1 << 20))
    gains = [sharing._gains(units, {"product": kernel}, {"product": 1e6}, h)["product"] for h in (near, far)]
    assert gains[1] < gains[0] < 1e6 / 2 + 1
