"""Affine index maps over named axes: the text that windows are written in, and what it means.

    equation = map map "->" map ("where" size ("," size)*)?      # the two operands, and the result
    map      = "[" (index ("," index)*)? "]"
    index    = affine expression of axes, such as n, 2*y+ky-1 or 0
    size     = axis "<" integer                                  # of an axis that no index names alone

Each axis runs over 0 .. size - 1. An index that is one axis alone takes its size from the tensor's dimension there. The
meaning is a sum over all points of all axes,

    result[map of the result] += first[map of the first operand] * second[map of the second operand],

without the points at which one of the indices lies outside its tensor: that is padding.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from graphc.errors import AttributeValueError, ShapeError
from graphc.ir.dims import Dim, Poly, format_shape
from graphc.kernel.expr import Affine
from graphc.kernel.parser import RESERVED

IndexMap = tuple[Affine, ...]

_EQUATION = re.compile(r"\s*\[([^]]*)\]\s*\[([^]]*)\]\s*->\s*\[([^]]*)\]\s*(?:where\s+(.+?))?\s*\Z")
_TERM = re.compile(r"\s*([+-]?)\s*(?:(\d+)\s*\*\s*)?([A-Za-z_]\w*|\d+)\s*", re.ASCII)
_SIZE = re.compile(r"\s*([A-Za-z_]\w*)\s*<\s*(\d+)\s*\Z", re.ASCII)
_TENSORS = ("operand 0", "operand 1", "the result")


@dataclass(frozen=True)
class Equation:
    """A parsed equation: the index maps of both operands and of the result, and the sizes that its text gives.

    `axes` are all axes in the order in which the text names them first.
    """

    maps: tuple[IndexMap, IndexMap, IndexMap]
    axes: tuple[str, ...]
    given: Mapping[str, int]


@lru_cache(maxsize=512)
def parse_equation(text: str) -> Equation:
    """Read an equation. Raises AttributeValueError for another text, saying what is wrong with it."""
    found = _EQUATION.match(text)
    if found is None:
        raise AttributeValueError(f"the equation {text!r} is not of the form '[n, y+k] [o, k] -> [n, o, y]'")
    axes: dict[str, None] = {}
    first, second, result = (tuple(_indices(text, part, axes)) for part in found.groups()[:3])
    given: dict[str, int] = {}
    for part in (found[4] or "").split(",") if found[4] else ():
        size = _SIZE.match(part)
        if size is None or size[1] not in axes:
            raise AttributeValueError(f"the equation {text!r}: {part.strip()!r} is not the size of one of its axes")
        given[size[1]] = int(size[2])
    return Equation((first, second, result), tuple(axes), given)


def _indices(text: str, part: str, axes: dict[str, None]) -> Iterator[Affine]:
    for index in part.split(",") if part.strip() else ():
        total, position = Affine(), 0
        while position < len(index) or not index:
            term = _TERM.match(index, position)
            if term is None or (position and not term[1]):
                raise AttributeValueError(f"the equation {text!r}: {index.strip()!r} is not an index such as 2*y+k-1")
            sign, factor, name = -1 if term[1] == "-" else 1, int(term[2] or 1), term[3]
            if name.isdigit():
                total = total + sign * factor * int(name)
            elif name in RESERVED:
                raise AttributeValueError(f"the equation {text!r}: {name!r} cannot name an axis")
            else:
                axes[name] = None
                total = total + Affine.of({name: sign * factor})
            position = term.end()
        yield total


def plain_axis(index: Affine) -> str | None:
    """The axis that an index is, alone and as it is, else None."""
    return index.terms[0][0] if len(index.terms) == 1 and index.terms[0][1] == 1 and index.const == 0 else None


def axis_sizes(equation: Equation, shapes: Sequence[tuple[Dim, ...]]) -> dict[str, Dim]:
    """The size of each axis, in order, for the shapes of both operands and of the result.

    Raises ShapeError for ranks and sizes that differ, and for an axis whose size nothing tells.
    """
    sizes: dict[str, Dim] = dict(equation.given)
    source = dict.fromkeys(sizes, "the equation")
    for what, indices, shape in zip(_TENSORS, equation.maps, shapes, strict=True):
        if len(indices) != len(shape):
            raise ShapeError(f"{what} of shape {format_shape(shape)} has not the {len(indices)} axes of its index map")
        for index, dim in zip(indices, shape, strict=True):
            name = plain_axis(index)
            if name is None:
                continue
            if sizes.setdefault(name, dim) != dim:
                raise ShapeError(f"axis {name!r} has size {sizes[name]} in {source[name]} and {dim} in {what}")
            source.setdefault(name, what)
    for name in equation.axes:
        if name not in sizes:
            raise ShapeError(f"nothing tells the size of axis {name!r}; write it behind the equation: where {name} < 3")
    return {name: sizes[name] for name in equation.axes}


def normalised(equation: Equation, sizes: Mapping[str, Dim]) -> tuple[IndexMap, IndexMap, IndexMap]:
    """The index maps without axes of size 1 in compound indices: they are 0 there."""
    zero = {name: Affine() for name, size in sizes.items() if size == 1}

    def simple(index: Affine) -> Affine:
        return index if plain_axis(index) is not None else index.replace(zero)

    first, second, result = (tuple(map(simple, indices)) for indices in equation.maps)
    return first, second, result


def extremes(index: Affine, sizes: Mapping[str, Dim]) -> tuple[Dim, Dim]:
    """The least and the greatest value of an index over all points."""
    least: Dim = index.const
    greatest: Dim = index.const
    for name, coefficient in index.terms:
        reach = (sizes[name] - 1) * coefficient
        least, greatest = least + (reach if coefficient < 0 else 0), greatest + (reach if coefficient > 0 else 0)
    return least, greatest


def is_not_negative(dim: Dim) -> bool:
    """True if a dimension is seen to be >= 0 for any sizes of at least 1 of its symbols."""
    if not isinstance(dim, Poly):
        return dim >= 0
    return all(c > 0 for names, c in dim.terms if names) and sum(c for _, c in dim.terms) >= 0


def axes_of(indices: Iterable[Affine]) -> set[str]:
    """All axes of some indices."""
    return {name for index in indices for name, _ in index.terms}


def positions(
    indices: IndexMap, axes: Sequence[str], sizes: Mapping[str, int], shape: Sequence[int]
) -> tuple[Any, Any]:
    """Positions in a tensor of `shape` at every point of `axes`, one array for each index, and where they are in it."""
    grid = dict(zip(axes, np.ix_(*(np.arange(sizes[name]) for name in axes)), strict=True))
    found, inside = [], np.ones([sizes[name] for name in axes], bool)
    for index, size in zip(indices, shape, strict=True):
        value = np.asarray(index.const)
        for name, coefficient in index.terms:
            value = value + coefficient * grid[name]
        inside &= (value >= 0) & (value < size)
        found.append(np.broadcast_to(np.clip(value, 0, max(size - 1, 0)), inside.shape))
    return tuple(found), inside
