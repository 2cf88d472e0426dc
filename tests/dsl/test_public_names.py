from __future__ import annotations

import ast
import importlib
import pathlib
import subprocess
import sys

import pytest

import graphc as gc


def test_every_public_name_exists() -> None:
    for name in gc.__all__:
        assert getattr(gc, name) is not None
    assert set(gc.__all__) <= set(dir(gc))
    assert gc.float32.numpy_name == "float32" and gc.bool_.name == "bool"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'tensor'"):
        gc.tensor  # noqa: B018
    assert not hasattr(gc.nn, "Transformer") and not hasattr(gc.optim, "LBFGS")


@pytest.mark.parametrize(
    ("module", "name", "hint"),
    [
        (gc, "conv2D", "did you mean conv2d"),
        (gc, "reduce_sum_of_all", "dir.graphc. lists what there is"),
        (gc, "cat", "gc.concatenate"),
        (gc, "Tensor", "gc.input"),
        (gc.nn, "Dense", "nn.Linear"),
        (gc.nn, "CrossEntropyLoss", "gc.cross_entropy"),
        (gc.nn, "Liner", "did you mean Linear"),
        (gc.nn, "relu", "did you mean ReLU"),
        (gc.nn, "Transformer", "a layer of your own is a class with forward"),
        (gc.optim, "ADAM", "did you mean Adam"),
        (gc.optim, "LBFGS", "there are .*SGD.*Adam.*subclasses of optim.Optimizer"),
    ],
)
def test_misspelt_names_come_with_a_hint(module, name: str, hint: str) -> None:
    with pytest.raises(AttributeError, match=f"no attribute '{name}'; .*{hint}"):
        getattr(module, name)


def test_what_type_checkers_see_is_what_there_is() -> None:
    tree = ast.parse(pathlib.Path(gc.__file__).read_text())
    (checked,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = set()
    for node in checked.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            everything = alias.name == "*"
            seen |= set(importlib.import_module(node.module).__all__) if everything else {alias.asname or alias.name}
    assert seen == set(gc.__all__)


def test_import_loads_next_to_nothing() -> None:
    code = (
        "import sys, graphc; assert 'numpy' not in sys.modules; "
        "graphc.input, graphc.grad, graphc.nn, graphc.optim, graphc.compile; "
        "print([m for m in ('numba', 'sympy', 'rich', 'graphc.autodiff', 'graphc.passes') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
