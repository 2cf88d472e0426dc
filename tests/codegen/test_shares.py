"""How emitted loops share an axis among threads: every point once, and evenly."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from graphc.codegen.cpu import emit
from graphc.codegen.host import Host
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
