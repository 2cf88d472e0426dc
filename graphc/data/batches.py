"""Minibatches of arrays in a reproducible random order, and the split into training and validation rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from graphc.errors import InputError


class Batches:
    """Minibatches over the rows of several arrays: `for x, y in Batches((x_train, y_train), 128, seed=0)`.

    `arrays` are NumPy arrays with the same number of rows (axis 0) and any dtypes; a batch is a tuple with
    `batch_size` rows of each. The last batch holds what is left and may be shorter. With `shuffle`, every pass over
    the object (an epoch) has an order of its own, which depends on `seed` and the number of the epoch alone: two
    objects with one seed give the same batches. Without, batches are views of the arrays in their own order.

    Raises `InputError` if the arrays are empty, differ in their number of rows, or are one bare array, and if
    `batch_size` or `seed` is out of range.
    """

    def __init__(
        self, arrays: Sequence[np.ndarray], batch_size: int, shuffle: bool = True, seed: int = 0
    ) -> None:
        self._rows = _common_rows(arrays)
        if batch_size < 1:
            raise InputError(f"Batches: batch_size must be at least 1, got {batch_size}")
        if self._rows == 0:
            raise InputError("Batches: the arrays have no rows, so there is nothing to iterate over")
        _check_seed("Batches", seed)
        self._arrays = tuple(arrays)
        self._batch_size = batch_size
        self._shuffle = shuffle
        self._seed = seed
        self._epoch = 0

    def __len__(self) -> int:
        """The number of batches in an epoch, a shorter last one included."""
        return math.ceil(self._rows / self._batch_size)

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        """The batches of the next epoch."""
        epoch, self._epoch = self._epoch, self._epoch + 1
        return self._batches(epoch)

    def order(self, epoch: int) -> np.ndarray:
        """The row numbers, int64 `[rows]`, in the order in which epoch number `epoch` (from 0) visits them."""
        if not self._shuffle:
            return np.arange(self._rows)
        return _generator(self._seed, epoch).permutation(self._rows)

    def _batches(self, epoch: int) -> Iterator[tuple[np.ndarray, ...]]:
        order = self.order(epoch) if self._shuffle else None
        for start in range(0, self._rows, self._batch_size):
            rows = slice(start, start + self._batch_size)
            yield tuple(array[rows if order is None else order[rows]] for array in self._arrays)


def train_validation_split(
    arrays: Sequence[np.ndarray], validation_fraction: float = 0.1, *, seed: int | None = None
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """Split the rows of `arrays` in two: `(x_train, y_train), (x_val, y_val) = train_validation_split((x, y), 0.2)`.

    The second part has `ceil(validation_fraction * rows)` rows. Without `seed` it is the last rows, as Keras'
    `validation_split` takes them, and both parts are views; with a `seed` the rows are drawn at random, always the
    same ones for the same seed.

    Raises `InputError` if the arrays differ in their number of rows, or if either part would be empty.
    """
    rows = _common_rows(arrays)
    # The tolerance keeps 0.1 * 30 = 3.0000000000000004 from counting as four rows.
    validation_rows = math.ceil(validation_fraction * rows * (1 - 1e-9)) if 0 < validation_fraction < 1 else 0
    train_rows = rows - validation_rows
    if validation_rows < 1 or train_rows < 1:
        raise InputError(
            f"train_validation_split: validation_fraction {validation_fraction} of {rows} rows leaves one part empty; "
            "give a fraction between 0 and 1, and at least two rows"
        )
    if seed is None:
        return tuple(a[:train_rows] for a in arrays), tuple(a[train_rows:] for a in arrays)
    _check_seed("train_validation_split", seed)
    order = _generator(seed, 0).permutation(rows)
    return tuple(a[order[:train_rows]] for a in arrays), tuple(a[order[train_rows:]] for a in arrays)


def _common_rows(arrays: Sequence[np.ndarray]) -> int:
    """The number of rows that all `arrays` have."""
    if isinstance(arrays, np.ndarray):
        raise InputError(f"expected a tuple of arrays, got one array of shape {arrays.shape}; write (array,)")
    if not arrays or any(array.ndim == 0 for array in arrays):
        raise InputError(f"expected arrays with rows (axis 0), got shapes {[array.shape for array in arrays]}")
    if len({len(array) for array in arrays}) > 1:
        raise InputError(
            f"arrays must have the same number of rows (axis 0), got shapes {[array.shape for array in arrays]}"
        )
    return len(arrays[0])


def _check_seed(user: str, seed: int) -> None:
    if not 0 <= seed < 2**64:
        raise InputError(f"{user}: seed must be in 0 ... 2**64 - 1, got {seed}")


def _generator(seed: int, epoch: int) -> np.random.Generator:
    """Counter-based, keyed by both numbers: an epoch's order can be had without drawing those before it."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)))
