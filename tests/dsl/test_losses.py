from __future__ import annotations

import warnings

import numpy as np
import pytest

import graphc as gc
from graphc.errors import AttributeValueError, DTypeError, NumericalWarning, ShapeError

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(5, 3))
LABELS = np.array([0, 2, 1, 1, 0])


def rows(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return -np.take_along_axis(log_p, labels[:, None], 1)[:, 0]


@pytest.mark.parametrize(("reduction", "reduce"), [("mean", np.mean), ("sum", np.sum), ("none", lambda a: a)])
def test_cross_entropy(reduction, reduce, compute) -> None:
    x, t = gc.input("x", ("N", 3), "float64"), gc.input("t", ("N",), "uint8")
    (found,) = compute([gc.cross_entropy(x, t, reduction)], {x: LOGITS, t: LABELS.astype(np.uint8)})
    np.testing.assert_allclose(found, reduce(rows(LOGITS, LABELS)))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_losses_equal_torch(reduction, compute) -> None:
    torch = pytest.importorskip("torch")
    from torch.nn import functional

    images, labels = RNG.normal(size=(2, 3, 4, 5)), RNG.integers(0, 3, (2, 4, 5))
    p = RNG.dirichlet(np.ones(3), 5)
    u, v = RNG.normal(size=(5, 3)), RNG.uniform(size=(5, 3))
    cases = [
        (gc.cross_entropy, functional.cross_entropy, images, labels),
        (gc.cross_entropy, functional.cross_entropy, LOGITS, p),
        (gc.mse_loss, functional.mse_loss, u, v),
        (gc.binary_cross_entropy_with_logits, functional.binary_cross_entropy_with_logits, 30 * u, v),
    ]
    for mine, theirs, a, b in cases:
        x, t = gc.input("x", a.shape, "float64"), gc.input("t", b.shape, b.dtype)
        (found,) = compute([mine(x, t, reduction=reduction)], {x: a, t: b})
        expected = theirs(torch.tensor(a), torch.tensor(b), reduction=reduction).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_softmax_into_cross_entropy_is_warned_about() -> None:
    x, t = gc.input("x", ("N", 3)), gc.input("t", ("N",), "int32")
    e = gc.exp(x - gc.max(x, 1, keepdims=True))
    written_twice = gc.exp(2 * x) / gc.sum(gc.exp(2 * x), 1, keepdims=True)
    shifted_twice = gc.exp(x - gc.max(x, 1, keepdims=True)) / e.sum(1, keepdims=True)
    others = (gc.softmax(x).reshape(-1, 3), gc.softmax(x, 0).T.T, written_twice, shifted_twice)
    for p in (gc.softmax(x, 1), e / gc.sum(e, 1, keepdims=True), *others):
        with pytest.warns(NumericalWarning, match="test_losses.py"):
            gc.cross_entropy(p, t)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        different = gc.exp(2 * x) / gc.sum(gc.exp(3 * x), 1, keepdims=True)
        for logits in (x, gc.log_softmax(x), gc.exp(x), x / gc.sum(x, 1, keepdims=True), gc.softmax(x) * 10, different):
            gc.cross_entropy(logits, t)


def test_bad_arguments() -> None:
    x, t = gc.input("x", ("N", 3)), gc.input("t", ("N",), "int32")
    cases = [
        (lambda: gc.cross_entropy(x[:, 0:0] if False else x.sum(1), t), ShapeError, "class axis 1"),
        (lambda: gc.cross_entropy(x, t[None]), ShapeError, "without the class axis"),
        (lambda: gc.cross_entropy(x, x > 0), DTypeError, "integers"),
        (lambda: gc.cross_entropy(x, gc.input("p", ("N", 4))), ShapeError, "same shape"),
        (lambda: gc.cross_entropy(x, t, "average"), AttributeValueError, "'mean', 'sum' or 'none'"),
        (lambda: gc.mse_loss(x, x.sum(1)), ShapeError, "same shape"),
        (lambda: gc.binary_cross_entropy_with_logits(x, x[:, None]), ShapeError, "same shape"),
    ]
    for use, error, words in cases:
        with pytest.raises(error, match=words) as caught:
            use()
        assert error is AttributeValueError or "test_losses.py" in str(caught.value)


def test_float_labels_are_told_to_be_integers() -> None:
    with pytest.raises(DTypeError, match="integer dtype"):
        gc.cross_entropy(gc.input("z", ("N", 3)), gc.input("t", ("N",)))
