"""NumPy's functions on symbols (`np.concatenate([x, y])`, `np.var(x, axis=0)`), by NumPy's names and meaning.

Where PyTorch and NumPy disagree, these follow NumPy and `gc.` functions PyTorch: `np.var` divides by the count,
`gc.var` by one less.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from graphc.dsl import declare, indexing, products, reducing, shaping
from graphc.errors import SymbolError
from graphc.ir.graph import Value


def _var(x: Any, axis: Any = None, ddof: int = 0, keepdims: bool = False) -> Value:
    return reducing.var(x, axis, keepdims, correction=ddof)


def _std(x: Any, axis: Any = None, ddof: int = 0, keepdims: bool = False) -> Value:
    return reducing.std(x, axis, keepdims, correction=ddof)


def _sum(x: Any, axis: Any = None, keepdims: bool = False) -> Value:
    return declare.reduce("sum", x, axis, keepdims)


def _mean(x: Any, axis: Any = None, keepdims: bool = False) -> Value:
    return declare.reduce("mean", x, axis, keepdims)


def _sort(x: Any, axis: int | None = -1) -> Value:
    return indexing.sort(x, axis)


def _argsort(x: Any, axis: int | None = -1) -> Value:
    return indexing.argsort(x, axis)


def _cumsum(x: Any, axis: int | None = None) -> Value:
    return reducing.cumsum(x, axis)


def _cumprod(x: Any, axis: int | None = None) -> Value:
    return reducing.cumprod(x, axis)


def _einsum(equation: str, *operands: Any, optimize: Any = False) -> Value:
    return products.einsum(equation, *operands)


def _split(x: Any, indices_or_sections: int | Sequence[int], axis: int = 0) -> list[Value]:
    return list(shaping.split(x, indices_or_sections, axis))


ARRAY_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sum": _sum, "mean": _mean, "max": reducing.max, "min": reducing.min, "amax": reducing.amax,
    "amin": reducing.amin, "argmax": reducing.argmax, "argmin": reducing.argmin, "prod": reducing.prod, "var": _var,
    "std": _std, "any": reducing.any, "all": reducing.all, "norm": reducing.norm, "cumsum": _cumsum,
    "cumprod": _cumprod, "searchsorted": reducing.searchsorted, "reshape": declare.reshape,
    "transpose": declare.transpose, "broadcast_to": declare.broadcast_to, "where": declare.where,
    "clip": declare.clip, "round": declare.nearest, "astype": declare.cast,
    "expand_dims": shaping.expand_dims, "squeeze": shaping.squeeze, "swapaxes": shaping.swapaxes,
    "moveaxis": shaping.moveaxis, "ravel": shaping.ravel, "flip": shaping.flip, "roll": shaping.roll,
    "tile": shaping.tile, "repeat": shaping.repeat, "concatenate": shaping.concatenate, "stack": shaping.stack,
    "split": _split, "pad": shaping.pad, "tril": shaping.tril, "triu": shaping.triu, "diagonal": shaping.diagonal,
    "zeros_like": shaping.zeros_like, "ones_like": shaping.ones_like, "full_like": shaping.full_like,
    "take": indexing.take, "take_along_axis": indexing.take_along_axis, "sort": _sort, "argsort": _argsort,
    "einsum": _einsum, "dot": products.dot, "tensordot": products.tensordot, "outer": products.outer,
    "trace": products.trace,
}  # fmt: skip


def call(function: Any, args: Sequence[Any], kwargs: dict[str, Any], unwrap: Callable[[Any], Any]) -> Any:
    """The value (or list of values) of a NumPy function; `unwrap` gives the values of symbols among the arguments.

    Raises SymbolError for a function that graphc does not have, and for arguments that its own does not take.
    """
    name = function.__name__
    if name in ("shape", "ndim", "size"):  # what a program asks of its inputs too
        raise SymbolError(f"np.{name}(x): a symbol is no array; read x.{name}, and call programs with arrays")
    if name not in ARRAY_FUNCTIONS:
        known = ", ".join(sorted(ARRAY_FUNCTIONS))
        raise SymbolError(f"np.{name} is not available for symbols; graphc has: {known}")
    own = ARRAY_FUNCTIONS[name]
    known_names = list(inspect.signature(own).parameters)
    if unknown := [k for k in kwargs if k not in known_names]:
        raise SymbolError(f"np.{name}: the argument {sorted(unknown)[0]!r} is not available for symbols")
    return own(*unwrap(list(args)), **{k: unwrap(v) for k, v in kwargs.items()})
