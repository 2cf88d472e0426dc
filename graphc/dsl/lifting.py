"""Functions of values as functions of symbols: operands are unwrapped, results wrapped, names and help kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, overload

from graphc.dsl.symbol import Symbol, unwrap_all, wrap
from graphc.ir.graph import Value

P = ParamSpec("P")


@overload
def on_symbols(function: Callable[P, Value]) -> Callable[P, Symbol]: ...
@overload
def on_symbols(function: Callable[P, tuple[Value, Value]]) -> Callable[P, tuple[Symbol, Symbol]]: ...
@overload
def on_symbols(function: Callable[P, tuple[Value, ...]]) -> Callable[P, tuple[Symbol, ...]]: ...
def on_symbols(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` for symbols (in lists too) where it takes values; it returns a symbol or a tuple of them."""

    @wraps(function)
    def lifted(*args: Any, **kwargs: Any) -> Any:
        return wrap(function(*map(unwrap_all, args), **{name: unwrap_all(arg) for name, arg in kwargs.items()}))

    return lifted
