from __future__ import annotations

import inspect

import numpy as np
import pytest

import graphc as gc
from graphc import nn
from graphc.dsl.origin import Tracing, here, trace, tracing
from graphc.errors import GraphcError


def line() -> int:
    frame = inspect.currentframe()
    assert frame is not None and frame.f_back is not None
    return frame.f_back.f_lineno


def test_nodes_know_the_users_line() -> None:
    x, at = gc.input("x", (3, 3)), line()
    assert (x.ir.origin.file, x.ir.origin.line) == ("test_origin.py", at)
    for make in (
        lambda: x + 1,
        lambda: np.tanh(x),
        lambda: np.sum(x, axis=0),
        lambda: gc.softmax(x),
        lambda: x[:, None],
        lambda: gc.random.bernoulli(x),
        lambda: gc.cross_entropy(x, np.arange(3)),
        lambda: np.ones(3) * x,
    ):
        y = make()
        origin = y.ir.origin
        first = make.__code__.co_firstlineno
        assert origin.file == "test_origin.py" and origin.module == "" and origin.line == first


def test_gradients_have_the_line_of_grad() -> None:
    w = gc.param("w", (3,))
    loss = gc.sum(w * w)
    g, at = gc.grad(loss, w), line()
    assert g.ir.origin.line == at


def test_trace_changes_the_module_inside_the_block_only() -> None:
    with trace(module="encoder"):
        assert here().module == "encoder"
        with pytest.raises(ZeroDivisionError), trace(module="decoder"):
            raise ZeroDivisionError
        assert here().module == "encoder"
    assert tracing() == Tracing()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.at = line() + 1
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        hidden = self.fc(x)
        return hidden * 2  # the line of the product


def test_layers_have_the_line_of_construction_and_forward_its_own() -> None:
    net = Net()
    result = net(gc.input("x", ("N", 4)))
    product = result.ir.producer
    addition = product.inputs[0].producer
    assert product.op.name == "mul" and product.origin.module == ""
    assert inspect.getsource(Net).splitlines()[product.origin.line - Net.__init__.__code__.co_firstlineno + 1].endswith(
        "# the line of the product"
    )
    assert (addition.op.name, addition.origin.module, addition.origin.line) == ("add", "fc", net.at)


def test_errors_inside_layers_name_module_and_line() -> None:
    model, at = nn.Sequential(nn.Linear(4, 2)), line()
    with pytest.raises(GraphcError, match=rf"matmul\(f32\[N,5\], f32\[2,4\]\) in module 0(.|\n)*test_origin.py:{at}"):
        model(gc.input("x", ("N", 5)))
