"""Activation modules against PyTorch's of the same name: values and gradients, parameters, and what PyTorch has not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import nn
from graphc.errors import AttributeValueError, ShapeError

X = np.append(np.linspace(-4, 4, 19), [-1.0, 0.0, 1.0, 3.0, -3.0]).astype(np.float32).reshape(6, 4)
SAME = [
    ("ReLU", ()), ("Tanh", ()), ("Sigmoid", ()), ("Identity", ()), ("LeakyReLU", ()), ("LeakyReLU", (0.1,)),
    ("PReLU", ()), ("PReLU", (4, 0.1)), ("ELU", ()), ("ELU", (0.5,)), ("SELU", ()), ("Softplus", ()),
    ("Softplus", (2.0,)), ("Softsign", ()), ("GELU", ()), ("GELU", ("tanh",)), ("SiLU", ()), ("Hardtanh", ()),
    ("Hardtanh", (-0.5, 2.0)), ("Hardsigmoid", ()), ("Softmax", (-1,)), ("Softmax", (0,)), ("LogSoftmax", (1,)),
]  # fmt: skip


def run(module: nn.Module, x: np.ndarray, train: bool = False) -> list[np.ndarray]:
    """The output, the gradient of sum(output * weights) by the input, and by the module's parameters."""
    symbol = gc.input("x", x.shape)
    with nn.trace(module, train=train):
        y = module(symbol)
    weights = np.cos(np.arange(y.size)).reshape(y.shape).astype(np.float32)
    slopes = gc.grad(gc.sum(y * weights), [symbol, *module.parameters()])
    return gc.compile([symbol], [y, *slopes])(x)


@pytest.mark.parametrize(("name", "arguments"), SAME, ids=lambda v: str(v))
def test_parity_with_torch(name: str, arguments: tuple[Any, ...]) -> None:
    torch: Any = pytest.importorskip("torch", reason="parity with PyTorch needs torch")
    kwargs = {"approximate": arguments[0]} if name == "GELU" and arguments else None
    theirs = getattr(torch.nn, name)(**kwargs) if kwargs else getattr(torch.nn, name)(*arguments)
    mine = getattr(nn, name)(*arguments)
    x = torch.tensor(X, requires_grad=True)
    y = theirs(x)
    y.backward(torch.cos(torch.arange(y.numel()).double()).float().reshape(y.shape))
    expected = [y.detach(), x.grad, *(p.grad for p in theirs.parameters())]

    found = run(mine, X)

    assert list(mine.state_dict()) == list(theirs.state_dict())
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=2e-5, atol=2e-6)


def test_prelu_of_images_has_a_weight_for_each_channel() -> None:
    module = nn.PReLU(3)
    module.load_state_dict({"weight": np.array([0.1, 0.2, 0.3], np.float32)})
    y = module.predict(-np.ones((2, 3, 4, 5), np.float32))
    np.testing.assert_allclose(y[1, :, 2, 3], [-0.1, -0.2, -0.3], rtol=1e-6)
    with pytest.raises(ShapeError, match="axis 1 of .* must have size 3"):
        module(gc.input("x", ("N", 4)))


def test_prelu_learns_its_slope() -> None:
    module = nn.Sequential(nn.PReLU())
    module.compile(loss="mse", optimizer=gc.optim.SGD(lr=0.1))
    module.fit(X, np.where(X > 0, X, 0.7 * X), epochs=60, batch_size=6, verbose=0)
    np.testing.assert_allclose(module.state_dict()["0.weight"], [0.7], atol=1e-3)


@pytest.mark.parametrize(
    ("module", "function"),
    [
        (nn.Heaviside(), lambda a: np.heaviside(a, 1.0)),
        (nn.Heaviside(at_zero=0.5), lambda a: np.heaviside(a, 0.5)),
        (nn.Sign(), np.sign),
        (nn.Gaussian(), lambda a: np.exp(-(a**2))),
        (nn.NoisyReLU(), lambda a: np.maximum(a, 0)),
    ],
)
def test_modules_that_torch_has_not(module: nn.Module, function: Any) -> None:
    np.testing.assert_allclose(module.predict(X), function(X), rtol=1e-5, atol=1e-6)


def test_thresholds_have_gradient_zero() -> None:
    for module in (nn.Heaviside(), nn.Sign()):
        x = gc.input("x", X.shape)
        slope = gc.grad(gc.sum(module(x) + 0.0 * x), x)
        np.testing.assert_array_equal(gc.compile([x], [slope])(X)[0], 0 * X)


def test_noise_in_training_is_normal_with_variance_sigmoid() -> None:
    """With x so great that the ReLU passes everything, output - x is the noise."""
    shape = (400, 50)
    for level in (6.0, 0.0):
        x = gc.input("x", shape)
        module = nn.NoisyReLU()
        with nn.trace(module, train=True):
            y = module(x)
        slope = gc.grad(gc.sum(y), x)
        step = gc.compile([x], [y, slope], seed=3)
        (first, mask), (second, _) = (step(np.full(shape, level, np.float32)) for _ in range(2))
        assert not np.array_equal(first, second)
        np.testing.assert_array_equal(mask, first > 0)
        if level:
            noise = first - level
            assert abs(noise.mean()) < 0.03
            assert abs(noise.var() - 1 / (1 + np.exp(-level))) < 0.05
            assert abs((noise**4).mean() - 3) < 0.3
        else:
            positive = first[first > 0]
            assert abs(len(positive) / first.size - 0.5) < 0.02
            assert abs((positive**2).mean() - 0.5) < 0.03


@pytest.mark.parametrize("bias", [True, False])
def test_maxout_is_the_greatest_of_affine_maps(bias: bool) -> None:
    module = nn.Maxout(4, 3, pieces=2, bias=bias)
    w = module.affine.weight.value.reshape(3, 2, 4)
    b = module.affine.bias.value.reshape(3, 2) if module.affine.bias is not None else np.zeros((3, 2))
    maps = np.einsum("ni,opi->nop", X, w) + b
    found = run(module, X)
    np.testing.assert_allclose(found[0], maps.max(-1), rtol=1e-5, atol=1e-6)
    weights = np.cos(np.arange(18)).reshape(6, 3)
    chosen = (maps == maps.max(-1, keepdims=True)) * weights[:, :, None]
    np.testing.assert_allclose(found[1], np.einsum("nop,opi->ni", chosen, w), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found[2], np.einsum("nop,ni->opi", chosen, X).reshape(6, 4), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(nn.Maxout(4, 3, pieces=1).predict(X.reshape(2, 3, 4)).shape, (2, 3, 3))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.GELU("sigmoid"), AttributeValueError, "'none' or 'tanh'"),
        (lambda: nn.Hardtanh(1.0, 1.0), AttributeValueError, "less than"),
        (lambda: nn.Softplus(0.0), AttributeValueError, "beta"),
        (lambda: nn.PReLU(0), ShapeError, "at least 1"),
        (lambda: nn.Maxout(4, 3, 0), ShapeError, "at least 1"),
    ],
)
def test_bad_arguments(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_repr_tells_the_arguments() -> None:
    text = repr(nn.Sequential(nn.LeakyReLU(0.1), nn.Maxout(4, 3), nn.GELU("tanh"), nn.PReLU(2)))
    for part in ("negative_slope=0.1", "pieces=2", "approximate='tanh'", "num_parameters=2"):
        assert part in text
