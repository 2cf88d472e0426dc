"""Tensors in lists and tuples, nested as the user likes, and in the arguments of functions of the user."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

__all__ = ["is_group", "leaves", "like", "misfit", "outline"]


def is_group(item: Any) -> bool:
    """Whether the item is a list or a tuple, named ones included."""
    return isinstance(item, (list, tuple))


def leaves(structure: Any) -> list[Any]:
    """What is in a structure and is no list or tuple, in order."""
    return [leaf for part in structure for leaf in leaves(part)] if is_group(structure) else [structure]


def like(structure: Any, items: Iterator[Any]) -> Any:
    """A structure of the same lists and tuples with the next of `items` in each place."""
    if not is_group(structure):
        return next(items)
    parts = [like(part, items) for part in structure]
    named: Callable[..., Any] | None = getattr(structure, "_make", None)
    return named(parts) if named else type(structure)(parts)


def outline(structure: Any) -> str:
    """The structure for messages, without what is in it: `(*, [*, *])`; lists and tuples look alike."""
    return f"({', '.join(map(outline, structure))})" if is_group(structure) else "*"


def misfit(function: Callable[..., Any], arguments: Sequence[Any], options: Mapping[str, Any] | None = None) -> str:
    """Why a function cannot be called with these arguments; nothing if it can, or if its signature is not known."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return ""
    try:
        signature.bind(*arguments, **(options or {}))
    except TypeError as error:
        name = getattr(function, "__name__", type(function).__name__)
        return f"{name}{signature} is called with {len(arguments)} arguments: {error}"
    return ""
