"""Reports of compiled programs: complete, consistent with the program, and readable."""

from __future__ import annotations

import json
from typing import Any

import pytest

import graphc as gc
from graphc.errors import InputError
from graphc.inspect import report
from graphc.program import Program


@pytest.fixture(scope="module")
def program() -> Program:
    x, t = gc.input("x", ("N", 6)), gc.input("t", ("N",), "int32")
    w, b = gc.param("w", (6, 3)), gc.param("b", (3,))
    loss = gc.cross_entropy(x @ w + b, t)
    gw, gb = gc.grad(loss, [w, b])
    return gc.compile([x, t], [loss], {w: w - 0.1 * gw, b: b - 0.1 * gb}, dims={"N": 4}, name="regression")


@pytest.fixture(scope="module")
def overview(program: Program) -> dict[str, Any]:
    return report.overview(program)


def test_overview_is_plain_data(overview: dict[str, Any]) -> None:
    assert json.loads(json.dumps(overview)) == overview
    assert overview["program"] == "regression" and overview["extents"] == {"N": 4}


def test_stages_follow_each_other(program: Program, overview: dict[str, Any]) -> None:
    stages = overview["stages"]
    assert [s["name"] for s in stages][:4] == ["stability", "hoist", "algebra", "differentiate"]
    assert len({s["name"] for s in stages}) == len(stages) == len(program.stages)
    assert stages[0]["before"] == len(program.graph.nodes)
    assert all(a["after"] == b["before"] for a, b in zip(stages, stages[1:], strict=False))
    assert {stage["name"]: stage["rewrites"] for stage in stages}["differentiate"] == 1


def test_kernels_have_their_work(program: Program, overview: dict[str, Any]) -> None:
    kernels = {kernel["name"]: kernel for kernel in overview["kernels"]}
    assert list(kernels) == list(program.kernels)
    product = next(k for k in overview["kernels"] if k["name"].startswith("matmul"))
    assert product["flop"] == 4 * 3 * (2 * 6 + 1)  # multiply-adds and the bias
    assert product["bytes"] == 4 * (4 * 6 + 6 * 3 + 3 + 4 * 3)
    assert any(origin.startswith("matmul") and "test_report.py" in origin for origin in product["origins"])


def test_memory(program: Program, overview: dict[str, Any]) -> None:
    memory = overview["memory"]
    assert memory["bytes"]["variable"] == 4 * (6 * 3 + 3)
    assert memory["written_in_place"] == ["w", "b"] and memory["copied_after_the_step"] == []
    assert {b["name"] for b in memory["buffers"]} == {b.name for b in program.plan.buffers}
    assert {"name": "x", "type": "f32[N,6]", "region": "input"}.items() <= memory["buffers"][0].items()


def test_overview_text(overview: dict[str, Any]) -> None:
    text = report.overview_text(overview)
    assert text.startswith("program regression, N <= 4\n")
    for kernel in overview["kernels"]:
        assert any(line.startswith(kernel["name"]) and kernel["schedule"] in line for line in text.splitlines())
    assert "written in place: w, b" in text


def test_declared_graph(program: Program) -> None:
    found = report.stage_detail(program, "declared")
    assert "grad(" in found["graph"] and found["graph"].startswith("graph regression(")
    assert report.stage_text(found, diff=True) == "nothing changed"


def test_stage_with_diff(program: Program) -> None:
    found = report.stage_detail(program, "differentiate")
    assert "grad(" not in found["graph"]
    text = report.stage_text(found, diff=True)
    assert any(line.startswith("-") and "grad(" in line for line in text.splitlines())
    assert "reverse mode" in text and found["rewrites"][0]["why"] in text
    assert report.stage_text(found, diff=False) == found["graph"].rstrip()


def test_second_run_of_a_pass_has_a_name_of_its_own(program: Program) -> None:
    (second,) = [stage for stage in program.stages if stage.name == "canonicalise-2"]
    assert report.stage_detail(program, "canonicalise-2")["graph"] == second.after_text


def test_kernel_detail(program: Program) -> None:
    name = next(iter(program.kernels))
    text = report.kernel_text(report.kernel_detail(program, name))
    kernel = program.kernels[name]
    assert text == kernel.source.rstrip() and kernel.schedule in text
    assert " ".join(text.split()).count(" ".join(kernel.form.split())) == 1


def test_unknown_names_list_the_known_ones(program: Program) -> None:
    with pytest.raises(InputError, match="declared, stability, .*differentiate, bind"):
        report.stage_detail(program, "frobnicate")
    with pytest.raises(InputError, match=next(iter(program.kernels))):
        report.kernel_detail(program, "frobnicate")
