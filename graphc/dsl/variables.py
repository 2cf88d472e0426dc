"""Inputs, parameters and state: the leaves of a declared graph.

A parameter or state owns its elements, outside all programs, in the layout in which it was declared; programs that
read or update it share them. A parameter is what gradients are taken of and optimisers update; state is anything else
that lives between steps: a learning rate, a step counter, a running mean.

Initial values depend on the seed and a key. The key is the name given to `gc.param`, or in a model the path in it, such
as `encoder.fc1.weight`: equal models with equal seeds start equal, whatever was declared before them. A parameter of a
module that lies in no other (`a, b = nn.Linear(4, 4), nn.Linear(4, 4)`) has no path yet; until the module is put
into a model or trained as one itself, the key is its name with a number that counts such parameters in the order of
their construction, so that equal layers start differently, and in every run of a script the same.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.dsl import initialisers
from graphc.dsl.initialisers import Array, Initialiser
from graphc.dsl.origin import here
from graphc.dsl.symbol import Symbol
from graphc.errors import InputError, MemoryLimitError, ShapeError, StateError
from graphc.ir.buffers import Elements, aligned_copy, aligned_empty
from graphc.ir.dims import Poly, as_dim, format_shape
from graphc.ir.graph import Origin, Value
from graphc.ir.types import DType, TensorType, as_dtype

_without_path = itertools.count()  # numbers for parameters of modules that lie in no other

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

    `value` is a read-only copy, and assigning to it checks shape and dtype; `array` shows the live elements, read-only
    too, the same NumPy array for life. All that writes raises `version`, by which programs that keep something computed
    from the elements (packed copies) notice. The elements are initialised when first asked for, from `seed` (0 if None)
    and a key; see the module docstring. Variables can be pickled.
    """

    __slots__ = ("name", "automatic_name", "seed", "_initialiser", "_initial_key", "_number", "_elements", "_array")

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
        self._initialiser = initialiser
        self._initial_key = (0, name)
        self._number: int | None = None
        self._elements: Elements | None = None
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
        return self._elements is not None

    @property
    def elements(self) -> Elements:
        """The memory that programs read and write, and the count of its changes; for who writes there, see there."""
        if self._elements is None:
            self.initialise()
        assert self._elements is not None
        return self._elements

    @property
    def array(self) -> Array:
        """The live elements, C-contiguous and 64-byte aligned; read-only, because programs must notice every write."""
        if self._array is None:
            self._array = self.elements.view()
        return self._array

    @property
    def version(self) -> int:
        """How often the elements were written, by programs and by assignment, since they had their first values."""
        return 0 if self._elements is None else self._elements.version

    @property
    def value(self) -> Array:
        """A read-only copy of the elements. Assigning (any array of the shape, safe casts) writes them.

        To change some elements: `v = W.value.copy(); v[0] = 7; W.value = v`.
        """
        copied = self.array.copy()
        copied.flags.writeable = False
        return copied

    @value.setter
    def value(self, new: Any) -> None:
        checked = self.checked(new)
        if self._elements is None:
            self._elements = Elements(self._allocated())
        self._elements.write(checked)

    def __deepcopy__(self, memo: dict[int, Any]) -> Variable:
        """Another variable with the same elements, in memory of its own (a plain copy would not be aligned)."""
        other = type(self)(self.name, self.type, self._initialiser, self.seed)
        other.automatic_name, other._initial_key, other._number = self.automatic_name, self._initial_key, self._number
        if self._elements is not None:
            other._elements = Elements(aligned_copy(self._elements.array))
        memo[id(self)] = other
        return other

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what the variable is made of; the elements get aligned memory again."""
        made = (type(self), self.name, self.type, self._initialiser, self.seed)
        array = None if self._elements is None else self._elements.array
        return _restored, (*made, self.automatic_name, self.version, self._initial_key, self._number, array)

    def initialise(self, seed: int | None = None, rooted: bool = False) -> None:
        """Give the elements their initial values, unless they have values; `seed` counts if the variable has none.

        `rooted` says that `name` is the whole path in a model, also if it is that of no module below another.
        """
        if self._elements is not None:
            return
        if self.seed is None:
            self.seed = 0 if seed is None else seed
        numbered = self._number is not None and "." not in self.name and not rooted
        self._initial_key = (self.seed, f"{self.name}#{self._number}" if numbered else self.name)
        array = self._allocated()
        array[...] = self._initial()
        self._elements = Elements(array)

    def _allocated(self) -> Array:
        try:
            return aligned_empty(self.static_shape, self.dtype)
        except MemoryLimitError as error:
            raise MemoryLimitError(f"{type(self).__name__} {self.name!r}: {error}") from error

    def reset(self) -> None:
        """Write the initial values again, into the same memory."""
        if self._elements is None:
            self.initialise()
        else:
            self.value = self._initial()

    def _initial(self) -> Array:
        return self.checked(self._initialiser(self.static_shape, initialisers.generator(*self._initial_key)))

    def name_by_path(self, path: str) -> None:
        """Take the path in a module as name, in programs and (before the elements exist) for their initial values."""
        self.name = path
        self.automatic_name = True
        if self._number is None and "." not in path:
            self._number = next(_without_path)

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


def _restored(
    kind: type[Variable],
    name: str,
    type_: TensorType,
    initialiser: Initialiser,
    seed: int | None,
    automatic_name: bool,
    version: int,
    initial_key: tuple[int, str],
    number: int | None,
    array: Array | None,
) -> Variable:
    """The variable that was pickled. The number is not drawn anew: a copy starts as the original would have."""
    variable = kind(name, type_, initialiser, seed)
    variable.automatic_name = automatic_name
    variable._initial_key, variable._number = initial_key, number
    variable._elements = None if array is None else Elements(aligned_copy(array), version)
    return variable


def _initialiser(init: Initialiser | Any, default: Initialiser) -> Initialiser:
    if init is None:
        return default
    if isinstance(init, str):
        raise InputError(f"init={init!r} is no initialiser; give one of gc.init, such as gc.init.glorot_uniform()")
    return init if callable(init) else initialisers.constant(init)


def _type(name: str, shape: Sequence[int | str | Poly], dtype: str | DType | type) -> TensorType:
    if isinstance(shape, (int, str, Poly)):
        raise ShapeError(f"{name!r}: the shape must be a tuple, got {shape!r}; write ({shape!r},)")
    if isinstance(shape, np.ndarray) and (shape.ndim != 1 or shape.dtype.kind not in "iu"):
        given = f"an array of {shape.dtype} {format_shape(shape.shape)}"
        raise ShapeError(f"{name!r}: the shape must be a tuple, got {given}; elements are given as init=")
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
