"""The gradient checker itself: it passes right gradients, and notices wrong ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import graphc.ops  # noqa: F401  (fills the registry)
from graphc.autodiff.check import check_gradients
from graphc.errors import GradientError
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import OPS, Op
from graphc.ir.types import i32, tensor

X = Value(tensor("f32", ("N", 2)), name="x")
AT = {"x": np.array([[0.3, -1.2], [2.0, 0.7], [0.1, 0.9]])}


def applied(op: Op) -> Graph:
    return Graph("g", (X,), (Node(op, (X,), {}, (X.type,)).output,))


def test_right_gradient_passes() -> None:
    assert check_gradients(applied(OPS["tanh"]), AT, ["x"]) < 1e-8
    assert check_gradients(applied(OPS["tanh"]), AT, ["x"], order=2) < 1e-8


def test_wrong_gradient_names_the_worst_element() -> None:
    wrong = replace(OPS["tanh"], gradient=lambda node, cotangents, b: [b.mul(cotangents[0], node.output)])
    with pytest.raises(GradientError, match=r"gradient by x\[\d, \d\]: symbolic .* central difference"):
        check_gradients(applied(wrong), AT, ["x"])


def test_wrong_second_derivative_is_noticed() -> None:
    """The first derivative is right in value, but hides its dependence on x."""

    def flat(node: Node, cotangents: object, b: Builder) -> list[Value]:
        assert isinstance(cotangents, list)
        return [b.mul(cotangents[0], b.stop_gradient(node.output))]

    wrong = replace(OPS["exp"], gradient=flat)
    check_gradients(applied(wrong), AT, ["x"])
    with pytest.raises(GradientError, match=r"gradient by x"):
        check_gradients(applied(wrong), AT, ["x"], order=2)


def test_nan_fails() -> None:
    with pytest.raises(GradientError, match="nan"):
        check_gradients(applied(OPS["log"]), AT, ["x"])


def test_graph_without_floats() -> None:
    whole = Graph("g", (X,), (Builder().cast(X, dtype=i32),))
    with pytest.raises(GradientError, match="g has no float output"):
        check_gradients(whole, AT, ["x"])
    with pytest.raises(GradientError, match="order=3"):
        check_gradients(applied(OPS["exp"]), AT, ["x"], order=3)
