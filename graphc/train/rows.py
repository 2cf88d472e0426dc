"""The rows that a model is trained on: arrays that share their first axis, and what a program calls them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from graphc.errors import InputError
from graphc.ir.types import DType, as_dtype, f32, i32

Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Port:
    """A program's input: its name, the shape of a row and the dtype that rows are converted to."""

    name: str
    shape: tuple[int, ...]
    dtype: DType


@dataclass(frozen=True)
class Rows:
    """Inputs and targets with equally many rows. `y` is None where the targets are the inputs."""

    x: tuple[Array, ...]
    y: tuple[Array, ...] | None

    @staticmethod
    def of(x: Any, y: Any, user: str, float_targets: bool = False) -> Rows:
        """Rows from what a user gives: an array each, or a tuple of arrays. Raises InputError naming `user`.

        With `float_targets`, targets of integers and bools become float32.
        """
        targets = None if y is None else _arrays(y, "y", user)
        if targets is not None and float_targets:
            targets = tuple(a.astype(np.float32) if a.dtype.kind in "iub" else a for a in targets)
        rows = Rows(_arrays(x, "x", user), targets)
        lengths = {len(array) for array in rows.arrays}
        if len(lengths) > 1:
            raise InputError(f"{user}: arrays have different numbers of rows: {rows.described}")
        if lengths == {0}:
            raise InputError(f"{user}: there are no rows: {rows.described}")
        return rows

    @property
    def arrays(self) -> tuple[Array, ...]:
        """Inputs, then targets."""
        return (*self.x, *(self.y or ()))

    @property
    def ports(self) -> tuple[tuple[Port, ...], tuple[Port, ...] | None]:
        """The program's inputs for `x` and for `y`."""
        targets = None if self.y is None else _ports("y", self.y, labels=True)
        return _ports("x", self.x, labels=False), targets

    @property
    def described(self) -> str:
        """`x [60000,28,28] uint8, y [60000] uint8`."""
        x, y = self.ports
        return ", ".join(
            f"{p.name} {list(a.shape)} {a.dtype}" for p, a in zip((*x, *(y or ())), self.arrays, strict=True)
        )

    def __len__(self) -> int:
        return len(self.x[0])

    def take(self, rows: slice | Array) -> tuple[Array, ...]:
        """The chosen rows of every array."""
        return tuple(array[rows] for array in self.arrays)


def _arrays(value: Any, name: str, user: str) -> tuple[Array, ...]:
    values: Sequence[Any] = value if isinstance(value, tuple) else (value,)
    try:
        arrays = tuple(np.asarray(v) for v in values)
    except ValueError as error:  # rows of different lengths
        raise InputError(f"{user}: {name} is no rectangular array: {error}") from None
    for array in arrays:
        if array.ndim == 0 or array.dtype.kind not in "fiub":
            raise InputError(
                f"{user}: {name} must be an array of numbers with rows on axis 0, got "
                f"{array.dtype} of shape {list(array.shape)}"
            )
    if not arrays:
        raise InputError(f"{user}: {name} is an empty tuple")
    return arrays


def _ports(name: str, arrays: Sequence[Array], labels: bool) -> tuple[Port, ...]:
    names = [name] if len(arrays) == 1 else [f"{name}{k}" for k in range(len(arrays))]
    return tuple(Port(n, a.shape[1:], _dtype(a, labels)) for n, a in zip(names, arrays, strict=True))


def _dtype(array: Array, labels: bool) -> DType:
    """float32 for floats and bools; int32 for integers, but uint8 inputs are images and become float32."""
    if array.dtype.kind in "fb" or (array.dtype == np.uint8 and not labels):
        return f32
    if array.dtype.kind in "iu":
        return i32
    return as_dtype(array.dtype)
