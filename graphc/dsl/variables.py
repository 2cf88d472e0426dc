"""Inputs, parameters and state: the leaves of a declared graph.

A parameter or state owns its elements, outside all programs, in the layout in which it was declared; programs that
read or update it share them. A parameter is what gradients are taken of and optimisers update; state is anything else
that lives between steps: a learning rate, a step counter, a running mean.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.dsl import initialisers
from graphc.dsl.initialisers import Array, Initialiser
from graphc.dsl.origin import here
from graphc.dsl.symbol import Symbol
from graphc.errors import InputError, ShapeError, StateError
from graphc.ir.buffers import aligned_empty
from graphc.ir.dims import Poly, as_dim, format_shape
from graphc.ir.graph import Origin, Value
from graphc.ir.types import DType, TensorType, as_dtype

__all__ = ["Input", "Leaf", "Param", "State", "Variable", "input", "param", "state"]


@dataclass(frozen=True, eq=False, repr=False)
class Leaf(Value):
    """A graph input that knows its symbol and where it was declared."""

    owner: Symbol | None = None
    declared: Origin = Origin()

    @property
    def origin(self) -> Origin:
        """Where the input, parameter or state was declared."""
        return self.declared


class Input(Symbol):
    """A tensor that the caller of a program gives."""

    __slots__ = ("name",)

    def __init__(self, name: str, type_: TensorType) -> None:
        _check_name(name)
        self.name = name
        super().__init__(Leaf(type_, name=name, owner=self, declared=here()))


class Variable(Symbol):
    """A tensor that lives between calls: `Param` or `State`.

    `array` is the live memory, the same NumPy array for life; `value` is a copy, and assigning to it checks shape and
    dtype and raises `version`, by which programs that keep a packed copy notice. The elements are initialised when
    first asked for, from `seed` (0 if None) and `name`.
    """

    __slots__ = ("name", "automatic_name", "seed", "version", "_initialiser", "_initial_key", "_array")

    def __init__(self, name: str, type_: TensorType, initialiser: Initialiser, seed: int | None = None) -> None:
        _check_name(name)
        if any(isinstance(d, Poly) for d in type_.shape):
            raise ShapeError(
                f"{type(self).__name__} {name!r} of shape {format_shape(type_.shape)}: its dimensions "
                "must be integers, for it has elements before any program runs"
            )
        self.name = name
        self.automatic_name = False
        self.seed = seed
        self.version = 0
        self._initialiser = initialiser
        self._initial_key = (0, name)
        self._array: Array | None = None
        super().__init__(Leaf(type_, name=name, owner=self, declared=here()))

    @property
    def type(self) -> TensorType:
        """dtype and shape."""
        return self.ir.type

    @property
    def static_shape(self) -> tuple[int, ...]:
        """The shape; dimensions of a variable are always integers."""
        return tuple(d for d in self.shape if isinstance(d, int))

    @property
    def initialised(self) -> bool:
        """Whether the elements exist; from then on `seed` and `name` have no influence on them."""
        return self._array is not None

    @property
    def array(self) -> Array:
        """The live elements, C-contiguous and 64-byte aligned; whoever writes to them adds 1 to `version`."""
        if self._array is None:
            self.initialise()
        assert self._array is not None
        return self._array

    @property
    def value(self) -> Array:
        """A copy of the elements. Assigning (any array of the shape, safe casts) writes them."""
        return self.array.copy()

    @value.setter
    def value(self, new: Any) -> None:
        checked = self.checked(new)
        if self._array is None:
            self._array = aligned_empty(self.static_shape, self.dtype)
        self._array[...] = checked
        self.version += 1

    def __deepcopy__(self, memo: dict[int, Any]) -> Variable:
        """Another variable with the same elements, in memory of its own (a plain copy would not be aligned)."""
        other = type(self)(self.name, self.type, self._initialiser, self.seed)
        other.automatic_name, other._initial_key = self.automatic_name, self._initial_key
        if self._array is not None:
            other._array = aligned_empty(self.static_shape, self.dtype)
            other._array[...] = self._array
        memo[id(self)] = other
        return other

    def initialise(self, seed: int | None = None) -> None:
        """Give the elements their initial values, unless they have values; `seed` counts if the variable has none."""
        if self._array is not None:
            return
        if self.seed is None:
            self.seed = 0 if seed is None else seed
        self._initial_key = (self.seed, self.name)
        initial = self._initial()
        array = aligned_empty(self.static_shape, self.dtype)
        array[...] = initial
        self._array = array

    def reset(self) -> None:
        """Write the initial values again, into the same memory."""
        if self._array is None:
            self.initialise()
        else:
            self.value = self._initial()

    def _initial(self) -> Array:
        return self.checked(self._initialiser(self.static_shape, initialisers.generator(*self._initial_key)))

    def name_by_path(self, path: str) -> None:
        """Take the path in a module as name, in programs and (before the elements exist) for their initial values."""
        self.name = path
        self.automatic_name = True

    def checked(self, new: Any) -> Array:
        """`new` as an array that fits: real numbers for floats; for integers and bools, integers that the dtype holds.

        Raises StateError naming both shapes or both dtypes.
        """
        array = np.asarray(new)
        if array.shape != self.static_shape:
            raise StateError(
                f"{self.name} has shape {format_shape(self.shape)}, got an array of shape {format_shape(array.shape)}"
            )
        kinds = "fiub" if self.dtype.is_float else "iub"
        if array.dtype.kind not in kinds or not (self.dtype.is_float or _holds(self.dtype, array)):
            raise StateError(
                f"{self.name} is {self.dtype.numpy_name}, got {array.dtype} that does not fit; convert it with .astype"
            )
        return array


class Param(Variable):
    """A parameter: gradients are taken of it, optimisers update it."""

    __slots__ = ()


class State(Variable):
    """State that is no parameter."""

    __slots__ = ()


def input(name: str, shape: Sequence[int | str | Poly] = (), dtype: str | DType | type = "float32") -> Input:
    """A tensor given at each call. Dimensions are integers or symbols: `gc.input("x", ("N", 784))`."""
    return Input(name, _type(name, shape, dtype))


def param(
    name: str,
    shape: Sequence[int] = (),
    init: Initialiser | Any = None,
    dtype: str | DType | type = "float32",
    seed: int | None = None,
) -> Param:
    """A parameter. `init` is an initialiser (`gc.init.he_normal()`), a number or an array of the shape.

    Without `init`, one with two axes or more starts glorot_uniform and any other with zeros. Without `seed`, the seed
    of the first program or model that uses it counts. Raises ShapeError, StateError, InputError (name).
    """
    type_ = _type(name, shape, dtype)
    default = initialisers.glorot_uniform() if type_.rank >= 2 else initialisers.zeros()
    return Param(name, type_, _initialiser(init, default), seed)


def state(
    name: str,
    shape: Sequence[int] = (),
    init: Initialiser | Any = None,
    dtype: str | DType | type = "float32",
    seed: int | None = None,
) -> State:
    """State that lives between calls; zeros at first unless `init` says otherwise; shape () is a runtime scalar."""
    return State(name, _type(name, shape, dtype), _initialiser(init, initialisers.zeros()), seed)


def _initialiser(init: Initialiser | Any, default: Initialiser) -> Initialiser:
    if init is None:
        return default
    return init if callable(init) else initialisers.constant(init)


def _type(name: str, shape: Sequence[int | str | Poly], dtype: str | DType | type) -> TensorType:
    if isinstance(shape, (int, str, Poly)):
        raise ShapeError(f"{name!r}: the shape must be a tuple, got {shape!r}; write ({shape!r},)")
    return TensorType(as_dtype(dtype), tuple(as_dim(d) for d in shape))


def _holds(dtype: DType, integers: Array) -> bool:
    """Whether all integers (or bools) are in the range of the integer (or bool) dtype."""
    if not integers.size:
        return True
    lower, upper = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype.numpy).min, np.iinfo(dtype.numpy).max)
    return bool(lower <= int(integers.min()) and int(integers.max()) <= upper)


def _check_name(name: str) -> None:
    """Names appear in the text of graphs as `%fc.weight`."""
    if not isinstance(name, str) or not re.fullmatch(r"[\w./-]+", name):
        raise InputError(f"{name!r} is no name for a tensor; use letters, digits and _ . / -, such as 'fc.weight'")
    if name == "rng":
        raise InputError("the name 'rng' is taken: it is the random state of every program; choose another name")
