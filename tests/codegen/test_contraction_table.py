"""The cost model against the table of measured contractions: what it chooses for that machine is near the best."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

import pytest

from graphc.codegen import tiles, traffic
from graphc.codegen.build import compile_kernel
from graphc.codegen.choose import choose
from graphc.codegen.host import host
from graphc.inspect.contraction_speed import check_kernel
from graphc.inspect.contractions import Row, needed_flops, print_table, read_table
from graphc.kernel.parser import parse_kernel
from graphc.kernel.text import print_kernel
from graphc.kernel.verify import verify

TABLE = read_table()
MEDIAN, MEAN, MOST = 1.03, 1.06, 1.3  # times the best time


@dataclass(frozen=True)
class Choice:
    """Where a chosen schedule stands among those measured, and its time over the best."""

    row: Row
    place: int
    behind: float


def choices() -> list[Choice]:
    """What is chosen for every row. Fails, saying what to do, for a schedule that was not among those worth listing."""
    found = []
    for row in TABLE.rows:
        schedule = choose(row.form, TABLE.host)
        place = row.place(schedule)
        if place is None:
            pytest.fail(
                f"{row.name}: the chosen schedule '{schedule}' is not listed: it is much slower than '"
                f"{row.best.schedule}', or new; measure it with tools/search_schedules.py --rows '{row.name}'"
            )
        found.append(Choice(row, place, row.schedules[place].microseconds / row.best.microseconds))
    return found


def test_chosen_schedules_are_near_the_best() -> None:
    found = choices()
    assert not [f"{c.row.name}: {c.behind:.2f} times the best, place {c.place}" for c in found if c.behind > MOST]
    assert statistics.median(c.behind for c in found) <= MEDIAN
    assert statistics.mean(c.behind for c in found) <= MEAN
    assert statistics.median(c.place for c in found) <= 8
    assert sum(c.behind > 1.1 for c in found) <= len(found) / 10


@pytest.mark.parametrize(
    ("module", "constant", "bad"),
    [(tiles, "LATENCY", 40.0), (tiles, "LOADS", 0.5), (tiles, "ROW_STORE", 99.0), (traffic, "KEPT", 0.01)],
)
def test_a_bad_constant_is_noticed(monkeypatch: pytest.MonkeyPatch, module: object, constant: str, bad: float) -> None:
    monkeypatch.setattr(module, constant, bad)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        test_chosen_schedules_are_near_the_best()


def test_the_table_is_of_real_contractions() -> None:
    """Forms that verify and print as they stand, of every layer in every direction, the best schedules first."""
    assert len(TABLE.rows) >= 60
    families = {row.family for row in TABLE.rows}
    layers, parts = ("convolution", "dense", "recurrent"), ("forward", "input gradient", "weight gradient")
    assert families == {f"{layer}, {part}" for layer in layers for part in parts}
    for row in TABLE.rows:
        verify(row.form)
        assert parse_kernel(print_kernel(row.form)) == row.form
        times = [m.microseconds for m in row.schedules]
        assert times == sorted(times) and len(times) > 1
        assert 0 < row.gflops(row.best.microseconds * 1e-6) < 1.1 * row.peak


def test_the_text_of_the_table_is_read_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "table.toml").write_text(print_table(TABLE), encoding="utf-8")
    assert read_table(tmp_path / "table.toml") == TABLE


def test_needed_arithmetic_leaves_out_padding() -> None:
    kernel = (
        "kernel k(W: f32[2,3], X: f32[3,5,N]) -> (y: f32[2,5,N]) where N <= 16 { space o < 2, x < 5, n < N stage {"
        " reduce k in max(0, 1-x) .. min(3, 6-x) a: f32 = sum(W[o, k] * X[k, k+x-1, n]) y[o, x, n] = a } }"
    )
    assert needed_flops(parse_kernel(kernel)) == 2 * 2 * 16 * (2 + 3 + 3 + 3 + 2)


@pytest.mark.parametrize("row", TABLE.rows[:: len(TABLE.rows) // 8], ids=lambda row: row.name)
def test_best_schedules_compute_what_the_interpreter_does(row: Row) -> None:
    lanes = (TABLE.host.lanes, TABLE.host.registers) == (host().lanes, host().registers)
    check_kernel(compile_kernel(row.form, host(), schedule=row.best.schedule if lanes else None))
