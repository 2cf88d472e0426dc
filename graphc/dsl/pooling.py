"""Pooling: the greatest element or the mean of windows along the last axes, as in PyTorch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from graphc.dsl.declare import Operand, apply, as_value, cast, constant, elementwise
from graphc.dsl.geometry import AXES, Call, Ints, Slide, window_index
from graphc.dsl.origin import here
from graphc.ir.builder import Builder
from graphc.ir.dims import Dim
from graphc.ir.graph import Value
from graphc.ir.types import TensorType, f32


def max_pool1d(x: Operand, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, dilation: Ints = 1,
               ceil_mode: bool = False) -> Value:  # fmt: skip
    """The greatest element of windows along the last axis of `x [N, C, L]`; see `max_pool2d`."""
    return _max_pool("max_pool1d", 1, x, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool2d(x: Operand, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, dilation: Ints = 1,
               ceil_mode: bool = False) -> Value:  # fmt: skip
    """The greatest element of windows of `kernel_size` along the last two axes of `x [N, C, H, W]` (or `[C, H, W]`).

    `stride` is the distance between windows, for None the kernel size; padding, at most half the kernel, never is the
    greatest. The result has floor((H + 2 padding - dilation (kernel - 1) - 1) / stride) + 1 windows along each axis;
    with `ceil_mode` the quotient is rounded up, so that the last window may end outside, though not begin there. The
    gradient goes to the first of equal elements; a NaN is the greatest. Raises ShapeError for windows that do not fit,
    AttributeValueError for other arguments. Source: torch.nn.functional.max_pool2d.
    """
    return _max_pool("max_pool2d", 2, x, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool3d(x: Operand, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, dilation: Ints = 1,
               ceil_mode: bool = False) -> Value:  # fmt: skip
    """The greatest element of windows along the last three axes of `x [N, C, D, H, W]`; see `max_pool2d`."""
    return _max_pool("max_pool3d", 3, x, kernel_size, stride, padding, dilation, ceil_mode)


def _max_pool(name: str, rank: int, x: Operand, kernel_size: Ints, stride: Ints | None, padding: Ints,
              dilation: Ints, ceil_mode: bool) -> Value:  # fmt: skip
    value = as_value(x)
    call = Call(name, (value,))
    slides, shape = _windows(call, rank, kernel_size, stride, padding, dilation, ceil_mode)
    window = {
        "kernel": tuple(s.taps for s in slides),
        "stride": tuple(s.stride for s in slides),
        "padding": tuple(s.before for s in slides),
        "dilation": tuple(s.dilation for s in slides),
    }
    greatest, _ = Builder(here()).max_pool(value, shape=shape, **window)
    assert isinstance(greatest, Value)
    return greatest


def _windows(call: Call, rank: int, kernel_size: Ints, stride: Ints | None, padding: Ints, dilation: Ints,
             ceil_mode: bool) -> tuple[tuple[Slide, ...], tuple[Dim, ...]]:  # fmt: skip
    """The windows along the last axes, and the shape of the result."""
    (value,) = call.values
    if value.type.rank not in (rank + 1, rank + 2):
        names = ", ".join("DHW"[-rank:])
        reason = f"it must be [N, C, {names}], or [C, {names}] without a batch"
        call.bad_shape(f"the input has {value.type.rank} axes; {reason}")
    if isinstance(padding, str):
        call.bad_argument(f"padding={padding!r} is not an int or {rank} ints")
    taps = call.ints("kernel_size", kernel_size, rank, 1)
    outer, sizes = value.type.shape[:-rank], value.type.shape[-rank:]
    slides = call.slides(sizes, taps, taps if stride is None else stride, padding, dilation)
    for slide in slides:
        if 2 * slide.before > slide.reach + 1:
            reason = f"more than half of the kernel {kernel_size!r}: a window could be empty"
            call.bad_argument(f"padding={padding!r} is {reason}")
    return slides, (*outer, *call.positions(slides, ceil_mode))


def avg_pool1d(x: Operand, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, ceil_mode: bool = False,
               count_include_pad: bool = True) -> Value:  # fmt: skip
    """The mean of windows along the last axis of `x [N, C, L]`; see `avg_pool2d`."""
    return _avg_pool("avg_pool1d", 1, x, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(x: Operand, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, ceil_mode: bool = False,
               count_include_pad: bool = True, divisor_override: int | None = None) -> Value:  # fmt: skip
    """The mean of windows of `kernel_size` along the last two axes of `x [N, C, H, W]` (or `[C, H, W]`).

    Arguments and result sizes are those of `max_pool2d`. What lies in the padding counts as 0, and as an element unless
    `count_include_pad` is False; what lies beyond the padding (`ceil_mode`) does not count. `divisor_override` divides
    every window's sum by one number instead. Errors are those of `max_pool2d`. Source: torch.nn.functional.avg_pool2d.
    """
    return _avg_pool("avg_pool2d", 2, x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def avg_pool3d(x: Operand, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, ceil_mode: bool = False,
               count_include_pad: bool = True, divisor_override: int | None = None) -> Value:  # fmt: skip
    """The mean of windows along the last three axes of `x [N, C, D, H, W]`; see `avg_pool2d`."""
    return _avg_pool("avg_pool3d", 3, x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def _avg_pool(name: str, rank: int, x: Operand, kernel_size: Ints, stride: Ints | None, padding: Ints, ceil_mode: bool,
              count_include_pad: bool, divisor: int | None) -> Value:  # fmt: skip
    """The contraction with a constant window; where windows count different numbers of elements, divided by those."""
    value = as_value(x)
    if not value.type.dtype.is_float:
        value = cast(value, f32)
    call = Call(name, (value,))
    slides, shape = _windows(call, rank, kernel_size, stride, padding, 1, ceil_mode)
    if divisor == 0:
        call.bad_argument("divisor_override=0 divides by zero")
    counts: Sequence[int | list[int]]
    if divisor is None:
        pairs = zip(slides, shape[-rank:], strict=True)
        counts = [_counts(call, slide, dim, count_include_pad) for slide, dim in pairs]
    else:
        counts = [1] * (rank - 1) + [divisor]
    even = math.prod(1 if isinstance(count, Sequence) else count for count in counts)
    taps, axes = tuple(slide.taps for slide in slides), AXES[-rank:]
    weight = Builder(here()).full(1 / even, TensorType(value.type.dtype, taps))
    outer = ["n", "c"][2 - value.type.rank + rank :]
    read = ", ".join([*outer, *(window_index(slide, axis) for slide, axis in zip(slides, axes, strict=True))])
    kept = ", ".join([*outer, *axes])
    equation = f"[{read}] [{', '.join(f'k{axis}' for axis in axes)}] -> [{kept}]"
    total = apply("contract", value, weight, equation=equation, shape=shape)
    uneven = np.ones((1,) * rank)
    for position, count in enumerate(counts):
        if isinstance(count, Sequence):
            uneven = uneven * np.reshape(count, [-1 if k == position else 1 for k in range(rank)])
    if (uneven == 1).all():
        return total
    return elementwise("mul", total, constant(1 / uneven, value.type.dtype))


def _counts(call: Call, slide: Slide, positions: Dim, include: bool) -> int | list[int]:
    """How many elements each window counts: one number, or one for each window."""
    size = slide.size
    beyond = (positions - 1) * slide.stride + slide.taps - size - (slide.before + slide.after)
    if isinstance(beyond, int) and beyond <= 0 and (include or slide.before == slide.after == 0):
        return slide.taps
    if not isinstance(size, int) or not isinstance(positions, int):
        call.bad_shape(f"windows count different numbers of elements along an axis of size {size}; give it as a number")
    first, last = (-slide.before, size + slide.after) if include else (0, size)
    starts = [y * slide.stride - slide.before for y in range(positions)]
    found = [min(start + slide.taps, last) - max(start, first) for start in starts]
    return found[0] if len(set(found)) == 1 else found
