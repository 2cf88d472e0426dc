"""Steps against the interpreter: right ones pass, wrong ones are named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import graphc as gc
from graphc.errors import CompileError
from graphc.inspect.oracle import check_step, deviations
from graphc.inspect.record import StepRecord, record_step
from graphc.program import Program

ROWS = np.linspace(-1, 1, 15, dtype=np.float32).reshape(5, 3)


@pytest.fixture
def step() -> tuple[Program, StepRecord]:
    x, w, b = gc.input("x", ("N", 3)), gc.param("w", (3, 2)), gc.param("b", (2,))
    loss = gc.mean(gc.tanh(x @ w + b))
    program = gc.compile([x], [loss], {w: w - 0.5 * gc.grad(loss, w), b: b + 1})
    record, seconds = record_step(program, [ROWS])
    assert seconds > 0
    return program, record


def test_what_is_recorded(step: tuple[Program, StepRecord]) -> None:
    program, record = step
    assert record.inputs["x"] is ROWS and len(record.results) == 1
    assert record.before.keys() == record.after.keys() == {"w", "b"}
    assert np.array_equal(record.after["b"], record.before["b"] + 1)
    assert not np.array_equal(record.after["w"], record.before["w"])


def test_right_step(step: tuple[Program, StepRecord]) -> None:
    program, record = step
    found = deviations(program, record)
    assert found.keys() == {"result 0", "w", "b"}
    assert check_step(program, record) == max(found.values()) < 1e-5


def test_wrong_update_is_named(step: tuple[Program, StepRecord]) -> None:
    program, record = step
    wrong = replace(record, after={**record.after, "w": record.after["w"] * np.float32(1.01)})
    with pytest.raises(CompileError, match="computes w wrongly"):
        check_step(program, wrong)
    assert check_step(program, wrong, tolerance=0.1) > 1e-3


@pytest.mark.parametrize("value", [np.nan, 3.0])
def test_wrong_result_is_named(step: tuple[Program, StepRecord], value: float) -> None:
    program, record = step
    with pytest.raises(CompileError, match="result 0"):
        check_step(program, replace(record, results=[np.float32(value)]))


def test_random_numbers_are_those_of_the_step() -> None:
    x = gc.input("x", (4,))
    program = gc.compile([x], [x * gc.random.uniform((4,))], seed=3)
    program(np.ones(4))
    record, _ = record_step(program, [np.ones(4)])
    assert record.random_state.tolist() == [3, 1] and program.random_state.tolist() == [3, 2]
    assert check_step(program, record) < 1e-6
    with pytest.raises(CompileError, match="result 0"):
        check_step(program, replace(record, random_state=np.array([3, 0])))
