"""Circuits: the numbers of two worked examples of back-propagation, what is not computed, and what is refused."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sympy

import graphc as gc
from graphc.errors import InputError, MissingExtraError
from graphc.inspect.circuit import Circuit
from graphc.inspect.circuit_model import DONE, NO_GRADIENT, NOT_COMPUTED, PARTIAL, number_text
from graphc.ir.builder import Builder
from graphc.ir.op import OPS
from graphc.ir.types import as_dtype

SVG = "{http://www.w3.org/2000/svg}"


def product_of_sum() -> Circuit:
    x, y, z = (gc.input(name, ()) for name in "xyz")
    return gc.circuit((x + y) * z, at={x: -2, y: 5, z: -4})


def neuron(compact: bool = False) -> Circuit:
    w = [gc.input(f"w{k}", ()) for k in range(3)]
    x = [gc.input(f"x{k}", ()) for k in range(2)]
    s = w[0] * x[0] + w[1] * x[1] + w[2]
    f = gc.sigmoid(s) if compact else 1 / (1 + gc.exp(-s))
    return gc.circuit(f, at=dict(zip([*w, *x], [2, -3, -3, -1, -2], strict=True)))


def rounded(arrays: dict[str, Any], *names: str) -> tuple[str, ...]:
    return tuple(number_text(arrays[name]) for name in names)


# The worked examples


def test_product_of_a_sum() -> None:
    circuit = product_of_sum()
    assert rounded(circuit.values, "q", "f") == ("3", "-12")
    assert rounded(circuit.gradients, "x", "y", "z") == ("-4", "-4", "3")
    assert rounded(circuit.gradients, "q", "f") == ("-4", "1")
    assert circuit.text() == (
        "wire           value   gradient of f   local derivative\n"
        "f = q · z        -12               1\n"
        "├─ q = x + y       3              -4   ∂f/∂q = z = -4\n"
        "│  ├─ x           -2              -4   ∂q/∂x = 1\n"
        "│  └─ y            5              -4   ∂q/∂y = 1\n"
        "└─ z              -4               3   ∂f/∂z = q = 3"
    )


@pytest.mark.parametrize("compact", [False, True])
def test_sigmoid_neuron(compact: bool) -> None:
    circuit = neuron(compact)
    assert rounded(circuit.values, "f") == ("0.731",)
    assert rounded(circuit.gradients, "w0", "w1", "w2") == ("-0.197", "-0.393", "0.197")
    assert rounded(circuit.gradients, "x0", "x1") == ("0.393", "-0.590")


def test_local_derivatives_of_the_neuron() -> None:
    text = neuron().text()
    for rule in ("∂q/∂w0 = x0 = -1", "∂a/∂v = a = 0.368", "∂f/∂b = -f / b = -0.534", "∂b/∂a = 1", "∂v/∂u = -1"):
        assert rule in text
    assert "∂f/∂u = f · (1 - f) = 0.197" in neuron(compact=True).text()


def test_plain_characters() -> None:
    text = product_of_sum().text(ascii=True)
    assert text.isascii() and "`- z" in text and "df/dq = z = -4" in text


# Before and during backward


def test_before_backward_nothing_is_zero() -> None:
    forward = product_of_sum().forward()
    assert all(gradient is None for gradient in forward.gradients.values())
    assert forward.text().count(NOT_COMPUTED) == 5 and "-12" in forward.text()


def test_without_values_only_symbols() -> None:
    x, y = gc.input("x", ()), gc.input("y", ())
    circuit = gc.circuit(x * gc.tanh(y))
    assert all(value is None for value in circuit.values.values())
    assert "∂q/∂y = 1 - q²" in circuit.text() and "∂f/∂q = x\n" in circuit.text()
    assert len(circuit.frames()) == 1


def test_frames_go_from_the_result_to_the_inputs() -> None:
    frames = product_of_sum().frames()
    known = [{name for name, g in frame.gradients.items() if g is not None} for frame in frames]
    assert known == [set(), {"f"}, {"f", "q", "z"}, {"f", "q", "x", "y", "z"}]
    assert "q receives 1 · (-4) = -4; z receives 1 · 3 = 3" in frames[2].text()
    assert [frame.sketch.active for frame in frames] == [None, None, 1, 0]


def test_a_wire_with_two_readers_adds_up() -> None:
    x, y = gc.input("x", ()), gc.input("y", ())
    frames = gc.circuit(x * y + x, at={x: 2, y: 3}).frames()
    shares = [(wire.status, number_text(wire.gradient)) for frame in frames for wire in frame.sketch.wires
              if wire.name == "x"]  # fmt: skip
    assert shares == [(NOT_COMPUTED, NOT_COMPUTED)] * 2 + [(PARTIAL, "1"), (DONE, "4")]
    assert "adds 3" in frames[-1].text() and "1 + …" in frames[2].text()


def test_the_same_operand_twice() -> None:
    x = gc.input("x", ())
    circuit = gc.circuit(x * x, at={x: 3})
    assert rounded(circuit.gradients, "x") == ("6",)
    assert circuit.text().count("∂f/∂x = x = 3; adds 3") == 2


def test_a_result_that_is_read_too() -> None:
    x = gc.input("x", ())
    y = 2 * x
    circuit = gc.circuit([y * x, y], at={x: 5}, names={y: "y"})
    assert rounded(circuit.gradients, "y", "x") == ("6", "22")
    assert "the sum f + y" in circuit.text()
    assert rounded(circuit.frames()[1].gradients, "y") == ("1",)
    assert rounded(circuit.frames()[-1].gradients, "y", "x") == ("6", "22")


@pytest.mark.parametrize("make", [product_of_sum, neuron])
def test_shares_add_up_to_gradients(make: Any) -> None:
    sketch = make().sketch
    for index, wire in enumerate(sketch.wires):
        shares = [edge.share for _, edge in sketch.readers(index)]
        if shares:
            assert wire.gradient is not None
            np.testing.assert_allclose(sum(s for s in shares if s is not None), wire.gradient, rtol=1e-12)


# Tensors, and ops that are no elementwise functions


def dense_layer() -> tuple[gc.Input, gc.Symbol, gc.Symbol]:
    x, w = gc.input("x", ("N", 2)), gc.param("w", (2, 3))
    w.value = np.arange(6.0).reshape(2, 3)
    h = gc.tanh(x @ w)
    return x, h, gc.sum(h)


def test_rules_of_a_layer() -> None:
    x, _, loss = dense_layer()
    text = gc.circuit(loss, at={x: np.ones((1, 2))}).text()
    assert "grad w = xᵀ @ grad q" in text and "grad x = grad q @ wᵀ" in text and "w  (parameter)" in text
    assert "Jacobian [1,3,2,3] 0 … 1" in text


def test_gradients_of_tensors() -> None:
    x, _, loss = dense_layer()
    (w,) = [v for v in (gc.grad(loss, x),)]
    circuit = gc.circuit(loss, at={x: [[0.1, -0.2]]})
    (expected,) = gc.compile([x], [w])(np.array([[0.1, -0.2]]))
    found = circuit.gradients["x"]
    assert found is not None
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_jacobian_of_a_reduction() -> None:
    x = gc.input("x", (3,))
    circuit = gc.circuit(gc.sum(x * x), at={x: [1, 2, 3]})
    assert "Jacobian [1, 1, 1]" in circuit.text()
    assert rounded(circuit.gradients, "x") == ("[2, 4, 6]",)


def test_several_elements_are_summed() -> None:
    x = gc.input("x", (2,))
    circuit = gc.circuit(gc.exp(x), at={x: [0, 0]})
    assert "gradient of the sum of all elements of f" in circuit.text()
    assert rounded(circuit.gradients, "x") == ("[1, 1]",)


def test_many_elements_are_a_range() -> None:
    assert number_text(np.linspace(0, 1, 12).reshape(3, 4)) == "[3,4] 0 … 1"
    assert number_text(np.ones(7)) == "[7] all 1"
    assert number_text(np.array([1e-7, 2.5e8, np.inf, np.nan])) == "[1e-07, 250000000, inf, nan]"
    assert number_text(np.array([True, False])) == "[true, false]"
    assert number_text(np.zeros((0, 3))) == "[]"


def test_nothing_flows_through_integers_and_stop_gradient() -> None:
    x, t = gc.input("x", (2, 3)), gc.input("t", (2,), dtype="int32")
    y = gc.stop_gradient(gc.exp(x))
    circuit = gc.circuit(gc.mean(gc.cross_entropy(x, t) * gc.sum(y)), at={x: np.zeros((2, 3)), t: [0, 2]})
    status = {wire.name: wire.status for wire in circuit.sketch.wires}
    assert status["t"] == NO_GRADIENT and status["x"] == DONE
    held = next(wire for wire in circuit.sketch.wires if wire.formula == "exp(x)")
    assert held.status == NO_GRADIENT


def test_gradients_of_gradients_are_drawn() -> None:
    x = gc.input("x", ())
    circuit = gc.circuit(gc.grad(x * x * x, x), at={x: 2})
    assert rounded(circuit.values, "f") == ("12",) and rounded(circuit.gradients, "x") == ("12",)


def test_functions_of_a_users_own_have_their_name() -> None:
    x = gc.input("x", ())
    swish = gc.scalar_function("swish", lambda z: z / (1 + sympy.exp(-z)))
    sketch = gc.circuit(swish(x) + gc.leaky_relu(x), at={x: 1}).sketch
    assert [gate.glyph for gate in sketch.gates] == ["swish", "leaky_relu", "+"]
    assert sketch.wires[1].formula == "swish(x)" and sketch.wires[2].formula.startswith("leaky_relu(x")
    expected = 1 / (1 + np.exp(-1)) * (1 + 1 - 1 / (1 + np.exp(-1))) + 1
    assert sketch.wires[0].gradient is not None
    np.testing.assert_allclose(sketch.wires[0].gradient, expected, rtol=1e-9)


@pytest.mark.parametrize("name", [name for name, op in sorted(OPS.items()) if op.samples])
def test_every_op_can_be_drawn(name: str) -> None:
    samples = OPS[name].samples
    assert samples is not None
    sample = samples()[0]
    inputs = [gc.input(f"a{k}", np.shape(array), str(as_dtype(np.asarray(array).dtype)))
              for k, array in enumerate(sample.inputs)]  # fmt: skip
    found = Builder().apply(OPS[name], [i.ir for i in inputs], dict(sample.attributes))
    outputs = [gc.Symbol(value) for value in (found if isinstance(found, tuple) else (found,))]
    circuit = gc.circuit(outputs, at=dict(zip(inputs, sample.inputs, strict=True)))
    assert [gate.op for gate in circuit.sketch.gates] == ([name] if name != "constant" else [])
    assert gc.circuit(outputs).text() and circuit.frames()
    for index, wire in enumerate(circuit.sketch.wires):
        shares = [edge.share for _, edge in circuit.sketch.readers(index) if edge.share is not None]
        if shares and wire.gradient is not None and index not in circuit.sketch.outputs:
            np.testing.assert_allclose(np.sum(shares, axis=0), wire.gradient, rtol=1e-12)


# What is drawn


def test_wrt_follows_some_gradients_only() -> None:
    x, y = gc.input("x", ()), gc.input("y", ())
    q = x * y
    circuit = gc.circuit(q * y, at={x: 2, y: 3}, wrt=x)
    assert rounded(circuit.gradients, "x", "q") == ("9", "3") and circuit.gradients["y"] is None
    values = gc.circuit(q * y, at={x: 2, y: 3}, wrt=[])
    assert all(gradient is None for gradient in values.gradients.values()) and NOT_COMPUTED in values.text()


def test_cut_draws_an_inner_symbol_as_an_input() -> None:
    x, h, loss = dense_layer()
    circuit = gc.circuit(loss, at={x: np.zeros((1, 2))}, cut=[h], names={h: "h"})
    assert [gate.op for gate in circuit.sketch.gates] == ["sum"]
    assert "h  (cut)" in circuit.text() and rounded(circuit.gradients, "h") == ("[[1, 1, 1]]",)


def test_names_of_users_and_letters_that_are_free() -> None:
    q, f = gc.input("q", ()), gc.input("f", ())
    s = q + f
    circuit = gc.circuit(gc.exp(s) * q, names={s: "total"}, at={q: 0, f: 0})
    assert set(circuit.values) == {"q", "f", "total", "r", "g"}


def test_constants_stand_in_the_gates() -> None:
    x = gc.input("x", ())
    sketch = gc.circuit(1 / (0.1 + x), at={x: 1}).sketch
    assert [gate.glyph for gate in sketch.gates] == ["+ 0.1", "1 ÷ ·"]
    assert [wire.formula for wire in sketch.wires] == ["", "0.1 + x", "1 / q"]


def test_arrays_are_leaves() -> None:
    x = gc.input("x", (2,))
    circuit = gc.circuit(gc.sum(x * np.array([1, 2], np.float32)), at={x: [3, 4]})
    assert "c1  (constant)" in circuit.text() and rounded(circuit.values, "c1", "f") == ("[1, 2]", "11")


# Pictures


@pytest.fixture
def drawable() -> None:
    pytest.importorskip("pygraphviz")


def texts(svg: str) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


@pytest.mark.usefixtures("drawable")
def test_pictures_have_the_numbers() -> None:
    shown = texts(product_of_sum().svg())
    assert {"q = 3", "f = −12", "∂f/∂q = z = −4", "∂f/∂z = q = 3", "×", "+", "x", "y", "z"} <= set(shown)
    assert shown.count("−4") == 4  # z, and the gradients of q, x and y
    neuron_shown = texts(neuron().svg())
    assert {"f = 0.731", "−0.197", "−0.393", "0.197", "0.393", "−0.590", "exp", "+ 1", "1 ÷ ·"} <= set(neuron_shown)


@pytest.mark.usefixtures("drawable")
def test_pictures_are_the_same_every_time(tmp_path: Path) -> None:
    path = neuron().save(tmp_path / "neuron.svg")
    assert path.read_text(encoding="utf-8") == neuron().svg() == neuron()._repr_svg_()


@pytest.mark.usefixtures("drawable")
def test_frames_are_laid_out_alike() -> None:
    sizes = {ElementTree.fromstring(frame.svg()).get("width") for frame in product_of_sum().frames()}
    assert len(sizes) == 1
    first, *_, last = product_of_sum().frames()
    assert texts(first.svg()).count(NOT_COMPUTED) == 5 and NOT_COMPUTED not in texts(last.svg())


@pytest.mark.usefixtures("drawable")
def test_every_gate_and_wire_is_drawn() -> None:
    x, y = gc.input("x", (2, 3)), gc.input("y", (2,), dtype="int32")
    loss = gc.mean(gc.cross_entropy(gc.where(x > 0, x * x, gc.exp(x)), y))
    circuit = gc.circuit(loss, at={x: np.ones((2, 3)), y: [0, 1]})
    root = ElementTree.fromstring(circuit.svg())
    edges = sum(len(gate.inputs) for gate in circuit.sketch.gates)
    assert sum(str(p.get("id", "")).startswith("edge-") for p in root.iter(f"{SVG}path")) == edges
    assert sum(r.get("class") == "gate" for r in root.iter(f"{SVG}rect")) == len(circuit.sketch.gates)


@pytest.mark.usefixtures("drawable")
def test_an_input_alone_and_outputs_alone() -> None:
    x = gc.input("x", ())
    assert "x" in texts(gc.circuit(x, at={x: 1}).svg())
    assert gc.circuit(x, at={x: 1}).gradients["x"] == 1


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pygraphviz", None)
    circuit = product_of_sum()
    with pytest.raises(MissingExtraError, match=r'pip install "graphc\[draw\]"'):
        circuit.svg()
    assert circuit._repr_svg_() is None and repr(circuit) == circuit.text()
    assert circuit.save(tmp_path / "c.txt").read_text(encoding="utf-8") == circuit.text() + "\n"


# Refusals


def test_huge_circuits_say_how_to_narrow() -> None:
    x = gc.input("x", ())
    y = x
    for _ in range(100):
        y = gc.tanh(y)
    with pytest.raises(InputError, match=r"100 gates, more than limit=60; most are from test_circuit.py.*cut=\[h"):
        gc.circuit(y, at={x: 1})
    assert len(gc.circuit(y, at={x: 1}, limit=100).sketch.gates) == 100


def test_refusals() -> None:
    x, y, n = gc.input("x", (2,)), gc.input("y", (2,)), gc.input("n", (), dtype="int32")
    z = gc.sum(x * y)
    for arguments, message in [
        ({"at": {x: [1, 2]}}, "no value for y"),
        ({"at": {x: [1, 2], y: [1, 2], n: 1}}, "no input or parameter of the expression; those are: x, y"),
        ({"at": {x: 1, y: [1, 2]}}, r"x is f32\[2\], `at` gives it an array of shape \[\]"),
        ({"at": {x: [1, 2, 3], y: [1, 2]}}, r"got shape \[3\]"),
        ({"names": {x: "a", y: "a"}}, "two wires are called 'a'"),
        ({"wrt": [3]}, "expected symbols, got int"),
    ]:
        with pytest.raises(InputError, match=message):
            gc.circuit(z, **arguments)
    with pytest.raises(InputError, match="nothing to draw"):
        gc.circuit([])
    with pytest.raises(InputError, match=r"end in .svg or .txt"):
        gc.circuit(z).save("circuit.png")
    with pytest.raises(InputError, match="no floating wire"):
        gc.circuit(z, at={x: [1, 2], y: [1, 2]}, wrt=[x * 2])


def test_ops_without_a_gradient_let_nothing_through() -> None:
    x = gc.input("x", (2,))
    y = gc.sum(x * gc.astype(gc.argmax(x, axis=0), "float32"))
    circuit = gc.circuit(y, at={x: [1, 2]})
    assert rounded(circuit.gradients, "x") == ("[1, 1]",)
    status = {wire.formula.partition("(")[0]: wire.status for wire in circuit.sketch.wires}
    assert status["argmax"] == NO_GRADIENT


def test_random_numbers_are_constants() -> None:
    x = gc.input("x", ())
    circuit = gc.circuit(x * gc.random.uniform(()), at={x: 2})
    drawn = next(wire for wire in circuit.sketch.wires if "uniform" in wire.formula)
    assert rounded(circuit.gradients, "x") == (number_text(drawn.value),)


def test_gradients_of_a_users_own() -> None:
    @gc.custom_vjp
    def clipped(x: gc.Symbol) -> gc.Symbol:
        return gc.exp(x)

    @clipped.backward
    def _(cotangent: gc.Symbol, output: gc.Symbol, x: gc.Symbol) -> gc.Symbol:
        return 7 * cotangent

    x = gc.input("x", ())
    circuit = gc.circuit(clipped(x) * 2, at={x: 0})
    assert rounded(circuit.values, "f") == ("2",) and rounded(circuit.gradients, "x") == ("14",)


def test_branches_and_loops_are_gates() -> None:
    x, v = gc.input("x", ()), gc.input("v", (3,))
    circuit = gc.circuit(gc.cond(x > 0, lambda: x * x, lambda: -x), at={x: 2})
    assert rounded(circuit.values, "f") == ("4",) and rounded(circuit.gradients, "x") == ("4",)
    assert "rule of cond(grad f), Jacobian 4; adds 4" in str(circuit)
    last, outputs = gc.scan(lambda h, a: (h * a + x, h), v, 0.0)
    circuit = gc.circuit(last + gc.sum(outputs), at={x: 2, v: [1, 2, 3]})
    assert rounded(circuit.values, "f") == ("28",) and rounded(circuit.gradients, "x") == ("14",)
    assert "rule of scan(grad q, grad r)" in str(circuit)
