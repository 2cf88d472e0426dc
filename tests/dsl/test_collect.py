from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.dsl.collect import collect
from graphc.errors import InputError, StateError
from graphc.ir.text import parse, print_graph
from graphc.ir.verify import verify


def test_order_of_inputs_and_outputs(compute) -> None:
    x, unused = gc.input("x", ("N", 4)), gc.input("unused", ("N",))
    b, w, s = gc.param("b", (4,), init=1), gc.param("w", (4,), init=2), gc.state("s")
    y = x * w + b + gc.random.uniform(x.shape) * 0
    declared = collect([x, unused], [y], {s: 1.0, w: w + 1, b: b * np.float32(3)}, name="step")
    assert [v.name for v in declared.graph.inputs] == ["x", "unused", "w", "b", "s", "rng"]
    assert declared.inputs == (x, unused) and declared.variables == (w, b, s) and declared.updated == (s, w, b)
    assert declared.uses_rng and declared.results == 1 and declared.graph.name == "step"
    assert list(declared.named_variables.items()) == [("w", w), ("b", b), ("s", s)]
    verify(declared.graph)
    assert parse(print_graph(declared.graph)) == declared.graph
    found = compute([y], {x: np.ones((2, 4)), unused: np.ones(2)}, {s: 1.0, w: w + 1, b: b * np.float32(3)})
    assert [f.flat[0] for f in found] == [3, 1, 3, 3]


def test_streams_are_numbered_in_topological_order_and_are_distinct() -> None:
    x = gc.input("x", (3,))
    a, b = gc.random.bernoulli(x), gc.random.bernoulli(x)
    declared = collect([x], [b, a, b])
    streams = [n.attributes["stream"] for n in declared.graph.nodes if n.op.name == "uniform"]
    assert streams == [0, 1]
    assert collect([x], [b, a, b]).graph == declared.graph


def test_leaves_as_outputs_and_shared_variables() -> None:
    x, w = gc.input("x", (3,)), gc.param("w", (3,))
    declared = collect([x], [x, w])
    assert declared.graph.outputs == declared.graph.inputs
    other = collect([x], [x * w])
    assert other.variables[0] is declared.variables[0]


def test_names_of_modules_are_made_unique() -> None:
    x, a, b = gc.input("x", (3,)), gc.param("w", (3,)), gc.param("w", (3,))
    a.name_by_path("0.weight"), b.name_by_path("0.weight")
    assert list(collect([x], [x * a * b]).named_variables) == ["0.weight", "0.weight.1"]
    a.name_by_path("x")
    assert list(collect([x], [x * a]).named_variables) == ["x.1"]


X, T = gc.input("x", (3,)), gc.input("t", (3,))
W, OTHER_W, COUNT = gc.param("w", (3,)), gc.param("w", (3,)), gc.state("n", dtype="int32")


@pytest.mark.parametrize(
    ("inputs", "outputs", "updates", "error", "words"),
    [
        ([X], [X + T], {}, InputError, ["'t'", "test_collect.py", "[x]", "add it"]),
        ([X, X], [X], {}, InputError, ["twice"]),
        ([W], [X], {}, InputError, ["gc.input", "param w"]),
        (X, [X], {}, InputError, ["[x]"]),
        ([X], [1.0], {}, InputError, ["outputs must be symbols, got float"]),
        ([X], [X * W * OTHER_W], {}, InputError, ["two tensors are called 'w'"]),
        ([X], [X], {X: X}, StateError, ["variables", "input x"]),
        ([X], [X], {W: gc.sum(X)}, StateError, ["update of w", "f32[]", "f32[3]", "test_collect.py"]),
        ([X], [X], {W: W.astype("float64")}, StateError, ["f64[3]"]),
        ([X], [X], {W: np.zeros(4)}, StateError, ["w has shape [3]"]),
        ([X], [X], {COUNT: 0.5}, StateError, ["n is int32"]),
    ],
)
def test_errors(inputs, outputs, updates, error, words) -> None:
    with pytest.raises(error) as caught:
        collect(inputs, outputs, updates)
    for word in words:
        assert word in str(caught.value)


def test_a_program_takes_many_nodes_without_recursion() -> None:
    x = y = gc.input("x", (3,))
    for _ in range(3000):
        y = y + 1
    assert len(collect([x], [y]).graph.nodes) == 3000 * 3


def test_outputs_that_are_one_symbol_are_told_to_be_a_list() -> None:
    with pytest.raises(InputError, match=r"outputs must be a list: \[loss\]"):
        gc.compile([X], gc.sum(X))  # type: ignore[arg-type]
