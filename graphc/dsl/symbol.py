"""Symbols: the tensors that users write with, which behave like NumPy arrays as far as a static graph allows.

`==` and `!=` between symbols compare identity, so that symbols can be keys of `updates={W: ...}`; elementwise
comparisons are `gc.equal` and `gc.not_equal`. Comparing a symbol with a number or an array by `==` is an error, for
the answer would always be False. `<`, `<=`, `>` and `>=` are elementwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeAlias

import numpy as np

from graphc.dsl import declare
from graphc.errors import SymbolError
from graphc.ir.dims import Dim, format_shape
from graphc.ir.graph import Value
from graphc.ir.types import DType

Axis: TypeAlias = int | Sequence[int] | None


class Symbol:
    """A tensor of a declared graph: a dtype and a shape, and no elements until a program is compiled and called.

    `ir` is the value of the graph that the symbol stands for.
    """

    __slots__ = ("ir", "__weakref__")

    def __init__(self, ir: Value) -> None:
        self.ir = ir

    # What is known of it.

    @property
    def shape(self) -> tuple[Dim, ...]:
        """The dimensions; a dimension may be a symbol such as N."""
        return self.ir.type.shape

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self.ir.type.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.ir.type.rank

    @property
    def size(self) -> Dim:
        """Number of elements."""
        return self.ir.type.size

    def __repr__(self) -> str:
        producer = self.ir.producer
        what = f"{producer.op.name}" if producer else f"{type(self).__name__.lower()} {self.ir.name}"
        place = str(self.ir.origin)
        return f"<{what}: {self.ir.type}{', ' + place if place else ''}>"

    # Arithmetic; the rules for dtypes are those of graphc.dsl.declare.

    def __add__(self, other: Any) -> Symbol:
        return elementwise("add", self, other)

    def __radd__(self, other: Any) -> Symbol:
        return elementwise("add", other, self)

    def __sub__(self, other: Any) -> Symbol:
        return elementwise("sub", self, other)

    def __rsub__(self, other: Any) -> Symbol:
        return elementwise("sub", other, self)

    def __mul__(self, other: Any) -> Symbol:
        return elementwise("mul", self, other)

    def __rmul__(self, other: Any) -> Symbol:
        return elementwise("mul", other, self)

    def __truediv__(self, other: Any) -> Symbol:
        return elementwise("div", self, other)

    def __rtruediv__(self, other: Any) -> Symbol:
        return elementwise("div", other, self)

    def __pow__(self, exponent: Any) -> Symbol:
        return Symbol(declare.power(self.ir, unwrap(exponent)))

    def __rpow__(self, base: Any) -> Symbol:
        return Symbol(declare.power(base, self.ir))

    def __matmul__(self, other: Any) -> Symbol:
        return Symbol(declare.matmul(self.ir, unwrap(other)))

    def __rmatmul__(self, other: Any) -> Symbol:
        return Symbol(declare.matmul(unwrap(other), self.ir))

    def __neg__(self) -> Symbol:
        return elementwise("neg", self)

    def __pos__(self) -> Symbol:
        return self

    def __abs__(self) -> Symbol:
        return elementwise("abs", self)

    # Comparisons and logic.

    def __lt__(self, other: Any) -> Symbol:
        return elementwise("lt", self, other)

    def __le__(self, other: Any) -> Symbol:
        return elementwise("le", self, other)

    def __gt__(self, other: Any) -> Symbol:
        return elementwise("gt", self, other)

    def __ge__(self, other: Any) -> Symbol:
        return elementwise("ge", self, other)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (int, float, np.ndarray, np.generic)):
            raise SymbolError(
                f"{self!r} == {other!r} would always be False: `==` compares identity; "
                "write gc.equal(x, y) for an elementwise comparison"
            )
        return self is other

    def __hash__(self) -> int:
        return object.__hash__(self)

    def __invert__(self) -> Symbol:
        return elementwise("logical_not", self)

    def __and__(self, other: Any) -> Symbol:
        return elementwise("logical_and", self, other)

    def __or__(self, other: Any) -> Symbol:
        return elementwise("logical_or", self, other)

    # Methods that NumPy's arrays have.

    @property
    def T(self) -> Symbol:
        """All axes reversed."""
        return self.transpose()

    def reshape(self, *shape: Any) -> Symbol:
        """The elements in another shape: `x.reshape(-1, 784)` or `x.reshape((-1, 784))`."""
        return Symbol(declare.reshape(self.ir, _one_sequence(shape)))

    def transpose(self, *permutation: Any) -> Symbol:
        """Axes in another order, reversed when none is given: `x.transpose(0, 2, 1)`."""
        order = None if not permutation or permutation == (None,) else _one_sequence(permutation)
        return Symbol(declare.transpose(self.ir, order))

    def astype(self, dtype: str | DType | type | np.dtype[Any]) -> Symbol:
        """The elements in another dtype."""
        return Symbol(declare.cast(self.ir, dtype))

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Symbol:
        """The sum over `axis`, over all axes for None."""
        return Symbol(declare.reduce("sum", self.ir, axis, keepdims))

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Symbol:
        """The mean over `axis`, over all axes for None; float32 for integers and bools."""
        return Symbol(declare.reduce("mean", self.ir, axis, keepdims))

    def max(self, axis: Axis = None, keepdims: bool = False) -> Symbol:
        """The largest element along `axis`; see `gc.max` for ties."""
        return Symbol(declare.extremum("max", self.ir, axis, keepdims))

    def min(self, axis: Axis = None, keepdims: bool = False) -> Symbol:
        """The smallest element along `axis`; see `gc.min` for ties."""
        return Symbol(declare.extremum("min", self.ir, axis, keepdims))

    def amax(self, axis: Axis = None, keepdims: bool = False) -> Symbol:
        """The largest element over `axis`; equal ones share the gradient."""
        return Symbol(declare.reduce("max", self.ir, axis, keepdims, ties="even"))

    def amin(self, axis: Axis = None, keepdims: bool = False) -> Symbol:
        """The smallest element over `axis`; equal ones share the gradient."""
        return Symbol(declare.reduce("min", self.ir, axis, keepdims, ties="even"))

    def argmax(self, axis: int | None = None) -> Symbol:
        """The position of the first largest element along `axis`, for None in the flattened tensor."""
        return Symbol(declare.argmax(self.ir, axis))

    def __getitem__(self, key: Any) -> Symbol:
        return Symbol(declare.index(self.ir, key))

    # What Python would need a concrete value for.

    def __bool__(self) -> NoReturn:
        self._refuse("if x", "is not known while the graph is declared; write gc.where(condition, a, b)")

    def __float__(self) -> NoReturn:
        self._refuse("float(x)", "has no value before a program runs; compile it as an output and call the program")

    def __int__(self) -> NoReturn:
        self._refuse("int(x)", "has no value before a program runs; compile it as an output and call the program")

    def __complex__(self) -> NoReturn:
        self._refuse("complex(x)", "has no value before a program runs")

    def __index__(self) -> NoReturn:
        self._refuse(
            "range(x) or array[x]",
            "has no value before a program runs; sizes are in x.shape, and "
            "gc.gather or gc.one_hot pick by computed indices",
        )

    def __iter__(self) -> NoReturn:
        self._refuse("for v in x", "is not a sequence; write whole-array operations such as gc.sum(x, axis=0)")

    def __len__(self) -> NoReturn:
        self._refuse("len(x)", f"may not be known before a program runs; read x.shape, {format_shape(self.shape)}")

    def __contains__(self, item: object) -> NoReturn:
        self._refuse("v in x", "has no elements before a program runs; write gc.sum(gc.equal(x, v)) > 0")

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        self._refuse(
            "np.asarray(x)",
            "has no elements before a program runs; compile it as an output and call the program (parameters: W.value)",
        )

    def _refuse(self, use: str, reason: str) -> NoReturn:
        raise SymbolError(f"{use}: {self!r} {reason}")

    # NumPy's functions on symbols.

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Symbol:
        name = ufunc.__name__
        if method != "__call__" or options:
            used = f"np.{name}.{method}" if method != "__call__" else f"np.{name}(..., {', '.join(options)}=)"
            raise SymbolError(f"{used} is not available for symbols; use the functions of graphc, such as gc.sum")
        if name in UFUNC_OPS:
            return elementwise(UFUNC_OPS[name], *inputs)
        if name in UFUNC_DECLARATIONS:
            return Symbol(UFUNC_DECLARATIONS[name](*map(unwrap, inputs)))
        known = sorted([*UFUNC_OPS, *UFUNC_DECLARATIONS])
        raise SymbolError(f"np.{name} is not available for symbols; graphc has: {', '.join(known)}")

    def __array_function__(self, function: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = function.__name__
        if name == "where" and len(args) == 3 and not kwargs:
            return where(*args)
        if name not in ARRAY_METHODS or not args or not isinstance(args[0], Symbol):
            known = ", ".join(sorted([*ARRAY_METHODS, "where"]))
            raise SymbolError(f"np.{name} is not available for symbols; graphc has: {known}")
        accepted = {"axis", "keepdims"} if name not in ("reshape", "transpose") else set()
        if unknown := set(kwargs) - accepted:
            raise SymbolError(f"np.{name}: the argument {sorted(unknown)[0]!r} is not available for symbols")
        return getattr(args[0], ARRAY_METHODS[name])(*args[1:], **kwargs)


UFUNC_OPS = {
    "add": "add", "subtract": "sub", "multiply": "mul", "divide": "div", "negative": "neg", "maximum": "maximum",
    "minimum": "minimum", "exp": "exp", "log": "log", "log1p": "log1p", "expm1": "expm1", "sqrt": "sqrt",
    "tanh": "tanh", "absolute": "abs", "fabs": "abs", "sign": "sign", "less": "lt", "less_equal": "le",
    "greater": "gt", "greater_equal": "ge", "equal": "eq", "not_equal": "ne", "logical_and": "logical_and",
    "logical_or": "logical_or", "logical_not": "logical_not", "invert": "logical_not",
}  # fmt: skip
UFUNC_DECLARATIONS: dict[str, Callable[..., Value]] = {
    "power": declare.power, "float_power": declare.power, "matmul": declare.matmul,
    "square": lambda x: declare.elementwise("mul", x, x), "positive": declare.as_value,
}  # fmt: skip
ARRAY_METHODS = {
    "sum": "sum", "mean": "mean", "max": "max", "amax": "amax", "min": "min", "amin": "amin", "argmax": "argmax",
    "reshape": "reshape", "transpose": "transpose", "dot": "__matmul__", "astype": "astype",
}  # fmt: skip


def unwrap(operand: Any) -> Any:
    """The graph value of a symbol; anything else as it is."""
    return operand.ir if isinstance(operand, Symbol) else operand


def elementwise(op: str, *operands: Any) -> Symbol:
    """The elementwise op applied to symbols, Python numbers and arrays."""
    return Symbol(declare.elementwise(op, *map(unwrap, operands)))


def where(condition: Any, x: Any, y: Any) -> Symbol:
    """`x` where the bool `condition` holds, else `y`; the three broadcast against each other."""
    return Symbol(declare.where(*map(unwrap, (condition, x, y))))


def _one_sequence(arguments: tuple[Any, ...]) -> Sequence[Any]:
    if len(arguments) == 1 and isinstance(arguments[0], (tuple, list)):
        return arguments[0]
    return arguments
