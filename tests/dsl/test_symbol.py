from __future__ import annotations

import math

import numpy as np
import pytest

import graphc as gc
from graphc.errors import ShapeError, SymbolError
from graphc.ir.dims import symbol

X = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
Y = np.linspace(0.5, 1.5, 12, dtype=np.float32).reshape(3, 4)


@pytest.fixture
def x():
    return gc.input("x", ("N", 4))


@pytest.fixture
def y():
    return gc.input("y", ("N", 4))


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: x + y, lambda x, y: x - y, lambda x, y: x * y, lambda x, y: x / y, lambda x, y: -x,
        lambda x, y: +x,
        lambda x, y: abs(x), lambda x, y: 1 + x, lambda x, y: 1 - x, lambda x, y: 2 * x, lambda x, y: 2 / y,
        lambda x, y: x**2, lambda x, y: x**3, lambda x, y: x**7, lambda x, y: x**0, lambda x, y: y**0.5,
        lambda x, y: y**-1, lambda x, y: y**-1.5, lambda x, y: 2**x, lambda x, y: x @ y.T, lambda x, y: x < y,
        lambda x, y: x <= y, lambda x, y: x > y, lambda x, y: x >= y, lambda x, y: ~(x > y),
        lambda x, y: (x > 0) & (y > 1), lambda x, y: (x > 0) | (y > 1), lambda x, y: x[:, None, :] + y[None],
        lambda x, y: x[...], lambda x, y: x.reshape(-1, 2), lambda x, y: x.reshape((2, -1)), lambda x, y: x.T,
        lambda x, y: x.transpose(), lambda x, y: x[None].transpose(1, 0, 2), lambda x, y: x.astype("int32"),
        lambda x, y: x.sum(), lambda x, y: x.sum(axis=0), lambda x, y: x.sum(-1, keepdims=True),
        lambda x, y: x.mean(axis=(0, 1)), lambda x, y: x.max(axis=1), lambda x, y: x.min(), lambda x, y: x.argmax(1),
        lambda x, y: x * np.arange(4.0), lambda x, y: np.arange(4) + x, lambda x, y: np.float64(0.5) * x,
        lambda x, y: X[:1] * y, lambda x, y: X @ y.T, lambda x, y: x @ np.ones(4), lambda x, y: (x > 0).mean(axis=1),
    ],
)  # fmt: skip
def test_operators_and_methods_agree_with_numpy(function, x, y, compute) -> None:
    expected = np.asarray(function(X, Y))
    result = function(x, y)
    (found,) = compute([result], {x: X, y: Y})
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert found.dtype == result.dtype.numpy
    assert (found.dtype.kind == expected.dtype.kind) or expected.dtype.kind == "i"


@pytest.mark.parametrize(
    "function",
    [
        np.exp, np.tanh, np.sqrt, np.log, np.log1p, np.expm1, np.abs, np.sign, np.negative, np.square, np.positive,
        lambda y: np.maximum(y, 1), lambda y: np.minimum(1, y), lambda y: np.add(y, y), lambda y: np.subtract(1, y),
        lambda y: np.multiply(y, 2), lambda y: np.divide(y, 2), lambda y: np.power(y, 2), lambda y: np.power(2, y),
        lambda y: np.matmul(y, np.ones((4, 2), np.float32)), lambda y: np.equal(y, 0.5), lambda y: np.not_equal(y, 0.5),
        lambda y: np.less(y, 1), lambda y: np.logical_not(y > 1), lambda y: np.logical_and(y > 0.7, y < 1),
        np.sum, np.mean, np.max, np.amax, np.min, np.amin, np.argmax, np.transpose,
        lambda y: np.sum(y, axis=1, keepdims=True), lambda y: np.mean(y, 0), lambda y: np.reshape(y, (-1, 2)),
        lambda y: np.transpose(y, (1, 0)), lambda y: np.where(y > 1, y, 0), lambda y: np.dot(y, y.T),
        np.sin, np.cos, np.tan, np.arctan, np.sinh, np.cosh, np.floor, np.ceil, np.rint, np.round, np.square, np.isnan,
        np.isfinite, np.isinf, lambda y: np.clip(y, -0.5, 0.25), lambda y: np.mod(y, 0.7), lambda y: y % 0.7,
        lambda y: np.floor_divide(y, 0.3), lambda y: y // -0.3, lambda y: 1.5 % y, lambda y: 2.5 // y, lambda y: 2.5**y,
        lambda y: np.log2(abs(y)), lambda y: np.power(abs(y), 0.3), lambda y: abs(y) ** y, lambda y: np.reciprocal(y),
        lambda y: np.arcsin(np.tanh(y)), lambda y: np.arccos(np.tanh(y)), lambda y: np.heaviside(y, 0.5),
        lambda y: np.logical_xor(y > 0, y < 1), lambda y: (y > 0) ^ (y < 1), lambda y: (y > 0) & np.ones((1, 4), bool),
        lambda y: np.ones((1, 4), bool) | (y > 0), lambda y: round(y) if isinstance(y, gc.Symbol) else np.round(y),
        lambda y: math.floor(y) if isinstance(y, gc.Symbol) else np.floor(y), lambda y: np.round(y, 0),
    ],
)  # fmt: skip
def test_numpy_functions_work_on_symbols(function, y, compute) -> None:
    (found,) = compute([function(y)], {y: Y})
    np.testing.assert_allclose(found, function(Y), rtol=1e-5, atol=1e-6)


def test_comparison_by_array_on_the_left_is_elementwise(y, compute) -> None:
    (found,) = compute([np.full(4, 0.5) < y], {y: Y})
    np.testing.assert_array_equal(found, Y > 0.5)


@pytest.mark.parametrize(
    ("use", "advice"),
    [
        (bool, "gc.where"), (float, "compile it"), (int, "compile it"), (complex, "before a program runs"),
        (list, "gc.sum"), (list, "gc.scan"), (len, "x.shape"), (range, "x.shape"), (np.asarray, "W.value"),
        (lambda x: 1.0 in x, "gc.equal"),
        (lambda x: np.array([x, x]), "before a program"), (lambda x: [1, 2][x], "gc.gather"),
        (lambda x: x == 3, "gc.equal"), (lambda x: x != np.ones(4), "gc.equal"), (np.arctanh, "graphc has: absolute"),
        (np.median, "graphc has"), (np.add.reduce, "gc.sum"), (lambda x: np.add(x, 1, where=True), "np.add"),
        (lambda x: np.sum(x, dtype=np.float64), "'dtype'"), (lambda x: np.hstack([x, x]), "graphc has"),
        (lambda x: x[x > 0], "where(mask"), (lambda x: x[:, np.array([True] * 4)], "where(mask"),
        (lambda x: x * (x == gc.input("z", ("N", 4))), None),
    ],
)  # fmt: skip
def test_what_a_symbol_cannot_do_says_what_to_do_instead(use, advice, x) -> None:
    error = SymbolError if advice else gc.errors.DTypeError
    with pytest.raises(error) as caught:
        use(x)
    assert (advice or "gc.equal") in str(caught.value)
    assert "test_symbol.py" in str(caught.value) or advice is None or "np." in str(caught.value)


def test_equality_and_hash_are_identity_so_symbols_are_keys(x, y) -> None:
    assert x == x and x != y and x != None  # noqa: E711
    assert {x: 1, y: 2}[x] == 1
    assert x in [y, x]


def test_python_bool_from_a_mistaken_comparison_is_refused(x, y) -> None:
    with pytest.raises(SymbolError, match="gc.equal"):
        gc.mean(x == y)
    with pytest.raises(gc.errors.DTypeError, match="gc.equal"):
        x + (x == y)


def test_shapes_are_symbolic(x) -> None:
    n = symbol("N")
    assert x.shape == (n, 4) and x.ndim == 2 and x.size == n * 4 and x.dtype == gc.float32
    assert x.reshape(-1).shape == (n * 4,)
    assert x.reshape("N", 2, 2).shape == (n, 2, 2)
    assert (x[:, None] + x[None]).shape == (n, n, 4)


def test_repr_names_op_type_and_line(x) -> None:
    assert "input x: f32[N,4]" in repr(x)
    text = repr(x + 1)
    assert text.startswith("<add: f32[N,4]") and "test_symbol.py" in text


def test_bad_shapes_name_op_and_operands(x) -> None:
    z = gc.input("z", ("N", 5))
    for use, words in (
        (lambda: x + z, ["add(f32[N,4], f32[N,5])", "axis -1", "test_symbol.py"]),
        (lambda: x @ z, ["matmul(f32[N,4], f32[N,5])", "test_symbol.py"]),
        (lambda: x.reshape(-1, 3), ["reshape", "4*N"]),
        (lambda: x.reshape(-1, -1), ["-1"]),
        (lambda: x.sum(axis=2), ["sum", "axis 2"]),
        (lambda: x.sum(axis=(0, -2)), ["twice"]),
        (lambda: x.transpose(0, 0), ["permutation"]),
        (lambda: x[:, :, :], ["3 indices"]),
        (lambda: x @ 2.0, ["matmul"]),
    ):
        with pytest.raises(ShapeError) as caught:
            use()
        for word in words:
            assert word in str(caught.value)


def test_symbols_do_not_change_and_have_no_text_of_numbers(x) -> None:
    with pytest.raises(SymbolError, match="never changes; write y = gc.where"):
        x[0] = 1.0
    with pytest.raises(SymbolError, match="never changes"):
        del x[0]
    with pytest.raises(SymbolError, match=r"format\(x, '.3f'\).* gc.print"):
        f"{x:.3f}"
    assert f"{x}" == repr(x)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("item", "compile it as an output"),
        ("numpy", "compile it as an output"),
        ("backward", "gc.grad(loss, [W, b])"),
        ("grad", "gc.grad(loss, x)"),
        ("detach", "gc.stop_gradient(x)"),
        ("value", "only parameters and state"),
        ("t", "x.T"),
        ("dim", "x.ndim"),
        ("unsqueeze", "gc.expand_dims(x, axis)"),
        ("flatten", "x.ravel()"),
        ("float", "x.astype('float32')"),
        ("cuda", "gc.compile(..., target=...)"),
    ],
)
def test_attributes_of_other_libraries_tensors(name, advice, x) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(x, name)
    assert advice in str(caught.value) and f"x.{name}" in str(caught.value)
    assert not hasattr(x, name) and not hasattr(x, "unheard_of")


def test_conditions_name_what_to_write(x) -> None:
    for use in (lambda: 0 < x < 1, lambda: x and x, lambda: not x):
        with pytest.raises(SymbolError, match=r"gc.where.*gc.cond.*gc.while_loop.*\(a < x\) & \(x < b\)"):
            use()
