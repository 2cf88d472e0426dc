"""Symbols: the tensors that users write with, which behave like NumPy arrays as far as a static graph allows.

`==` and `!=` between symbols compare identity, so that symbols can be keys of `updates={W: ...}`; elementwise
comparisons are `gc.equal` and `gc.not_equal`. Comparing a symbol with a number or an array by `==` is an error, for
the answer would always be False. `<`, `<=`, `>` and `>=` are elementwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import numpy as np

from graphc.dsl import array_functions, declare, indexing, products, reducing, shaping
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

    def __mod__(self, other: Any) -> Symbol:
        return elementwise("mod", self, other)

    def __rmod__(self, other: Any) -> Symbol:
        return elementwise("mod", other, self)

    def __floordiv__(self, other: Any) -> Symbol:
        return elementwise("floordiv", self, other)

    def __rfloordiv__(self, other: Any) -> Symbol:
        return elementwise("floordiv", other, self)

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

    def __round__(self, digits: None = None) -> Symbol:
        return self.round(digits or 0)

    def __floor__(self) -> Symbol:
        return Symbol(declare.rounded("floor", self.ir))

    def __ceil__(self) -> Symbol:
        return Symbol(declare.rounded("ceil", self.ir))

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

    def __xor__(self, other: Any) -> Symbol:
        return elementwise("logical_xor", self, other)

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

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
        """The elements in another dtype.

        Floats lose their fraction when they become integers; one beyond the integer's range becomes some number, not
        always the same. Integers wrap around. To bool, what is not 0 is true.
        """
        return Symbol(declare.cast(self.ir, dtype))

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Symbol:
        """The sum over `axis`, over all axes for None."""
        return Symbol(declare.reduce("sum", self.ir, axis, keepdims))

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Symbol:
        """The mean over `axis`, over all axes for None; float32 for integers and bools."""
        return Symbol(declare.reduce("mean", self.ir, axis, keepdims))

    def max(self, axis: Axis = None, keepdims: bool = False) -> Symbol:
        """The largest element along `axis`; see `gc.max` for ties."""
        return Symbol(reducing.max(self.ir, axis, keepdims))

    def min(self, axis: Axis = None, keepdims: bool = False) -> Symbol:
        """The smallest element along `axis`; see `gc.min` for ties."""
        return Symbol(reducing.min(self.ir, axis, keepdims))

    def amax(self, axis: Axis = None, keepdims: bool = False) -> Symbol:
        """The largest element over `axis`; equal ones share the gradient."""
        return Symbol(reducing.amax(self.ir, axis, keepdims))

    def amin(self, axis: Axis = None, keepdims: bool = False) -> Symbol:
        """The smallest element over `axis`; equal ones share the gradient."""
        return Symbol(reducing.amin(self.ir, axis, keepdims))

    def round(self, decimals: int = 0) -> Symbol:
        """The nearest whole number, halves to the even one. Raises AttributeValueError for `decimals` other than 0."""
        return Symbol(declare.nearest(self.ir, decimals))

    def clip(self, lower: Any = None, upper: Any = None) -> Symbol:
        """`minimum(maximum(x, lower), upper)`; a bound may be None. See `gc.clip` for the gradient."""
        return Symbol(declare.clip(self.ir, unwrap(lower), unwrap(upper)))

    def argmax(self, axis: int | None = None) -> Symbol:
        """The position of the first largest element along `axis`, for None in the flattened tensor."""
        return Symbol(reducing.argmax(self.ir, axis))

    def argmin(self, axis: int | None = None) -> Symbol:
        """The position of the first smallest element along `axis`, for None in the flattened tensor."""
        return Symbol(reducing.argmin(self.ir, axis))

    def prod(self, axis: Axis = None, keepdims: bool = False) -> Symbol:
        """The product over `axis`, over all axes for None."""
        return Symbol(reducing.prod(self.ir, axis, keepdims))

    def var(self, axis: Axis = None, keepdims: bool = False, *, correction: int = 1) -> Symbol:
        """The variance over `axis`, unbiased unless `correction=0`."""
        return Symbol(reducing.var(self.ir, axis, keepdims, correction=correction))

    def std(self, axis: Axis = None, keepdims: bool = False, *, correction: int = 1) -> Symbol:
        """The standard deviation over `axis`; see `var`."""
        return Symbol(reducing.std(self.ir, axis, keepdims, correction=correction))

    def any(self, axis: Axis = None, keepdims: bool = False) -> Symbol:
        """Whether an element over `axis` is true or not 0."""
        return Symbol(reducing.any(self.ir, axis, keepdims))

    def all(self, axis: Axis = None, keepdims: bool = False) -> Symbol:
        """Whether all elements over `axis` are true or not 0."""
        return Symbol(reducing.all(self.ir, axis, keepdims))

    def cumsum(self, axis: int | None = None) -> Symbol:
        """The running sum along `axis`, for None of the flattened tensor."""
        return Symbol(reducing.cumsum(self.ir, axis))

    def squeeze(self, axis: Axis = None) -> Symbol:
        """The tensor without axes of size 1: those named, or all of them."""
        return Symbol(shaping.squeeze(self.ir, axis))

    def swapaxes(self, axis1: int, axis2: int) -> Symbol:
        """Two axes exchanged."""
        return Symbol(shaping.swapaxes(self.ir, axis1, axis2))

    def ravel(self) -> Symbol:
        """All elements along one axis."""
        return Symbol(shaping.ravel(self.ir))

    def repeat(self, repeats: int, axis: int | None = None) -> Symbol:
        """Each element `repeats` times in a row along `axis`, for None of the flattened tensor."""
        return Symbol(shaping.repeat(self.ir, repeats, axis))

    def take(self, indices: Any, axis: int | None = None) -> Symbol:
        """The slices that `indices` name along `axis`, for None elements of the flattened tensor."""
        return Symbol(indexing.take(self.ir, unwrap(indices), axis))

    def dot(self, other: Any) -> Symbol:
        """NumPy's dot product with another tensor."""
        return Symbol(products.dot(self.ir, unwrap(other)))

    def __getitem__(self, key: Any) -> Symbol:
        return Symbol(indexing.index(self.ir, unwrap_all(key)))

    # What Python would need a concrete value for.

    def __bool__(self) -> NoReturn:
        self._refuse(
            "if x, while x, a and b, a < x < b",
            "is not known while the graph is declared; write gc.where(condition, a, b) to choose elements, "
            "gc.cond(condition, f, g) or gc.while_loop to choose what runs, and (a < x) & (x < b)",
        )

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
        self._refuse(
            "for v in x",
            "is not a sequence; write whole-array operations such as gc.sum(x, axis=0), or gc.scan along axis 0",
        )

    def __len__(self) -> NoReturn:
        self._refuse("len(x)", f"may not be known before a program runs; read x.shape, {format_shape(self.shape)}")

    def __contains__(self, item: object) -> NoReturn:
        self._refuse("v in x", "has no elements before a program runs; write gc.sum(gc.equal(x, v)) > 0")

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        self._refuse(
            "np.asarray(x)",
            "has no elements before a program runs; compile it as an output and call the program (parameters: W.value)",
        )

    def __setitem__(self, key: object, value: object) -> NoReturn:
        self._refuse("x[...] = y", "never changes; write y = gc.where(mask, new, x), or give updates={W: new} a state")

    def __delitem__(self, key: object) -> NoReturn:
        self._refuse("del x[...]", "never changes; index what is to stay")

    def __format__(self, spec: str) -> str:
        if spec:
            self._refuse(f"format(x, {spec!r})", "has no value before a program runs; gc.print shows it at every call")
        return repr(self)

    if not TYPE_CHECKING:  # a type checker would take every attribute to exist

        def __getattr__(self, name: str) -> NoReturn:
            about = f"{type(self).__name__!r} object has no attribute {name!r}"
            if name in ELSEWHERE:
                about = f"x.{name}: {self!r} has none: {ELSEWHERE[name]}"
            raise AttributeError(about, name=name, obj=self)

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
        return wrap(array_functions.call(function, args, kwargs, unwrap_all))


_NO_VALUE = "it has no value before a program runs; compile it as an output and call the program"
# What other libraries' tensors have under names that users try here.
ELSEWHERE = {
    "item": _NO_VALUE,
    "numpy": _NO_VALUE,
    "tolist": _NO_VALUE,
    "backward": "gradients are symbols too; write gc.grad(loss, [W, b])",
    "grad": "gradients are symbols too; write gc.grad(loss, x)",
    "requires_grad": "gc.grad takes the gradient with respect to any floating symbol",
    "detach": "write gc.stop_gradient(x)",
    "view": "write x.reshape(...)",
    "permute": "write x.transpose(...)",
    "t": "write x.T",
    "dim": "write x.ndim",
    "unsqueeze": "write x[:, None] or gc.expand_dims(x, axis)",
    "flatten": "write x.reshape(...) or x.ravel(); nn.Flatten keeps the batch",
    "expand": "write gc.broadcast_to(x, shape)",
    "float": "write x.astype('float32')",
    "long": "write x.astype('int64')",
    "int": "write x.astype('int32')",
    "to": "write x.astype(dtype); where it is computed is the program's, gc.compile(..., target=...)",
    "cpu": "where it is computed is the program's: gc.compile(..., target=...)",
    "cuda": "where it is computed is the program's: gc.compile(..., target=...)",
    "copy": "a symbol never changes, so it need not be copied",
    "clone": "a symbol never changes, so it need not be copied",
    "device": "the program that computes it has one: gc.compile(..., target=...)",
    "value": "only parameters and state have values between calls; compile it as an output and call the program",
}

UFUNC_OPS = {
    "add": "add", "subtract": "sub", "multiply": "mul", "divide": "div", "negative": "neg", "maximum": "maximum",
    "minimum": "minimum", "exp": "exp", "log": "log", "log1p": "log1p", "expm1": "expm1", "sqrt": "sqrt",
    "tanh": "tanh", "absolute": "abs", "fabs": "abs", "sign": "sign", "less": "lt", "less_equal": "le",
    "greater": "gt", "greater_equal": "ge", "equal": "eq", "not_equal": "ne", "logical_and": "logical_and",
    "logical_or": "logical_or", "logical_not": "logical_not", "invert": "logical_not", "logical_xor": "logical_xor",
    "bitwise_and": "logical_and", "bitwise_or": "logical_or", "bitwise_xor": "logical_xor", "square": "square",
    "reciprocal": "reciprocal", "floor_divide": "floordiv", "remainder": "mod", "log2": "log2", "sin": "sin",
    "cos": "cos", "tan": "tan", "arcsin": "asin", "arccos": "acos", "arctan": "atan", "sinh": "sinh", "cosh": "cosh",
    "isnan": "isnan", "isinf": "isinf", "isfinite": "isfinite",
}  # fmt: skip
UFUNC_DECLARATIONS: dict[str, Callable[..., Value]] = {
    "power": declare.power, "float_power": declare.power, "matmul": declare.matmul,
    "positive": declare.as_value, "floor": lambda x: declare.rounded("floor", x),
    "ceil": lambda x: declare.rounded("ceil", x), "rint": lambda x: declare.rounded("round", x),
    "heaviside": lambda x, at_zero: declare.elementwise("heaviside", x, at_zero=float(at_zero)),
}  # fmt: skip


def unwrap(operand: Any) -> Any:
    """The graph value of a symbol; anything else as it is."""
    return operand.ir if isinstance(operand, Symbol) else operand


def unwrap_all(operand: Any) -> Any:
    """As `unwrap`, also for symbols inside lists, tuples and slices."""
    if isinstance(operand, (list, tuple)):
        return type(operand)(map(unwrap_all, operand))
    return unwrap(operand)


def wrap(result: Any) -> Any:
    """The symbol of a value, or the symbols of a list or tuple of them."""
    return type(result)(map(Symbol, result)) if isinstance(result, (list, tuple)) else Symbol(result)


def elementwise(op: str, *operands: Any, **attributes: Any) -> Symbol:
    """The elementwise op applied to symbols, Python numbers and arrays."""
    return Symbol(declare.elementwise(op, *map(unwrap, operands), **attributes))


def where(condition: Any, x: Any, y: Any) -> Symbol:
    """`x` where the bool `condition` holds, else `y`; the three broadcast against each other."""
    return Symbol(declare.where(*map(unwrap, (condition, x, y))))


def _one_sequence(arguments: tuple[Any, ...]) -> Sequence[Any]:
    if len(arguments) == 1 and isinstance(arguments[0], (tuple, list)):
        return arguments[0]
    return arguments
