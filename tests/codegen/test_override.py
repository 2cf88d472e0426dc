"""A user's schedules: those with code compute the same, those without are refused with what is possible."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest

from graphc.codegen.cpu.emit import schedulable
from graphc.codegen.host import Host, host
from graphc.codegen.override import check_override
from graphc.errors import CompileError
from graphc.kernel.parser import parse_kernel
from graphc.kernel.schedule import Schedule, parse_schedule

AVX512 = Host("test", "", 16, 32)
LANES = host().lanes
FORMS = {
    "linear": "(x: f32[N,20], W: f32[40,20], V: f32[20,40]) -> (y: f32[N,40]) where N <= 37 { space n < N, o < 40"
    " stage { reduce k < 20 acc: f32 = sum(x[n, k] * V[k, o]) y[n, o] = max(acc, 0.0) } }",
    "update": "(g: f32[N,12], x: f32[N,33], inout W: f32[12,33]) -> () where N <= 20 { space o < 12, k < 33"
    " stage { reduce n < N acc: f32 = sum(g[n, o] * x[n, k]) W[o, k] = W[o, k] - acc * 0.1 } }",
    "rows": "(x: f32[N,21]) -> (y: f32[N,21]) where N <= 9 { space n < N stage { reduce c < 21 m: f32 = max(x[n, c]) }"
    " stage { space c < 21 y[n, c] = exp(x[n, c] - m) } }",
    "copied": "(x: f32[30,20]) -> (y: f32[20,30]) { space i < 20, j < 30 stage { y[i, j] = x[j, i] } }",
    "fibonacci": "(inout x: f32[40]) -> () { space sequential i < 39 stage { x[i+1] = x[i+1] + x[i] } }",
    "scatter": "(g: f32[N,21], t: i64[N]) -> (E: f32[5,21] init 0) where N <= 41 {"
    " space sequential n < N, c < 21 stage { E[t[n] in 0 .. 5, c] += g[n, c] } }",
}


def form(name: str) -> Any:
    return parse_kernel(f"kernel {name} {FORMS[name]}")


@pytest.mark.parametrize("name", [name for name in FORMS if name != "fibonacci"])  # which the verifier refuses
def test_what_is_allowed_computes_what_the_form_says(name: str, build: Any) -> None:
    """Of schedules made at random, whatever the check lets through; some of each kernel are."""
    draw, kernel = np.random.default_rng(0), form(name)
    flat = schedulable(kernel)
    space = [a.name for a in flat.space]
    axes = list(dict.fromkeys([*space, *(a.name for s in flat.stages for a in (*s.space, *s.reduce))]))
    inputs = {
        o.name: draw.integers(0, 5, 30).astype("i8") if o.dtype.is_integer
        else draw.normal(size=[30 if str(d) == "N" else d for d in o.shape]).astype("f4")
        for o in kernel.inputs
    }  # fmt: skip
    counts = {symbol: 8 if name == "rows" else 18 if name == "update" else 30 for symbol in kernel.runtime_extents}
    inputs = {name: array[: counts.get("N", 30)] if len(array) == 30 else array for name, array in inputs.items()}
    checked = 0
    sizes = (1, 2, 3, 5, LANES, 2 * LANES)
    for kind, chosen, ordered, parallel in itertools.product(
        ("scalar", "vector", "transposed", "outer", "dot"), range(60), (False, True), (False, True)
    ):
        tiled = list(draw.permutation(axes))[: chosen % 4]
        schedule = Schedule(
            kind,
            str(tiled[-1]) if tiled else None,
            tuple((str(a), int(draw.choice(sizes))) for a in tiled),
            tuple(map(str, draw.permutation(space))) if ordered else (),
            parallel=str(draw.choice(axes)) if parallel else None,
            unit=int(draw.choice((0, 4, 15, 2 * LANES))) if parallel else 0,
        )
        try:
            check_override(kernel, schedule, host())
        except CompileError:
            continue
        checked += 1
        if checked <= 12 or kind in ("outer", "dot"):
            build(kernel, schedule).check(inputs, counts)
    assert checked >= 2


def refused(name: str, schedule: str | Schedule) -> str:
    parsed = parse_schedule(schedule) if isinstance(schedule, str) else schedule
    with pytest.raises(CompileError) as error:
        check_override(form(name), parsed, AVX512)
    assert f"kernel {name!r} cannot run as {str(parsed)!r}: " in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "schedule", "reason"),
    [
        ("linear", "outer; vector m; tile n:8 m:32", "the kernel has no axis 'm', its axes are k, n, o"),
        ("linear", "outer; vector o; tile n:8 o:32; parallel z", "no axis 'z'"),
        ("linear", "outer; vector n; tile o:8 n:32", "not contiguous along these lanes"),
        ("linear", "outer; vector o; tile o:32 n:8", "not its rows and columns"),
        ("linear", "outer; vector o; tile n:8 o:20", "multiple of 16 elements"),
        ("linear", "outer; vector o; tile n:8 o:64", "the axis 'o' has 40 points: its tile can have 48 at most"),
        ("linear", "outer; vector o; tile n:38 o:16", "the axis 'n' has 37 points"),
        ("linear", "outer; vector o; tile n:30 o:48", "at most 64 vectors of sums"),
        ("linear", "outer; vector o; tile n:8 o:32; order n", "its order must name each axis of the space once: n, o"),
        ("linear", "outer; vector o; tile n:8 o:32; block k:8", "no code for cache blocks"),
        ("linear", "outer; vector o; tile n:8 o:32; parallel k", "cannot share out the axis 'k'; they can share n"),
        ("linear", "outer; vector o; tile n:8 o:32; parallel n:12", "a unit of 12 points of 'n' is no multiple"),
        ("scatter", "scalar; parallel c:8", "has an initial value, which units of an axis do not fill"),
        ("linear", "dot; vector k; tile n:2 o:8 k:16", "not contiguous along these lanes"),
        ("linear", "scalar; tile n:2", "neither a vector axis nor a tile"),
        ("linear", "vector; vector o; tile n:16", "its vector axis needs a tile"),
        ("linear", "vector; vector o; tile o:16 n:16", "leave no other axis to tile"),
        ("linear", "vector; vector o; tile o:17", "multiple of 16"),
        ("rows", "vector; vector c; tile c:16 n:16", "no stage has code with lanes along n"),
        ("copied", "transposed; vector j; tile i:8 j:16", "square tiles are 16 of the row axis"),
        ("linear", "transposed; vector o; tile n:16 o:16", "nothing is to transpose"),
        ("rows", "transposed; vector n; tile c:16 n:16", "two axes of the space"),
        ("fibonacci", "vector; vector i; tile i:16", "no code with lanes along 'i'"),
        ("fibonacci", "scalar; parallel i", "share none of this kernel's"),
        ("linear", Schedule("round"), "there is no kind 'round'"),
        ("linear", Schedule("vector", "o", (("o", 16), ("o", 16))), "names an axis twice"),
    ],
)
def test_what_has_no_code_is_refused(name: str, schedule: str | Schedule, reason: str) -> None:
    assert reason in refused(name, schedule)


def test_refusals_say_what_is_possible() -> None:
    text = refused("linear", "dot; vector k; tile n:2 o:8 k:16")
    assert "outer; vector o; tile n:(1, 2, ...) o:(16, 32, ...)" in text
    assert "vector; vector o; tile o:(16, 32, ...)" in text
    assert text.endswith("or scalar")
    assert "transposed; vector j; tile i:16 j:16" in refused("copied", "scalar; tile i:2")


def test_points_that_read_others_keep_their_order() -> None:
    kernel = parse_kernel(
        "kernel k (inout x: f32[9,40]) -> () { space sequential i < 8, j < 40 stage {"
        " x[i+1, j] = x[i+1, j] + x[i, j] } }"
    )
    check_override(kernel, parse_schedule("scalar; order i j"), AVX512)
    with pytest.raises(CompileError, match="points read what others write, so the order must be i j"):
        check_override(kernel, parse_schedule("scalar; order j i"), AVX512)
    check_override(form("scatter"), parse_schedule("scalar; order c n"), AVX512)


def test_tiles_beyond_the_registers_are_remarked() -> None:
    assert check_override(form("linear"), parse_schedule("outer; vector o; tile n:8 o:32"), AVX512) == ""
    remark = check_override(form("linear"), parse_schedule("outer; vector o; tile n:16 o:48"), AVX512)
    assert re.fullmatch(r"schedule: the tile of linear \(outer; .*\) needs 53 vector registers of 32: sums .*", remark)
