"""A multilayer perceptron that reads handwritten digits: the data as it wants them, and how it is trained."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from graphc import nn, optim
from graphc.data import mnist, train_validation_split
from graphc.errors import AttributeValueError
from graphc.models.mlp import mlp
from graphc.train.callbacks import Callback, LambdaCallback, LearningRateScheduler, Logs, Training

PIXELS, CLASSES = 28 * 28, 10
OPTIMIZERS, DECAYS = ("sgd", "adam"), ("cosine", "none")


@dataclass(frozen=True)
class Digits:
    """Float32 images `[n, 784]` in 0 ... 1 with uint8 labels `[n]`; `validation` is None if none are held out."""

    train: tuple[np.ndarray, ...]
    validation: tuple[np.ndarray, ...] | None
    test: tuple[np.ndarray, ...]


def digits(data_dir: str | os.PathLike[str] | None = None, *, validation: float = 0.0, seed: int = 0) -> Digits:
    """MNIST from `data_dir` (see `gc.data.mnist`), scaled and flattened.

    The share `validation` of the training images, drawn at random by `seed`, is held out. Raises DataError as
    `gc.data.mnist` does, InputError for a share that leaves no images.
    """
    train, test = mnist(data_dir)
    images, labels = _rows(train.images), train.labels
    held_out = None
    if validation:
        (images, labels), held_out = train_validation_split((images, labels), validation, seed=seed)
    return Digits((images, labels), held_out, (_rows(test.images), test.labels))


def _rows(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), PIXELS).astype(np.float32) / np.float32(255)


@dataclass(frozen=True)
class Recipe:
    """How to train: SGD with momentum 0.9, or Adam, and a learning rate that falls to 0 along half a cosine, or stays.

    `lr` None is the optimiser's own: 0.1 for SGD, 0.001 for Adam. The decay is that of I. Loshchilov, F. Hutter,
    SGDR: Stochastic gradient descent with warm restarts, 2017, (5), one period, stepped by epochs. Raises
    AttributeValueError for an optimizer that is none of `OPTIMIZERS`, and for a decay that is none of `DECAYS`.
    """

    epochs: int = 10
    batch_size: int = 64
    optimizer: str = "sgd"
    lr: float | None = None
    decay: str = "cosine"

    def __post_init__(self) -> None:
        for name, known in (("optimizer", OPTIMIZERS), ("decay", DECAYS)):
            if getattr(self, name) not in known:
                raise AttributeValueError(f"{name} {getattr(self, name)!r} is none of: {', '.join(known)}")

    @property
    def rate(self) -> float:
        """The first epoch's learning rate."""
        if self.lr is not None:
            return self.lr
        return 0.1 if self.optimizer == "sgd" else 0.001

    def make_optimizer(self) -> optim.Optimizer:
        """The optimiser."""
        return optim.Adam(lr=self.rate) if self.optimizer == "adam" else optim.SGD(lr=self.rate, momentum=0.9)

    def rate_of(self, epoch: int) -> float:
        """The learning rate of an epoch, numbered from 0."""
        if self.decay == "none":
            return self.rate
        return self.rate * (1 + math.cos(math.pi * epoch / self.epochs)) / 2


def classifier(hidden: tuple[int, ...], recipe: Recipe, *, seed: int = 0, threads: int | None = None) -> nn.Sequential:
    """784 pixels, ReLU layers of `hidden` units, 10 digits; compiled for `fit` with cross-entropy and accuracy."""
    model = mlp(PIXELS, *hidden, CLASSES)
    model.compile("cross_entropy", recipe.make_optimizer(), ["accuracy"], seed=seed, threads=threads)
    return model


def fit(
    model: nn.Module,
    data: Digits,
    recipe: Recipe,
    *,
    on_epoch: Callable[[int, Mapping[str, float]], None] | None = None,
    verbose: int | str = "auto",
) -> None:
    """Train the model that `classifier` made; `on_epoch(number from 1, figures)` is called after each epoch."""
    callbacks: list[Callback] = [LearningRateScheduler(lambda epoch, _: recipe.rate_of(epoch))]
    if on_epoch is not None:

        def tell(training: Training, epoch: int, logs: Logs) -> None:
            on_epoch(epoch + 1, {**logs, "seconds": round(training.history.seconds[-1], 3)})

        callbacks.append(LambdaCallback(on_epoch_end=tell))
    model.fit(
        *data.train,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        validation_data=data.validation,
        callbacks=callbacks,
        verbose=verbose,
    )
