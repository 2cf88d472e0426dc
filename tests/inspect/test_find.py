"""What users may type after `graphc inspect`."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphc.errors import InputError, ShapeError
from graphc.inspect import find

SCRIPT = """
import numpy as np
import graphc as gc
from graphc import nn, optim

x = gc.input("x", ("N", 3))
step = gc.compile([x], [x * 2.0], dims={"N": 4}, name="doubling")
number = 7
model = nn.Sequential(nn.Linear(3, 2))
model.compile(loss="mse", optimizer=optim.SGD(lr=0.1))
model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
if __name__ == "__main__":
    raise SystemExit("inspected scripts are not the main program")
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def test_workloads() -> None:
    assert find.program("mlp_small").name == "mlp_small"


def test_program_and_model_of_a_script(script: Path) -> None:
    assert find.program(f"{script}:step").name == "doubling"
    assert "v0_weight" in find.program(f"{script}:model").plan.written


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("alexnet", "mlp, mlp_small, .*, or FILE.py:NAME"),
        ("script.py", "FILE.py:NAME"),
        ("nowhere/script.py:step", "no script nowhere/script.py"),
    ],
)
def test_bad_names(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find.program(name)


def test_bad_attributes(script: Path) -> None:
    with pytest.raises(InputError, match="its programs and models: step, model"):
        find.program(f"{script}:nothing")
    with pytest.raises(InputError, match="is of type int"):
        find.program(f"{script}:number")


def test_failing_scripts(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("1 / 0\n")
    with pytest.raises(InputError, match="ZeroDivisionError"):
        find.program(f"{path}:step")
    path.write_text("import graphc as gc\ngc.input('x', (2, 3)) @ gc.input('y', (4, 5))\n")
    with pytest.raises(ShapeError):
        find.program(f"{path}:step")
