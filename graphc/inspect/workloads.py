"""The workloads that `graphc bench` times: what each declares, the arrays it is fed, and the arithmetic it needs.

They are those of the comparison with other frameworks: a training step is forward, backward and update, on float32
data, with SGD (rate 0.01, momentum 0.9) unless the workload says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphc import models, nn, optim
from graphc.dsl import random
from graphc.dsl.activations import sigmoid
from graphc.dsl.control import scan
from graphc.dsl.elementwise import tanh
from graphc.dsl.initialisers import normal, uniform
from graphc.dsl.losses import binary_cross_entropy_with_logits, cross_entropy
from graphc.dsl.shaping import zeros
from graphc.dsl.symbol import Symbol
from graphc.dsl.variables import Input, Variable, input, param

Arrays = tuple[np.ndarray, ...]
Generator = np.random.Generator


@dataclass(frozen=True)
class Step:
    """A declared step: inputs, results, and the new values of variables (none: inference)."""

    inputs: Sequence[Input]
    results: Sequence[Symbol]
    updates: Mapping[Variable, Symbol]


@dataclass(frozen=True)
class Workload:
    """A step to be timed.

    dims: sizes of its dimension symbols. flops: what the mathematics needs, taps on padding counted, without the
    gradient of the first layer's input. arrays: a batch from a random generator.
    """

    name: str
    about: str
    dims: Mapping[str, int]
    flops: int
    declare: Callable[[], Step]
    batch_from: Callable[[Generator], Arrays]

    def arrays(self, seed: int) -> Arrays:
        """A batch, the same for the same seed, in the order of the step's inputs."""
        return self.batch_from(np.random.default_rng(seed))


def _trained(model: nn.Module, inputs: Sequence[Input], loss: Callable[[Symbol], Symbol]) -> Step:
    """One step of SGD on `loss(model(inputs[0]))`."""
    with nn.trace(model, train=True):
        value = loss(model(inputs[0]))
    updates = optim.SGD(lr=0.01, momentum=0.9).updates(value, model.parameters())
    return Step(inputs, [value], updates)


def _classifier(model: Callable[[], nn.Module], shape: tuple[int, ...]) -> Callable[[], Step]:
    def declare() -> Step:
        x, t = input("x", ("N", *shape)), input("t", ("N",), "int64")
        return _trained(model(), [x, t], lambda logits: cross_entropy(logits, t))

    return declare


def _images_and_labels(batch: int, shape: tuple[int, ...]) -> Callable[[Generator], Arrays]:
    """float32 `[batch, *shape]` uniform in 0 ... 1, and int64 labels `[batch]` of ten classes."""
    return lambda rng: (rng.random((batch, *shape), dtype=np.float32), rng.integers(0, 10, batch))


# ---- arithmetic -----------------------------------------------------------------------------------------------------


def _training_flops(forward: Sequence[int]) -> int:
    """Of a chain of contractions, given what each needs forward: twice as much backward, but once for the first."""
    return 3 * sum(forward) - forward[0]


def _dense(batch: int, *sizes: int) -> list[int]:
    return [2 * batch * a * b for a, b in zip(sizes, sizes[1:], strict=False)]


# ---- dense networks -------------------------------------------------------------------------------------------------


def _mlp(name: str, sizes: tuple[int, ...], batch: int) -> Workload:
    about = f"{'-'.join(map(str, sizes))}, ReLU, cross-entropy, batch {batch}"
    flops = _training_flops(_dense(batch, *sizes))
    declare = _classifier(lambda: models.mlp(*sizes), sizes[:1])
    return Workload(name, about, {"N": batch}, flops, declare, _images_and_labels(batch, sizes[:1]))


def _declare_dae() -> Step:
    x = input("x", ("N", 784))
    model = nn.Sequential(nn.Dropout(0.3), nn.Linear(784, 500), nn.Sigmoid(), nn.Linear(500, 784))
    return _trained(model, [x], lambda logits: binary_cross_entropy_with_logits(logits, x))


def _declare_rbm() -> Step:
    """CD-1 on a binary machine (Hinton 2002): the statistics of the data less those of a reconstruction."""
    v = input("v", ("N", 784))
    W, a, b = param("W", (784, 500), init=normal(0.0, 0.01)), param("a", (784,)), param("b", (500,))
    ph = sigmoid(v @ W + b)
    h = random.bernoulli(ph)
    v1 = random.bernoulli(sigmoid(h @ W.T + a))
    ph1 = sigmoid(v1 @ W + b)
    updates: dict[Variable, Symbol] = {
        W: W + 0.1 / 100 * (v.T @ ph - v1.T @ ph1),
        a: a + 0.1 * (v - v1).mean(axis=0),
        b: b + 0.1 * (ph - ph1).mean(axis=0),
    }
    return Step([v], [], updates)


# ---- convolutional networks -----------------------------------------------------------------------------------------


def _convolution(batch: int, inputs: int, outputs: int, kernel: int, pixels: int) -> int:
    """Of `pixels` x `pixels` outputs, taps on padding counted."""
    return 2 * batch * outputs * pixels**2 * inputs * kernel**2


def _lenet_flops(batch: int) -> list[int]:
    return [_convolution(batch, 1, 6, 5, 28), _convolution(batch, 6, 16, 5, 10), *_dense(batch, 400, 120, 84, 10)]


def _vgg_flops(batch: int) -> list[int]:
    layers = [(3, 32, 32), (32, 32, 32), (32, 64, 16), (64, 64, 16)]  # inputs, outputs, pixels along a side
    return [*(_convolution(batch, i, o, 3, p) for i, o, p in layers), *_dense(batch, 4096, 256, 10)]


def _declare_lenet_inference() -> Step:
    x = input("x", ("N", 1, 28, 28))
    with nn.trace(model := models.lenet(), train=False):
        return Step([x], [model(x)], {})


# ---- recurrent networks ---------------------------------------------------------------------------------------------

TOKENS, STEPS, SEQUENCES = 65, 64, 32
"""Different tokens, tokens in a sequence, sequences in a batch."""


def _declare_rnn(width: int) -> Step:
    """Embedding, h = tanh(x + h U + c) along the sequence, and logits of every next token."""
    tokens, t = input("tokens", ("N", STEPS), "int64"), input("t", ("N", STEPS), "int64")
    root = 1 / width**0.5
    E = param("embedding", (TOKENS, width), init=normal(0.0, 1.0))
    outputs = {"W": width, "U": width, "V": TOKENS}
    W, U, V = (param(name, (width, n), init=uniform(-root, root)) for name, n in outputs.items())
    b, c, d = param("b", (width,)), param("c", (width,)), param("d", (TOKENS,))
    x = (E[tokens] @ W + b).swapaxes(0, 1)

    def cell(h: Symbol, x: Symbol) -> tuple[Symbol, Symbol]:
        h = tanh(x + h @ U + c)
        return h, h

    _, hs = scan(cell, sequences=[x], init=[Symbol(zeros((tokens.shape[0], width)))])
    logits = hs.swapaxes(0, 1) @ V + d
    loss = cross_entropy(logits.reshape(-1, TOKENS), t.reshape(-1))
    parameters = [E, W, b, U, c, V, d]
    return Step([tokens, t], [loss], optim.SGD(lr=0.01, momentum=0.9).updates(loss, parameters))


def _rnn(width: int) -> Workload:
    """The projection of the embedding is counted for its 65 rows, not for every token."""
    walked = _dense(SEQUENCES * STEPS, width, width)[0] + _dense(SEQUENCES * STEPS, width, TOKENS)[0]
    return Workload(
        "rnn",
        f"embedding 65x{width}, tanh RNN {width}, linear 65, batch {SEQUENCES} x {STEPS} tokens",
        {"N": SEQUENCES},
        3 * (walked + _dense(TOKENS, width, width)[0]),
        lambda: _declare_rnn(width),
        lambda rng: (rng.integers(0, TOKENS, (SEQUENCES, STEPS)), rng.integers(0, TOKENS, (SEQUENCES, STEPS))),
    )


WORKLOADS = {
    w.name: w
    for w in (
        _mlp("mlp", (784, 512, 512, 10), 128),
        _mlp("mlp_small", (64, 64, 10), 32),
        Workload(
            "dae",
            "dropout 0.3, 784-500 sigmoid, 500-784, binary cross-entropy with logits, batch 100",
            {"N": 100},
            _training_flops(_dense(100, 784, 500, 784)),
            _declare_dae,
            lambda rng: (rng.random((100, 784), dtype=np.float32),),
        ),
        Workload(
            "rbm",
            "binary RBM 784-500, CD-1, rate 0.1, batch 100",
            {"N": 100},
            5 * _dense(100, 784, 500)[0],
            _declare_rbm,
            lambda rng: ((rng.random((100, 784)) < 0.3).astype(np.float32),),
        ),
        Workload(
            "lenet",
            "LeNet-5 of 28x28 images with ReLU and max pooling, cross-entropy, batch 64",
            {"N": 64},
            _training_flops(_lenet_flops(64)),
            _classifier(models.lenet, (1, 28, 28)),
            _images_and_labels(64, (1, 28, 28)),
        ),
        Workload(
            "vgg_small",
            "four 3x3 convolutions 3-32-32-64-64, two max poolings, 4096-256-10, cross-entropy, batch 32 of 3x32x32",
            {"N": 32},
            _training_flops(_vgg_flops(32)),
            _classifier(models.vgg_small, (3, 32, 32)),
            _images_and_labels(32, (3, 32, 32)),
        ),
        _rnn(128),
        Workload(
            "infer_lenet",
            "the same LeNet's logits of one image",
            {"N": 1},
            sum(_lenet_flops(1)),
            _declare_lenet_inference,
            lambda rng: (rng.random((1, 1, 28, 28), dtype=np.float32),),
        ),
    )
}
