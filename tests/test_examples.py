"""The examples run and print what they promise."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="example")


def test_every_example_has_a_test() -> None:
    tested = {name.removeprefix("test_") for name in globals()}
    assert {path.stem for path in EXAMPLES.glob("*.py")} <= tested


def test_linear_regression(capsys: pytest.CaptureFixture[str]) -> None:
    weights, bias = load("linear_regression")["main"]()
    np.testing.assert_allclose(weights, [2, -3], atol=0.05)
    assert abs(bias - 0.5) < 0.05
    assert "mean squared error" in capsys.readouterr().out


def test_xor(capsys: pytest.CaptureFixture[str]) -> None:
    probabilities = load("xor")["main"]()
    np.testing.assert_allclose(probabilities, [0, 1, 1, 0], atol=0.1)
    assert "1 xor 1" in capsys.readouterr().out


def test_mlp_mnist(capsys: pytest.CaptureFixture[str]) -> None:
    assert load("mlp_mnist")["main"](["--epochs", "1", "--hidden", "32"]) > 0.85
    printed = capsys.readouterr().out
    assert "first mistakes" in printed and "kernels" in printed
