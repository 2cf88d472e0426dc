"""Windows that slide over axes: their arguments (`stride=2`, `padding=(1, 2)`, `padding="same"`) and result sizes."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from graphc.dsl.origin import here
from graphc.errors import AttributeValueError, ShapeError
from graphc.ir.builder import explain
from graphc.ir.dims import Dim, Poly, format_shape
from graphc.ir.graph import Value
from graphc.ir.types import TensorType

Ints = int | Sequence[int]
Padding = str | Ints

AXES = "zyx"  # of the result, the last ones for fewer than three
MOST_ELEMENTS = 2**63 - 1  # offsets of elements are 64-bit integers


@dataclass(frozen=True)
class Slide:
    """A window along one axis: at position `y` its tap `k < taps` is on element `stride*y + dilation*k - before`."""

    size: Dim
    taps: int
    stride: int = 1
    dilation: int = 1
    before: int = 0
    after: int = 0

    @property
    def reach(self) -> int:
        """The distance from the first tap to the last."""
        return self.dilation * (self.taps - 1)


@dataclass(frozen=True)
class Call:
    """A function of windows that is being declared, for its messages."""

    name: str
    values: tuple[Value, ...]

    def bad_shape(self, reason: str) -> NoReturn:
        """Raise ShapeError with the function, its operands, the module and the user's line."""
        raise ShapeError(explain(self.name, [v.type for v in self.values], reason, here()))

    def bad_argument(self, reason: str) -> NoReturn:
        """Raise AttributeValueError likewise."""
        raise AttributeValueError(explain(self.name, [v.type for v in self.values], reason, here()))

    def ints(self, what: str, given: Any, count: int, least: int) -> tuple[int, ...]:
        """An int for each of `count` axes, from one int for all or a sequence. Raises AttributeValueError."""
        try:
            one = operator.index(given)
        except TypeError:
            try:
                found = tuple(operator.index(item) for item in given)
            except TypeError:
                self.bad_argument(f"{what}={given!r} is neither an int nor {count} ints")
        else:
            found = (one,) * count
        if len(found) != count:
            self.bad_argument(f"{what}={given!r} has {len(found)} entries, the window slides along {count} axes")
        if any(item < least for item in found):
            self.bad_argument(f"{what}={given!r} must be at least {least} along each axis")
        return found

    def padding(self, given: Padding, strides: Sequence[int]) -> Literal["same", "valid"] | tuple[int, ...]:
        """The padding, an int for each axis. Raises AttributeValueError for others, and for "same" with strides."""
        if not isinstance(given, str):
            return self.ints("padding", given, len(strides), 0)
        if given == "valid":
            return "valid"
        if given != "same":
            self.bad_argument(f"padding={given!r} is not 'same', 'valid', an int or {len(strides)} ints")
        if any(stride != 1 for stride in strides):
            self.bad_argument(f"padding='same' needs stride 1, got {tuple(strides)}; give the padding as numbers")
        return "same"

    def slides(self, sizes: Sequence[Dim], taps: Sequence[int], stride: Ints, padding: Padding,
               dilation: Ints) -> tuple[Slide, ...]:  # fmt: skip
        """The windows along the last axes. Raises AttributeValueError for arguments, ShapeError for empty axes."""
        count = len(sizes)
        strides, dilations = self.ints("stride", stride, count, 1), self.ints("dilation", dilation, count, 1)
        empty = [dim for dim in sizes if dim == 0]
        if empty:
            self.bad_shape(f"the window slides over an axis of size 0 in {format_shape(tuple(sizes))}")
        around = self.padding(padding, strides)
        if isinstance(around, str):
            total = [d * (k - 1) if around == "same" else 0 for d, k in zip(dilations, taps, strict=True)]
            pads = [(t // 2, t - t // 2) for t in total]
        else:
            pads = [(p, p) for p in around]
        rows = zip(sizes, taps, strides, dilations, pads, strict=True)
        return tuple(Slide(size, k, s, d, *pad) for size, k, s, d, pad in rows)

    def positions(self, slides: Sequence[Slide], ceil: bool = False) -> tuple[Dim, ...]:
        """How often each window fits. Raises ShapeError, with the formula, if it does not fit at all.

        With `ceil` a last window may begin inside and end outside, as in PyTorch.
        """
        return tuple(self._positions(slide, ceil) for slide in slides)

    def _positions(self, slide: Slide, ceil: bool) -> Dim:
        free = slide.size + (slide.before + slide.after - slide.reach - 1)
        up = slide.stride - 1 if ceil else 0
        steps = _floor(free + up, slide.stride)
        pads = f"{slide.before} + {slide.after}"
        formula = f"({slide.size} + {pads} - {slide.dilation}*({slide.taps} - 1) - 1) / {slide.stride} + 1"
        if steps is None:
            self.bad_shape(f"the size {formula} is no whole number for every size; give {slide.size} as a number")
        count = steps + 1
        if ceil and isinstance(count, int) and isinstance(slide.size, int):
            count -= (count - 1) * slide.stride >= slide.size + slide.before
        if isinstance(count, int) and count < 1:
            meaning = "(size + padding before + after - dilation*(kernel - 1) - 1) / stride + 1"
            self.bad_shape(
                f"the window of {slide.taps} does not fit: the size of the result is {meaning} = {formula} = {count}; "
                "make the kernel or the dilation smaller, or the padding or the input larger"
            )
        return count

    def check_size(self, type_: TensorType) -> None:
        """Raise ShapeError for a result that has more elements than an index can count."""
        if isinstance(type_.size, int) and type_.size > MOST_ELEMENTS:
            self.bad_shape(f"the result {type_} has {type_.size} elements, more than a 64-bit index can count")


def _floor(dim: Dim, divisor: int) -> Dim | None:
    """The quotient rounded down, if that is the same polynomial for all sizes."""
    if not isinstance(dim, Poly):
        return dim // divisor
    if any(c % divisor for names, c in dim.terms if names):
        return None
    total: Dim = 0
    for names, c in dim.terms:
        total = total + (Poly(((names, c // divisor),)) if names else c // divisor)
    return total


def compound(*terms: tuple[int, str], shift: int = 0) -> str:
    """The text of an index: `compound((2, "y"), (1, "k"), shift=-1)` is "2*y+k-1"."""
    text = "+".join(name if factor == 1 else f"{factor}*{name}" for factor, name in terms)
    return text + (f"{shift:+d}" if shift else "")


def window_index(slide: Slide, axis: str) -> str:
    """The index that a window reads: `2*y+ky-1`."""
    return compound((slide.stride, axis), (slide.dilation, f"k{axis}"), shift=-slide.before)
