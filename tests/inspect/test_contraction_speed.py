"""The contraction benchmark checks what it times; recipes yield contractions of whole programs."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from graphc import cli
from graphc.codegen.build import compile_kernel
from graphc.codegen.host import host
from graphc.errors import CompileError
from graphc.inspect import contraction_speed
from graphc.inspect.contraction_speed import check_kernel, measure_contractions, sampled
from graphc.inspect.contractions import read_table
from graphc.inspect.recipes import RECIPES, contraction_forms
from graphc.kernel.parser import parse_kernel
from graphc.kernel.verify import verify

PRODUCT = (
    "(x: f32[N,40], W: f32[40,70], b: f32[70]) -> (y: f32[N,70]) where N <= 9 { space n < N, o < 70 stage {"
    " reduce k < 40 a: f32 = sum(x[n, k] * W[k, o]) y[n, o] = a + b[o] } }"
)


def test_figures_are_shares_of_the_measured_peak() -> None:
    table = read_table()
    small = sorted(table.rows, key=lambda row: row.best.microseconds)[:3]
    speeds = measure_contractions(seconds=0.05, table=replace(table, rows=tuple(small)))
    assert [k.name for k in speeds.kernels] == [row.name for row in small]
    for kernel in speeds.kernels:
        assert kernel.share_of_peak == pytest.approx(kernel.gflops / speeds.peak_gflops)
        assert 0 < kernel.share_of_peak < 1.3
    data = speeds.to_json()
    assert data["workload"] == "contractions" and set(data["families"]) == {row.family for row in small}
    assert "of the peak, median" in str(speeds)


@pytest.mark.parametrize("option", [(), ("--json",)])
def test_the_command_prints_the_figures(
    option: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = read_table()
    row = min(table.rows, key=lambda row: row.best.microseconds)
    monkeypatch.setattr(contraction_speed, "read_table", lambda: replace(table, rows=(row,)))
    assert cli.main(["bench", "contractions", "--seconds", "0.01", *option]) == 0
    text = capsys.readouterr().out
    if option:
        data = json.loads(text)
        assert data["workload"] == "contractions" and data["kernels"][0]["name"] == row.name
    else:
        assert row.name in text and "peak of one thread" in text


def test_schedules_for_other_vectors_are_not_timed() -> None:
    table = read_table()
    row = min(table.rows, key=lambda row: row.best.microseconds)
    other = replace(table, rows=(row,), host=replace(table.host, lanes=3))
    speeds = measure_contractions(seconds=0.01, table=other)
    assert speeds.kernels[0].behind_best is None and speeds.median_behind_best is None
    assert "times" not in str(speeds)


def test_a_wrong_kernel_is_not_timed() -> None:
    right, wrong = (parse_kernel(f"kernel k {text}") for text in (PRODUCT, PRODUCT.replace("a + b[o]", "a - b[o]")))
    check_kernel(compile_kernel(right, host()))
    with pytest.raises(CompileError, match="stores y wrongly: it deviates"):
        check_kernel(replace(compile_kernel(wrong, host()), form=right))


def test_few_points_are_interpreted() -> None:
    text = PRODUCT.replace("70", "7000").replace("40", "4000")
    kernel = parse_kernel(f"kernel k {text}")
    part = sampled(kernel, np.random.default_rng(0))
    verify(part)
    (columns,) = (a for a in part.space if a.name == "o")
    size = int(str(columns.upper[0].const)) - int(str(columns.lower[0].const))  # type: ignore[union-attr]
    assert 1 <= size < 10 and part.space[0] == kernel.space[0]


@pytest.mark.parametrize("name", ["mlp-37", "infer_lenet-1", "gru-32"])
def test_recipes_yield_contractions(name: str) -> None:
    forms = contraction_forms(RECIPES[name], host())
    assert len(forms) >= 3
    for form in forms.values():
        verify(form)
