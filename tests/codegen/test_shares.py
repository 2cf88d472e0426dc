"""How emitted loops share an axis among threads: every point once, and evenly."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from graphc.codegen.choose import choose
from graphc.codegen.cpu import emit
from graphc.codegen.host import Host, host
from graphc.kernel.parser import parse_kernel
from graphc.kernel.schedule import Schedule

HOST = Host("shares", "", 16, 32)
TILE = 64


def source(rows: int | str, columns: int) -> str:
    """The code of a product whose columns are shared in tiles of 64."""
    where = "" if isinstance(rows, int) else " where N <= 128"
    form = parse_kernel(f"""
kernel product(x: f32[{rows},48], w: f32[48,{columns}], inout y: f32[{rows},{columns}]) -> (){where} {{
  space i < {rows}, j < {columns}
  stage {{
    reduce k < 48
    acc: f32 = sum(x[i, k] * w[k, j])
    y[i, j] = y[i, j] + acc
  }}
}}
""")
    schedule = Schedule("outer", "j", (("i", 4), ("j", TILE)), ("j", "i"), parallel="j")
    return emit(form, schedule, HOST)


def spans(text: str, thread: int, threads: int, columns: int) -> Iterator[tuple[int, int]]:
    """First and last column of each tile that a thread runs."""
    names = {"thread": thread, "threads": threads, "tile_minimum": min}
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if found := re.match(r"\s+for j in range\((.*)\):$", line):
            start, stop, step = (eval(part, names) for part in re.split(r", (?![^(]*\))", found[1]))
            yield from ((j, min(j + step, columns)) for j in range(start, stop, step))
        elif line.strip() == "if thread == threads - 1:" and thread == threads - 1:
            yield int(lines[number + 1].strip().removeprefix("j = ")), columns


@pytest.mark.parametrize("columns", [512, 448, 500, 784, 100, 70, 65])
@pytest.mark.parametrize("threads", [1, 2, 3, 4, 7])
def test_every_column_once_and_evenly(columns: int, threads: int) -> None:
    text = source(32, columns)
    shares = [list(spans(text, thread, threads, columns)) for thread in range(threads)]
    assert [j for share in shares for a, b in share for j in range(a, b)] == list(range(columns))
    tiles = -(-columns // TILE)
    assert max(len(share) for share in shares) == -(-tiles // threads)


def test_what_is_left_counts_as_a_tile() -> None:
    assert "range(8 * thread // threads * 64, tile_minimum(8 * (thread + 1) // threads, 7) * 64, 64)" in source(32, 500)
    assert "range(8 * thread // threads * 64, 8 * (thread + 1) // threads * 64, 64)" in source(32, 512)
    assert "range(2 * thread // threads * 64, tile_minimum(2 * (thread + 1) // threads, 1) * 64, 64)" in source(32, 100)


# ---- initial values -------------------------------------------------------------------------------------------------

PIECES = """
kernel pieces(x: f32[6,14,20], g: f32[16,10,20]) -> (w: f32[6,5,16] init 0) {
  space c < 6, sequential piece < 5, ky < 5, o < 16
  stage {
    reduce y in piece .. piece+2, n < 20
    acc: f32 = sum(x[c, ky+y, n] * g[o, y, n])
    w[c, ky, o] += acc
  }
}
"""


@pytest.mark.parametrize(
    ("c", "o", "parallel"), [(6, 4, "o"), (6, 4, "ky"), (4, 3, "c"), (4, 3, "o"), (4, 5, "ky")]
)
def test_threads_fill_their_own_slices(build: Callable[..., Any], c: int, o: int, parallel: str) -> None:
    """Sums in pieces: whatever axis is shared, each thread starts its own sums at the initial value."""
    rng = np.random.default_rng(0)
    inputs = {"x": rng.standard_normal((6, 14, 20)).astype("f4"), "g": rng.standard_normal((16, 10, 20)).astype("f4")}
    tile = (("c", c), ("o", o), ("n", host().lanes))
    schedule = Schedule("dot", "n", tile, ("c", "piece", "ky", "o"), parallel=parallel)
    build(PIECES, schedule).check(inputs, threads=(1, 2, 3, 4, 7))


def test_the_axis_of_sums_in_pieces_is_the_most_even() -> None:
    form = PIECES.replace("20", "200")
    found = choose(parse_kernel(form), HOST)
    text = emit(parse_kernel(form), found, HOST)
    assert found.parallel in ("o", "c", "ky") and "thread // threads" in text and "if thread != 0" not in text


def test_the_last_rows_are_filled_to_their_end_and_no_further(build: Callable[..., Any]) -> None:
    kernel = """
kernel winners(x: f32[70,300], t: i32[70]) -> (y: f32[70,300] init 0) {
  space n < 70, c < 300
  stage {
    y[n, c] = x[n, c] * 2.0 if x[n, c] > 0.0
  }
}
"""
    inputs = {"x": np.random.default_rng(0).standard_normal((70, 300)).astype("f4"), "t": np.zeros(70, "i4")}
    for parallel, tile in (("n", (("n", 16),)), ("n", (("c", 64),)), ("c", (("c", 64),))):
        order = ("n", "c") if parallel == "n" else ("c", "n")
        schedule = Schedule("vector", tile[0][0], tile, order, parallel=parallel)
        build(kernel, schedule).check(inputs, threads=(1, 2, 3, 5))
