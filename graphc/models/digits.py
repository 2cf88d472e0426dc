"""Handwritten digits as networks want them: rows of pixels between 0 and 1, with rows held out to watch training."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from graphc.data import mnist, train_validation_split

PIXELS, CLASSES = 28 * 28, 10


@dataclass(frozen=True)
class Digits:
    """Pairs of float32 images `[n, 784]` in 0 ... 1 and uint8 labels `[n]`; `validation` is None if none are held out."""

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
