"""Declaring nodes: Python's and NumPy's operands become typed values here, by one set of rules.

Rules. Python numbers are weakly typed: they take the dtype of the other operand, but a float beside an integer tensor
makes the result float32, as in PyTorch. NumPy arrays and lists become constants in the other operand's dtype if they
are of the same kind or a lower one (float64 beside float32, int64 beside float32). A bool tensor is promoted to the
other operand's dtype. Two tensors of different numeric dtypes are an error: `.astype` says which one is meant.
Functions over the reals (`exp`, `mean`, `/` ...) turn integers and bools into float32.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

import graphc.ops  # noqa: F401  (fills the registry)
from graphc.dsl.origin import here
from graphc.errors import AttributeValueError, DTypeError, ShapeError, SymbolError
from graphc.ir.builder import Builder, broadcast_shapes, explain
from graphc.ir.dims import Dim, Poly, as_dim, divide, product
from graphc.ir.graph import Value
from graphc.ir.op import OPS
from graphc.ir.types import DType, as_dtype, bool_, f32, i64

Operand: TypeAlias = Any  # a Value, a Python number, or whatever NumPy makes an array of

REAL_FUNCTIONS = frozenset(
    """
    div mean log_softmax pow reciprocal sqrt rsqrt exp expm1 log log1p log2 sin cos tan asin acos atan sinh cosh tanh
    erf isnan isinf isfinite sigmoid softplus heaviside leaky_relu prelu elu selu softsign gelu silu hardtanh
    hardsigmoid gaussian scalar_function
    """.split()
)


def constant(value: Any, dtype: DType | None = None) -> Value:
    """A constant of an array-like. Python floats become float32 unless `dtype` says otherwise; arrays keep theirs."""
    builder = Builder(here())
    if dtype is None and not isinstance(value, (np.ndarray, np.generic)):
        array = _as_array(value)
        dtype = f32 if array.dtype == np.float64 else None
        value = array
    return builder.constant(_as_array(value), dtype)


def as_value(operand: Operand) -> Value:
    """The operand as a value on its own, with no other operand to take a dtype from."""
    if isinstance(operand, Value):
        return operand
    if isinstance(operand, bool):
        raise SymbolError(
            f"expected a symbol, got the Python bool {operand}; `==` and `!=` between symbols compare identity, "
            "write gc.equal(a, b) for an elementwise comparison"
        )
    return constant(operand)


def promote(op: str, operands: Sequence[Operand]) -> list[Value]:
    """Operands of an elementwise op as values of one dtype, by the rules in the module docstring."""
    builder = Builder(here())
    target = _common_dtype(op, operands, builder)
    result = []
    for operand in operands:
        if not isinstance(operand, Value):
            result.append(builder.constant(_checked(op, operand, target), target))
        elif operand.type.dtype == target:
            result.append(operand)
        else:
            result.append(cast(operand, target))
    return result


def elementwise(op: str, *operands: Operand, **attributes: Any) -> Value:
    """Apply the elementwise op to operands brought to one dtype and one shape."""
    return Builder(here()).elementwise(op, *promote(op, operands), **attributes)


def rounded(op: str, value: Operand) -> Value:
    """The rounding `op` of a float; integers are whole already."""
    value = as_value(value)
    return elementwise(op, value) if value.type.dtype.is_float else value


def nearest(value: Operand, decimals: int = 0) -> Value:
    """The nearest whole number, halves to the even one. Raises AttributeValueError for `decimals` other than 0."""
    value = as_value(value)
    if decimals != 0:
        reason = f"decimals={decimals}: symbols are rounded to whole numbers; write gc.round(x * 100) / 100"
        raise AttributeValueError(explain("round", [value.type], reason, here()))
    return rounded("round", value)


def clip(value: Operand, lower: Operand, upper: Operand) -> Value:
    """min(max(value, lower), upper); a bound that is None does not bound."""
    value = as_value(value)
    if lower is None and upper is None:
        reason = "both bounds are None; give a lower bound, an upper bound or both"
        raise AttributeValueError(explain("clip", [value.type], reason, here()))
    if not value.type.dtype.is_float and (lower is None or upper is None):
        return elementwise("minimum", value, upper) if lower is None else elementwise("maximum", value, lower)
    return elementwise("clip", value, -np.inf if lower is None else lower, np.inf if upper is None else upper)


def where(condition: Operand, x: Operand, y: Operand) -> Value:
    """`where` over a bool condition; the two choices are brought to one dtype."""
    chosen = condition if isinstance(condition, Value) else constant(condition)
    if chosen.type.dtype != bool_:
        raise DTypeError(
            explain(
                "where",
                [chosen.type],
                "the condition must be bool; write x != 0 with gc.not_equal, or .astype('bool')",
                here(),
            )
        )
    return Builder(here()).elementwise("where", chosen, *promote("where", (x, y)))


def cast(value: Operand, dtype: str | DType | type | np.dtype[Any]) -> Value:
    """The value in another dtype; the value itself when it has it already."""
    value, target = as_value(value), as_dtype(dtype)
    if value.type.dtype == target:
        return value
    return apply("cast", value, dtype=target)


def apply(op: str, *inputs: Value, **attributes: Any) -> Value:
    """Apply an op with one output to values as they are."""
    result = Builder(here()).apply(OPS[op], inputs, attributes)
    assert isinstance(result, Value)
    return result


def power(base: Operand, exponent: Operand) -> Value:
    """`base ** exponent`: products and roots for a number that is a multiple of 0.5 up to 64, else the op `pow`."""
    number = _short_exponent(exponent)
    if number is None:
        return elementwise("pow", base, exponent)
    base = as_value(base)
    if number == 0:
        return Builder(here()).full(1.0, base.type)
    if number < 0:
        return elementwise("div", 1.0, power(base, -number))
    whole, half = int(number), number != int(number)
    factors = [elementwise("sqrt", base)] if half else []
    square = base
    while whole:
        if whole % 2:
            factors.append(square if not half else _real(square))
        whole //= 2
        if whole:
            square = elementwise("mul", square, square)
    result = factors[0]
    for factor in factors[1:]:
        result = elementwise("mul", result, factor)
    return result


def matmul(x: Operand, y: Operand, transpose_a: bool = False, transpose_b: bool = False) -> Value:
    """Matrix product over the last two axes; a vector operand is a row (left) or a column (right), as in NumPy."""
    a, b = promote("matmul", (x, y))
    ranks = a.type.rank, b.type.rank
    if 0 in ranks:
        raise ShapeError(explain("matmul", [a.type, b.type], "operands must have at least one axis; use *", here()))
    if ranks[0] == 1:
        a = reshape(a, (1, a.type.shape[0]))
    if ranks[1] == 1:
        b = reshape(b, (b.type.shape[0], 1))
    batch = max(a.type.rank, b.type.rank) - 2
    if (a.type.rank, b.type.rank) != (2, 2):
        a, b = _batched(a, batch, b), _batched(b, batch, a)
    result = apply("matmul", a, b, transpose_a=transpose_a, transpose_b=transpose_b)
    kept = list(result.type.shape)
    if ranks[1] == 1:
        del kept[-1]
    if ranks[0] == 1:
        del kept[batch]
    return reshape(result, tuple(kept))


def reduce(op: str, value: Operand, axis: int | Sequence[int] | None, keepdims: bool, **attributes: Any) -> Value:
    """Reduce over `axis` (all axes for None; negative ones count from the end). No axes leave the value as it is."""
    value = as_value(value)
    if op == "mean":
        value = _real(value)
    elif op == "sum" and value.type.dtype == bool_:
        value = cast(value, i64)
    axes = normalise_axes(op, value, axis)
    if not axes:
        return value
    return apply(op, value, axes=axes, keepdims=keepdims, **attributes)


def reshape(value: Operand, shape: Sequence[int | str | Poly]) -> Value:
    """The elements in another shape; one dimension may be -1. Dimensions may be symbols."""
    value = as_value(value)

    def refused(reason: str) -> ShapeError:
        return ShapeError(explain("reshape", [value.type], reason, here()))

    unknown = [i for i, d in enumerate(shape) if isinstance(d, (int, np.integer)) and d == -1]
    if len(unknown) > 1:
        raise refused(f"only one dimension can be -1, got {tuple(shape)}")
    try:
        dims: list[Dim] = [1 if i in unknown else as_dim(d) for i, d in enumerate(shape)]
    except ShapeError as error:
        raise refused(f"{error}; one dimension may be -1, for what is left") from None
    if unknown:
        known = product(dims)
        if known == 0:
            raise refused(f"{tuple(shape)} is ambiguous: any size in the place of -1 has 0 elements; give the size")
        rest = divide(value.type.size, known)
        if rest is None:
            raise refused(f"{value.type.size} elements do not divide into {tuple(shape)}")
        dims[unknown[0]] = rest
    if tuple(dims) == value.type.shape:
        return value
    return apply("reshape", value, shape=tuple(dims))


def transpose(value: Operand, permutation: Sequence[int] | None = None) -> Value:
    """Axes in the order `permutation` (reversed for None)."""
    value = as_value(value)
    rank = value.type.rank
    given = tuple(range(rank))[::-1] if permutation is None else tuple(operator.index(p) for p in permutation)
    axes = tuple(p + rank if p < 0 else p for p in given)
    if sorted(axes) != list(range(rank)):
        raise ShapeError(explain("transpose", [value.type], f"{given} is no permutation of its {rank} axes", here()))
    return value if axes == tuple(range(rank)) else apply("transpose", value, permutation=axes)


def move_axis(value: Value, source: int, target: int) -> Value:
    """The value with axis `source` moved to position `target`; both may be negative."""
    order = list(range(value.type.rank))
    axis = order.pop(source)
    order.insert(target % value.type.rank, axis)
    return transpose(value, order)


def broadcast_to(value: Operand, shape: Sequence[int | str | Poly]) -> Value:
    """The value repeated along axes of size 1 and new leading axes until it has `shape`."""
    return Builder(here()).broadcast(as_value(value), tuple(as_dim(d) for d in shape))


def normalise_axes(op: str, value: Value, axis: int | Sequence[int] | None) -> tuple[int, ...]:
    """Axes as sorted non-negative numbers, all for None.

    Raises ShapeError for an axis out of range or given twice, AttributeValueError for what is no axis.
    """
    rank = value.type.rank
    if axis is None:
        return tuple(range(rank))
    try:
        named: Sequence[Any] = axis if isinstance(axis, (tuple, list, np.ndarray)) else (axis,)
        given = [operator.index(a) for a in named]
    except TypeError:
        reason = f"axis={_shorten(axis)} is neither a whole number nor a tuple of them"
        raise AttributeValueError(explain(op, [value.type], reason, here())) from None
    axes = sorted(a + rank if a < 0 else a for a in given)
    if any(not 0 <= a < rank for a in axes):
        raise ShapeError(explain(op, [value.type], f"axis {axis} is out of range for {rank} axes", here()))
    if len(set(axes)) != len(axes):
        raise ShapeError(explain(op, [value.type], f"an axis is given twice in {axis}", here()))
    return tuple(axes)


def one_axis(op: str, value: Value, axis: int) -> int:
    """An axis as a non-negative number. Raises like `normalise_axes`, and AttributeValueError unless it is just one."""
    axes = None if axis is None else normalise_axes(op, value, axis)
    if axes is None or len(axes) != 1:
        raise AttributeValueError(explain(op, [value.type], f"axis={axis}: it works along one axis; name it", here()))
    return axes[0]


def _as_array(value: Any) -> np.ndarray[Any, Any]:
    try:
        array = np.asarray(value)
        as_dtype(array.dtype)
    except (DTypeError, ValueError, TypeError) as error:
        if isinstance(error, SymbolError):
            raise
        raise DTypeError(f"cannot make a constant of {type(value).__name__} {_shorten(value)}: {error}") from None
    return array


def _common_dtype(op: str, operands: Sequence[Operand], builder: Builder) -> DType:
    types = [operand.type for operand in operands if isinstance(operand, Value)]
    dtypes = {type_.dtype for type_ in types}
    numeric = dtypes - {bool_}
    if len(numeric) > 1:
        names = " and ".join(sorted(d.numpy_name for d in numeric))
        raise DTypeError(explain(op, types, f"operands are {names}; convert one with .astype(...)", builder.origin))
    common = next(iter(numeric or dtypes), None)
    loose = [operand for operand in operands if not isinstance(operand, Value)]
    for operand in loose:
        common = _widened(op, operand, common)
    assert common is not None
    if op in REAL_FUNCTIONS and not common.is_float:
        return f32
    return common


def _widened(op: str, operand: Operand, common: DType | None) -> DType:
    """The dtype of an op on a tensor of dtype `common` and a Python number or array."""
    if isinstance(operand, bool) and common != bool_ and op != "where":
        raise DTypeError(
            f"{op}: a Python bool ({operand}) beside a {common} symbol; `==` between symbols compares "
            "identity, write gc.equal(a, b) for an elementwise comparison"
        )
    found = as_dtype(_as_array(operand).dtype)
    strong = isinstance(operand, (np.ndarray, np.generic))
    if common is None:
        return found if strong or not found.is_float else f32
    if found.is_float and not common.is_float:
        return found if strong else f32
    if common == bool_:
        return found
    return common


def _checked(op: str, operand: Operand, target: DType) -> np.ndarray[Any, Any]:
    """The operand as an array of dtype `target`. Raises DTypeError when an integer does not fit it."""
    array = _as_array(operand)
    if target.is_integer and array.size and array.dtype.kind in "iu":
        limits = np.iinfo(target.numpy)
        if array.min() < limits.min or array.max() > limits.max:
            raise DTypeError(f"{op}: {_shorten(operand)} does not fit {target.numpy_name}; use .astype('int64')")
    return array.astype(target.numpy)


def _real(value: Value) -> Value:
    return value if value.type.dtype.is_float else cast(value, f32)


def _short_exponent(exponent: Operand) -> float | None:
    """A Python number whose power is a few products and at most one square root, else None."""
    if not isinstance(exponent, (int, float, np.number)):
        return None
    number = float(exponent)
    return number if abs(number) <= 64 and number * 2 == int(number * 2) else None


def _batched(value: Value, batch: int, other: Value) -> Value:
    """`value` with the leading axes that NumPy's broadcasting of both operands' batch axes gives."""
    try:
        lead = broadcast_shapes([value.type.shape[:-2], other.type.shape[:-2]])
    except ShapeError as error:
        raise ShapeError(explain("matmul", [value.type, other.type], str(error), here())) from None
    assert len(lead) == batch
    return broadcast_to(value, (*lead, *value.type.shape[-2:]))


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
