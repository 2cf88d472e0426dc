"""Tensors in lists and tuples, nested as the user likes: taking them apart and putting others in their places."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["is_group", "leaves", "like", "outline"]


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
