"""Schedules that a user overrides, end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.errors import CompileError, InputError
from graphc.kernel.schedule import Schedule, parse_schedule
from graphc.runtime.cache import ProgramCache

ARRAYS = {"x": np.random.default_rng(0).normal(size=(30, 20)).astype("f4")}


def compiled(**options: Any) -> gc.Program:
    x = gc.input("x", ("N", 20))
    weights = gc.param("W", (20, 40), init=gc.init.glorot_uniform())
    return gc.compile([x], [gc.relu(x @ weights)], dims={"N": 30}, seed=3, **{"cache": False, **options})


def test_an_override_runs_and_prints() -> None:
    plain = compiled()
    ((name, kernel),) = plain.kernels.items()
    wanted = "outer; vector i1; tile i0:3 i1:16; order i0 i1"
    assert wanted not in kernel.schedule
    found = compiled(schedules={name: wanted})
    assert found.kernels[name].schedule == wanted
    assert f"schedule: {wanted}" in found.kernels[name].source
    np.testing.assert_allclose(found(**ARRAYS)[0], plain(**ARRAYS)[0], rtol=1e-5, atol=1e-6)
    again = compiled(schedules={name: parse_schedule(wanted)})
    assert again.kernels[name].source == found.kernels[name].source
    same = compiled(schedules={name: kernel.schedule})
    assert same.kernels[name].source == kernel.source


def test_wide_tiles_are_remarked() -> None:
    (name,) = compiled().kernels
    found = compiled(schedules={name: "outer; vector i1; tile i0:20 i1:48"})
    assert any("sums are spilled" in remark and name in remark for remark in found.remarks)
    assert not any("spilled" in remark for remark in compiled().remarks)


def test_overrides_are_part_of_the_cache_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path))
    options = {"cache": True, "schedules": {"matmul_relu": "scalar"}}
    assert not compiled(cache=True).from_cache
    assert not compiled(**options).from_cache
    found = compiled(**options)
    assert found.from_cache
    assert found.kernels["matmul_relu"].schedule == "scalar"
    assert len(ProgramCache(tmp_path).entries()) == 2


@pytest.mark.parametrize(
    ("schedules", "message"),
    [
        ("scalar", "schedules must map names of kernels to schedules"),
        (["scalar"], "got list"),
        ({"matmul_relu": 8}, r"schedules\['matmul_relu'\] must be a schedule or its text.*got 8"),
        ({3: "scalar"}, r"schedules\[3\] must be"),
        ({"matmul_relu": "fast"}, "schedule 'fast' starts with 'fast'"),
        ({"matmul_relu": Schedule("scalar", parallel="a b")}, "more than one axis"),
        ({"matmul_relu": Schedule("scalar", order=("a b",))}, "holds what does not print"),
    ],
)
def test_what_is_no_schedule_is_refused(schedules: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compiled(schedules=schedules)


@pytest.mark.parametrize(
    ("schedules", "message"),
    [
        ({"matmul_rely": "scalar"}, "program 'program' has no kernel 'matmul_rely'.*did you mean 'matmul_relu'?"),
        ({"soup": "scalar"}, "Its kernels are: matmul_relu"),
        ({"matmul_relu": "outer; vector i1; tile i0:8 i1:20"}, "kernel 'matmul_relu' cannot run as .*multiple of"),
        ({"matmul_relu": "scalar; order n o"}, "has no axis 'n', its axes are i0, i1, r0"),
    ],
)
def test_what_no_kernel_can_do_is_refused(schedules: Any, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        compiled(schedules=schedules)


@pytest.mark.parametrize("without", [3, [3], None, [None]])
def test_passes_are_left_out_by_name(without: Any) -> None:
    with pytest.raises(InputError, match="without must name passes"):
        compiled(without=without)
