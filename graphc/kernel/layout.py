"""Memory layouts as data: where the element of a tensor with a given index lies.

A layout splits some axes, permutes the resulting parts, and may leave memory unused after any of them:
`[f/64][n][f%64]` keeps panels of 64 columns, each panel row by row; `[c][y]+16[x]+32` has 32 elements between rows
and 16 more between planes, so that neither starts at a multiple of a power of two. Split axes are filled up to whole
panels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.errors import ParseError, ShapeError


@dataclass(frozen=True)
class Part:
    """`index // divisor % modulus` of a logical axis; modulus 0 means that the part is the outermost, not reduced."""

    axis: int
    divisor: int
    modulus: int


@dataclass(frozen=True)
class Layout:
    """A layout of tensors of a rank.

    splits: (axis, size) pairs; an axis named once is split into `index // size` and `index % size`, an axis named
    again (with a size that divides the one before) has its last part split further. permutation: the order in
    memory, outermost first, of all parts (axis by axis, outer parts first). padding: unused elements after all of a
    part's indices, for each part in memory order; empty stands for none at all.
    Raises ShapeError if permutation, splits or padding are not consistent.
    """

    permutation: tuple[int, ...]
    splits: tuple[tuple[int, int], ...] = ()
    padding: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        rank = len(self.permutation) - len(self.splits)
        if sorted(self.permutation) != list(range(len(self.permutation))) or rank < 0:
            raise ShapeError(f"layout permutation {self.permutation} is no permutation of its parts")
        last: dict[int, int] = {}
        for axis, size in self.splits:
            if not 0 <= axis < rank or size < 1 or last.get(axis, size) % size:
                raise ShapeError(f"layout split {(axis, size)} does not fit rank {rank} and the splits before it")
            last[axis] = size
        if tuple(sorted(self.splits, key=lambda s: s[0])) != self.splits:
            raise ShapeError(f"layout splits {self.splits} are not sorted by axis")
        if len(self.padding) not in (0, len(self.permutation)) or min(self.padding, default=0) < 0:
            raise ShapeError(f"layout padding {self.padding} is not a number of elements for each part")
        if not any(self.padding):
            object.__setattr__(self, "padding", ())

    @staticmethod
    def row_major(rank: int) -> Layout:
        """The layout that NumPy calls C order."""
        return Layout(tuple(range(rank)))

    @property
    def rank(self) -> int:
        """Number of logical axes."""
        return len(self.permutation) - len(self.splits)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of all axes, axis by axis, before they are permuted."""
        found = []
        for axis in range(self.rank):
            sizes = [size for a, size in self.splits if a == axis]
            moduli = [0, *sizes]
            found += [Part(axis, d, m // d) for d, m in zip([*sizes, 1], moduli, strict=True)]
        return tuple(found)

    def part_sizes(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Lengths of the parts in memory order, padding not counted. Raises ShapeError for another rank."""
        if len(shape) != self.rank:
            raise ShapeError(f"layout {self} is for rank {self.rank}, not for shape {list(shape)}")
        sizes = [part.modulus or -(-shape[part.axis] // part.divisor) for part in self.parts]
        return tuple(sizes[k] for k in self.permutation)

    def strides(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Elements between neighbours along each part, in memory order."""
        return self._steps(shape)[1:]

    def size(self, shape: Sequence[int]) -> int:
        """Elements of memory for a tensor of this shape, filling and padding counted."""
        return self._steps(shape)[0]

    def _steps(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The elements that all of a layout takes, then from an index of each part to the next."""
        sizes, steps = self.part_sizes(shape), [1]
        for size, unused in zip(reversed(sizes), reversed(self.padding or (0,) * len(sizes)), strict=True):
            steps.append(steps[-1] * size + unused)
        return tuple(reversed(steps))

    def nbytes(self, shape: Sequence[int], itemsize: int) -> int:
        """Bytes of memory for a tensor of this shape."""
        return self.size(shape) * itemsize

    def offset(self, index: Sequence[int], shape: Sequence[int]) -> int:
        """The element of memory that holds `index`. Raises ShapeError for an index beyond the shape."""
        if len(index) != len(shape) or not all(0 <= i < n for i, n in zip(index, shape, strict=True)):
            raise ShapeError(f"index {list(index)} is not in shape {list(shape)}")
        parts, steps = self.parts, self.strides(shape)
        total = 0
        for k, step in zip(self.permutation, steps, strict=True):
            part = parts[k]
            value = index[part.axis] // part.divisor
            total += step * (value % part.modulus if part.modulus else value)
        return total

    def pack(self, array: NDArray[Any]) -> NDArray[Any]:
        """A flat array that holds `array` in this layout; filling and padding are zero."""
        sizes, order = self.part_sizes(array.shape), np.argsort(self.permutation)
        by_part = [sizes[k] for k in order]  # lengths of the parts, axis by axis
        filled = [
            math.prod(n for part, n in zip(self.parts, by_part, strict=True) if part.axis == axis)
            for axis in range(self.rank)
        ]
        whole = np.zeros(filled, array.dtype)
        whole[tuple(slice(0, n) for n in array.shape)] = array
        buffer = np.zeros(self.size(array.shape), array.dtype)
        self._view(buffer, array.shape)[...] = whole.reshape(by_part).transpose(self.permutation)
        return buffer

    def unpack(self, buffer: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
        """The tensor of shape `shape` in a flat array: the inverse of `pack`. Raises ShapeError for a wrong size."""
        if buffer.shape != (self.size(shape),):
            raise ShapeError(f"layout {self} of {list(shape)} takes {self.size(shape)} elements, not {buffer.shape}")
        sizes = self.part_sizes(shape)
        parts = self._view(buffer, shape)
        by_axis = parts.transpose(np.argsort(self.permutation)) if sizes else parts
        lengths = [
            math.prod(sizes[self.permutation.index(k)] for k, part in enumerate(self.parts) if part.axis == axis)
            for axis in range(self.rank)
        ]
        return by_axis.reshape(lengths)[tuple(slice(0, n) for n in shape)].copy()

    def _view(self, buffer: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
        """A flat buffer with an axis for each part, in memory order."""
        steps = [step * buffer.itemsize for step in self.strides(shape)]
        return np.lib.stride_tricks.as_strided(buffer, self.part_sizes(shape), steps)

    def transposed(self, axes: Sequence[int]) -> Layout:
        """The layout of `array.transpose(axes)` that lies in memory just as `array` in this layout does."""
        if sorted(axes) != list(range(self.rank)):
            raise ShapeError(f"{tuple(axes)} is no permutation of {self.rank} axes")
        splits = tuple((new, size) for new, old in enumerate(axes) for a, size in self.splits if a == old)
        plain = Layout(tuple(range(len(self.permutation))), splits)
        renamed = {Part(axes[p.axis], p.divisor, p.modulus): k for k, p in enumerate(plain.parts)}
        parts = self.parts
        return Layout(tuple(renamed[parts[k]] for k in self.permutation), splits, self.padding)

    def then(self, other: Layout) -> Layout:
        """This layout with `other` applied to its parts in memory order (`other` has as many axes as this has parts).

        Raises ShapeError if this layout is padded, or `other` splits a part of fixed length unevenly.
        """
        if self.padding or other.rank != len(self.permutation):
            raise ShapeError(f"layout {other} cannot follow {self}: it has another rank, or the first one is padded")
        mine = [self.parts[k] for k in self.permutation]
        wanted = [_part_of(mine[part.axis], part, self, other) for part in other.parts]
        in_memory = [wanted[k] for k in other.permutation]
        splits = _splits_of(wanted)
        plain = Layout(tuple(range(len(wanted))), splits)
        return Layout(_places(in_memory, plain), splits, other.padding)

    def text(self, axes: Sequence[str]) -> str:
        """`[f/64]+16[n][f%64]`: parts in memory order, with the names of the axes and what is unused after each."""
        parts = [self.parts[k] for k in self.permutation]
        unused = [f"+{count}" if count else "" for count in self.padding or [0] * len(parts)]
        texts = [f"[{_part_text(part, axes[part.axis])}]" for part in parts]
        return "".join(text + after for text, after in zip(texts, unused, strict=True))

    def __str__(self) -> str:
        return self.text([f"a{k}" for k in range(self.rank)])


def _splits_of(parts: Iterable[Part]) -> tuple[tuple[int, int], ...]:
    """The splits that make these parts: each part but an axis' outermost one begins at a split."""
    return tuple(sorted(((p.axis, p.divisor * p.modulus) for p in parts if p.modulus), key=lambda s: (s[0], -s[1])))


def _places(parts: Iterable[Part], plain: Layout) -> tuple[int, ...]:
    """Where parts stand among those of a layout in order; parts of length 1 may occur more than once."""
    free: dict[Part, list[int]] = {}
    for place, part in enumerate(plain.parts):
        free.setdefault(part, []).append(place)
    return tuple(free[part].pop(0) if free.get(part) else -1 for part in parts)


def _part_text(part: Part, name: str) -> str:
    divided = f"{name}/{part.divisor}" if part.divisor > 1 else name
    return f"{divided}%{part.modulus}" if part.modulus else divided


def _part_of(outer: Part, inner: Part, first: Layout, second: Layout) -> Part:
    """Part `inner` of the values of part `outer`."""
    if inner.modulus == 0:
        length = outer.modulus // inner.divisor if outer.modulus else 0
        if outer.modulus % inner.divisor:
            raise ShapeError(f"layout {second} splits a part of {first} that it does not divide")
        return Part(outer.axis, outer.divisor * inner.divisor, length)
    return Part(outer.axis, outer.divisor * inner.divisor, inner.modulus)


def parse_layout(text: str, axes: Sequence[str]) -> Layout:
    """The layout that `Layout.text(axes)` printed. Raises ParseError with the column of what is wrong."""
    if re.fullmatch(r"(\[[^\]]*\](\+\d+)?)*", text) is None:
        raise ParseError(f"line 1, column 1: {text!r} is no layout such as '[f/64][n][f%64]+16'")
    parts, padding = [], []
    for found in re.finditer(r"\[([^\]]*)\](?:\+(\d+))?", text):
        padding.append(int(found.group(2) or 0))
        part = re.fullmatch(r"(\w+)(?:/(\d+))?(?:%(\d+))?", found.group(1))
        if part is None or part.group(1) not in axes:
            raise ParseError(f"line 1, column {found.start() + 2}: {found.group(1)!r} is no part of {', '.join(axes)}")
        parts.append(Part(list(axes).index(part.group(1)), int(part.group(2) or 1), int(part.group(3) or 0)))
    splits = _splits_of(parts)
    try:
        plain = Layout(tuple(range(len(parts))), splits)
        layout = Layout(_places(parts, plain), splits, tuple(padding))
    except ValueError as error:  # ShapeError too: parts that do not make up their axes
        raise ParseError(f"line 1, column 1: the parts of {text!r} do not make up axes {', '.join(axes)}") from error
    if layout.rank != len(axes):
        raise ParseError(f"line 1, column 1: {text!r} has {layout.rank} axes, not {len(axes)}")
    return layout
