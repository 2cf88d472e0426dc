"""Convolutions: sums over a window that slides along the last axes, as nodes of the op `contract`.

As in PyTorch, "convolution" is the correlation `y[i] = sum_k w[k] x[i + k]`, images are `[N, C, H, W]`, weights
`[O, C/groups, kH, kW]`, and those of transposed convolutions `[C, O/groups, kH, kW]`.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.dsl.declare import Operand, apply, as_value, elementwise, promote, reshape
from graphc.dsl.geometry import AXES, Call, Ints, Padding, Slide, compound, window_index
from graphc.ir.dims import Dim, format_shape
from graphc.ir.graph import Value
from graphc.ir.types import TensorType


def conv1d(x: Operand, weight: Operand, bias: Operand | None = None, stride: Ints = 1, padding: Padding = 0,
           dilation: Ints = 1, groups: int = 1) -> Value:  # fmt: skip
    """The convolution of `x [N, C, L]` with `weight [O, C/groups, k]`; see `conv2d`."""
    return _convolution("conv1d", 1, x, weight, bias, stride, padding, dilation, groups)


def conv2d(x: Operand, weight: Operand, bias: Operand | None = None, stride: Ints = 1, padding: Padding = 0,
           dilation: Ints = 1, groups: int = 1) -> Value:  # fmt: skip
    """The convolution of `x [N, C, H, W]` (or `[C, H, W]`) with `weight [O, C/groups, kH, kW]`, plus `bias [O]`.

    `stride`, `padding` and `dilation` are one int or one for each axis; `padding="same"` keeps the size (stride 1),
    "valid" is no padding; what lies outside counts as 0. Each of `groups` runs of channels has weights of its own; as
    many groups as channels make the convolution depthwise. The result is `[N, O, H', W']` with H' = floor((H +
    2 padding - dilation (kH - 1) - 1) / stride) + 1. Raises ShapeError for channels and sizes that do not fit,
    AttributeValueError for other arguments. Source: torch.nn.functional.conv2d.
    """
    return _convolution("conv2d", 2, x, weight, bias, stride, padding, dilation, groups)


def conv3d(x: Operand, weight: Operand, bias: Operand | None = None, stride: Ints = 1, padding: Padding = 0,
           dilation: Ints = 1, groups: int = 1) -> Value:  # fmt: skip
    """The convolution of `x [N, C, D, H, W]` with `weight [O, C/groups, kD, kH, kW]`; see `conv2d`."""
    return _convolution("conv3d", 3, x, weight, bias, stride, padding, dilation, groups)


def _convolution(name: str, rank: int, x: Operand, weight: Operand, bias: Operand | None, stride: Ints,
                 padding: Padding, dilation: Ints, groups: int) -> Value:  # fmt: skip
    call, image, w = _operands(name, rank, x, weight)
    channels, outputs, taken = image.type.shape[1], w.type.shape[0], w.type.shape[1]
    each, made = _split(call, "input", channels, groups), _split(call, "output", outputs, groups)
    if taken != each:
        shared = f", for {channels} in {groups} groups" if groups != 1 else ""
        weight_shape = format_shape(w.type.shape)
        hint = _axes_hint(call, rank, taken)
        call.bad_shape(f"the weight {weight_shape} takes {taken} input channels; it must take {each}{shared}{hint}")
    slides = call.slides(image.type.shape[2:], _taps(call, w), stride, padding, dilation)
    shape = (image.type.shape[0], outputs, *call.positions(slides))
    read, kept, where = _channel_indices(each, made, groups, "c")
    axes, taps, windows = _indices(slides)
    equation = f"{_map('n', read, *windows)} {_map(kept, 'c', *taps)} -> {_map('n', kept, *axes)}{where}"
    return _contracted(call, image, w, bias, equation, shape)


def _operands(name: str, rank: int, x: Operand, weight: Operand) -> tuple[Call, Value, Value]:
    """The call, the image with a batch, and the weight, of one dtype: an array takes that of the other."""
    image, w = promote(name, (x if isinstance(weight, Value) else as_value(x), weight))
    call = Call(name, (image, w))
    _check_ranks(call, rank)
    return call, image if image.type.rank == rank + 2 else reshape(image, (1, *image.type.shape)), w


def _indices(slides: Sequence[Slide]) -> tuple[list[str], list[str], list[str]]:
    """The indices along the window's axes: of its positions, of its taps, and of the elements that it is on."""
    axes = list(AXES[-len(slides) :])
    windows = [window_index(slide, axis) for slide, axis in zip(slides, axes, strict=True)]
    return axes, [f"k{axis}" for axis in axes], windows


def _contracted(call: Call, image: Value, weight: Value, bias: Operand | None, equation: str,
                shape: tuple[Dim, ...]) -> Value:  # fmt: skip
    """The contraction plus the bias, without a batch if the call's image has none."""
    call.check_size(TensorType(image.type.dtype, shape))
    result = _biased(call, apply("contract", image, weight, equation=equation, shape=shape), bias)
    return result if image is call.values[0] else reshape(result, result.type.shape[1:])


def _map(*indices: str) -> str:
    return f"[{', '.join(indices)}]"


def _axes_hint(call: Call, rank: int, taken: Dim) -> str:
    """What to write if the channels seem to stand last, or to be missing, in an image that does not fit the weight."""
    image = call.values[0].type.shape
    names = ", ".join("DHW"[-rank:])
    if image[-1] == taken and len(image) == rank + 2:
        return f"; images are [N, C, {names}], channels first: move the last axis with gc.moveaxis(x, -1, 1)"
    if len(image) == rank + 1:
        return f"; {rank + 1} axes are one image, [C, {names}]: a batch without channels is given them by x[:, None]"
    return ""


def _channel_indices(each: Dim, made: Dim, groups: int, alone: str) -> tuple[str, str, str]:
    """How input and output channels are numbered by group `g` and number `c`, `o` in the group; sizes for the text.

    The axis `alone` has a dimension of the weight for itself, which tells its size.
    """
    if groups == 1:
        return "c", "o", ""
    read = "g" if each == 1 else compound((_fixed(each), "g"), (1, "c"))
    kept = "g" if made == 1 else compound((_fixed(made), "g"), (1, "o"))
    sizes = [f"g < {groups}"] if "g" not in (read, kept) else []
    sizes += [f"{name} < {n}" for name, n in (("c", each), ("o", made)) if n != 1 and name != alone]
    return read, kept, f" where {', '.join(sizes)}" if sizes else ""


def _fixed(dim: Dim) -> int:
    assert isinstance(dim, int)  # `_split` has seen to it
    return dim


def _split(call: Call, what: str, channels: Dim, groups: int) -> Dim:
    """Channels of one group."""
    if not isinstance(groups, int) or groups < 1:
        call.bad_argument(f"groups={groups!r} must be a whole number of at least 1")
    if channels == 0:
        call.bad_shape(f"there are no {what} channels")
    if groups == 1:
        return channels
    if not isinstance(channels, int) or channels % groups:
        call.bad_shape(f"{channels} {what} channels do not divide into {groups} groups")
    return channels // groups


def _check_ranks(call: Call, rank: int) -> None:
    image, weight = (value.type for value in call.values)
    names = ", ".join("DHW"[-rank:])
    if image.rank not in (rank + 1, rank + 2):
        call.bad_shape(f"the input has {image.rank} axes; it must be [N, C, {names}], or [C, {names}] without a batch")
    if weight.rank != rank + 2:
        call.bad_shape(f"the weight has {weight.rank} axes; it must have {rank + 2}, those of the channels first")


def _taps(call: Call, weight: Value) -> tuple[int, ...]:
    taps = weight.type.shape[2:]
    fixed = tuple(k for k in taps if isinstance(k, int) and k > 0)
    if len(fixed) != len(taps):
        call.bad_shape(f"the window {format_shape(taps)} must have fixed sizes of at least 1")
    return fixed


def _biased(call: Call, result: Value, bias: Operand | None) -> Value:
    if bias is None:
        return result
    outputs = result.type.shape[1]
    value = promote(call.name, (result, bias))[1]
    if value.type.shape != (outputs,):
        call.bad_shape(f"the bias has shape {format_shape(value.type.shape)}; it must be [{outputs}], one per channel")
    return elementwise("add", result, reshape(value, (outputs, *(1,) * (result.type.rank - 2))))


def conv_transpose1d(x: Operand, weight: Operand, bias: Operand | None = None, stride: Ints = 1, padding: Ints = 0,
                     output_padding: Ints = 0, groups: int = 1, dilation: Ints = 1) -> Value:  # fmt: skip
    """The transposed convolution of `x [N, C, L]` with `weight [C, O/groups, k]`; see `conv_transpose2d`."""
    return _transposed("conv_transpose1d", 1, x, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(x: Operand, weight: Operand, bias: Operand | None = None, stride: Ints = 1, padding: Ints = 0,
                     output_padding: Ints = 0, groups: int = 1, dilation: Ints = 1) -> Value:  # fmt: skip
    """The transposed convolution of `x [N, C, H, W]` with `weight [C, O/groups, kH, kW]`, plus `bias [O]`.

    It is the gradient of `conv2d` with respect to its input: element `y` of x is added, times the window, at
    `stride*y + dilation*k - padding`. The result has size (H - 1) stride - 2 padding + dilation (kH - 1) +
    output_padding + 1 along each axis; `output_padding`, less than the stride or the dilation, tells which of the sizes
    that a convolution would bring to H is meant. Errors are those of `conv2d`. Source:
    torch.nn.functional.conv_transpose2d.
    """
    return _transposed("conv_transpose2d", 2, x, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(x: Operand, weight: Operand, bias: Operand | None = None, stride: Ints = 1, padding: Ints = 0,
                     output_padding: Ints = 0, groups: int = 1, dilation: Ints = 1) -> Value:  # fmt: skip
    """The transposed convolution of `x [N, C, D, H, W]` with `weight [C, O/groups, kD, kH, kW]`; see
    `conv_transpose2d`."""
    return _transposed("conv_transpose3d", 3, x, weight, bias, stride, padding, output_padding, groups, dilation)


def _transposed(name: str, rank: int, x: Operand, weight: Operand, bias: Operand | None, stride: Ints, padding: Ints,
                output_padding: Ints, groups: int, dilation: Ints) -> Value:  # fmt: skip
    call, image, w = _operands(name, rank, x, weight)
    channels, made = image.type.shape[1], w.type.shape[1]
    each = _split(call, "input", channels, groups)
    if w.type.shape[0] != channels:
        call.bad_shape(f"the weight takes {w.type.shape[0]} input channels (its first axis), there are {channels}")
    outputs = made * groups
    _split(call, "output", outputs, groups)
    if isinstance(padding, str):
        call.bad_argument(f"padding={padding!r}: a transposed convolution takes numbers, and output_padding")
    slides = call.slides(image.type.shape[2:], _taps(call, w), stride, padding, dilation)
    more = call.ints("output_padding", output_padding, rank, 0)
    shape = (image.type.shape[0], outputs, *_grown(call, slides, more))
    read, kept, where = _channel_indices(each, made, groups, "o")
    axes, taps, windows = _indices(slides)
    equation = f"{_map('n', read, *axes)} {_map(read, 'o', *taps)} -> {_map('n', kept, *windows)}{where}"
    return _contracted(call, image, w, bias, equation, shape)


def _grown(call: Call, slides: Sequence[Slide], more: Sequence[int]) -> tuple[Dim, ...]:
    """The sizes of a transposed convolution's result."""
    found: list[Dim] = []
    for slide, extra in zip(slides, more, strict=True):
        if extra >= max(slide.stride, slide.dilation):
            call.bad_argument(
                f"output_padding={extra} must be less than the stride {slide.stride} or the dilation {slide.dilation}"
            )
        size = (slide.size - 1) * slide.stride + (slide.reach + extra + 1 - 2 * slide.before)
        if isinstance(size, int) and size < 1:
            numbers = f"({slide.size} - 1)*{slide.stride} - 2*{slide.before} + {slide.reach} + {extra} + 1 = {size}"
            meaning = "(size - 1)*stride - 2*padding + dilation*(kernel - 1) + output_padding + 1"
            call.bad_shape(f"the size of the result is {meaning} = {numbers}; make the padding smaller")
        found.append(size)
    return tuple(found)
