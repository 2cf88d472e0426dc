"""How windows and control flow are drawn: convolutions and pooling of any stride, branches and small loops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import graphc as gc
from graphc.dsl import convolution, pooling
from graphc.ir.dims import Dim
from graphc.ir.graph import Value
from graphc.ir.op import Op
from graphc.ir.types import DType, TensorType, bool_

if TYPE_CHECKING:
    from .generator import Growth

IMAGE_SIZES = (1, 2, 3, 4, 5, 7, 9, 13)
CHANNELS = (1, 2, 3, 4, 6)


def _images(g: Growth, rank: int) -> Value:
    """A float value `[N, channels, ...]`, at hand or new, of small sizes."""
    fitting = [
        v for v in g.pool
        if v.type.dtype.is_float and v.type.rank == rank + 2
        and all(isinstance(d, int) and 0 < d <= 40 for d in v.type.shape[1:])
    ]  # fmt: skip
    if fitting and g.flip():
        return g.choose(fitting)
    sizes: list[Dim] = [g.choose(g.sizes), g.choose(CHANNELS), *(g.choose(IMAGE_SIZES) for _ in range(rank))]
    return g.leaf(tuple(sizes), g.dtype_like("f"))


def contract(g: Growth, op: Op) -> Value:
    """A convolution along one or two axes, transposed or not; or the mean of windows, which is one too."""
    if g.rng.random() < 0.2:
        rank, kernel, options = _windows(g)
        return (pooling.avg_pool1d if rank == 1 else pooling.avg_pool2d)(_images(g, rank), kernel, **options)
    rank = g.choose([1, 2])
    x = _images(g, rank)
    channels = x.type.shape[1]
    assert isinstance(channels, int)
    groups = g.choose([d for d in (1, 1, 2, 3, channels) if channels % d == 0])
    kernel = [g.choose([1, 2, 3, 4]) for _ in range(rank)]
    made = g.choose([1, 2, 3])
    options: dict[str, Any] = {
        name: [g.choose(choices) for _ in range(rank)]
        for name, choices in (("stride", [1, 1, 2, 3]), ("padding", [0, 0, 1, 2]), ("dilation", [1, 1, 2]))
    }
    if g.rng.random() < 0.3:
        weight = g.leaf((channels, made, *kernel), x.type.dtype)
        function: Any = convolution.conv_transpose1d if rank == 1 else convolution.conv_transpose2d
    else:
        weight = g.leaf((made * groups, channels // groups, *kernel), x.type.dtype)
        function = convolution.conv1d if rank == 1 else convolution.conv2d
    return function(x, weight, groups=groups, **options)


def max_pool(g: Growth, op: Op) -> Value:
    """The maximum of windows along one or two axes."""
    rank, kernel, options = _windows(g)
    return (pooling.max_pool1d if rank == 1 else pooling.max_pool2d)(_images(g, rank), kernel, **options)


def _windows(g: Growth) -> tuple[int, list[int], dict[str, Any]]:
    """Number of axes, sizes of windows, and how they slide."""
    rank = g.choose([1, 2])
    kernel = [g.choose([1, 2, 3]) for _ in range(rank)]
    options: dict[str, Any] = {
        "stride": [g.choose([1, 2, 3]) for _ in range(rank)],
        "padding": [g.choose([0, k // 2]) for k in kernel],
        "ceil_mode": g.flip(),
    }
    return rank, kernel, options


# ------------------------------------------------------------------------------------------- branches and loops


def _predicate(g: Growth) -> gc.Symbol:
    """A truth value: of one element or of all of something at hand."""
    value = g.operand(bool_, None)
    return gc.Symbol(value if not value.type.shape else g.builder.any(value, axes=tuple(range(value.type.rank))))


def _floats(g: Growth) -> Value:
    return g.pick("f", rank=0)


def cond(g: Growth, op: Op) -> Value:
    """A branch: the arms compute different things of the same two values."""
    x = gc.Symbol(_floats(g))
    y = gc.Symbol(g.operand_of(x.ir.type))
    arms = [lambda: gc.sin(x) * y, lambda: x - y, lambda: gc.tanh(y), lambda: gc.zeros_like(x), lambda: x]
    chosen = [arms[int(k)] for k in g.rng.permutation(len(arms))[:2]]
    return gc.cond(_predicate(g), *chosen).ir


def scan(g: Growth, op: Op) -> Value:
    """A loop over axis 0 of something at hand: carried, stacked or both, with a value from outside."""
    fitting = [
        v for v in g.pool
        if v.type.dtype.is_float and 2 <= v.type.rank <= 3 and isinstance(v.type.shape[0], int)
        and 0 < v.type.shape[0] <= 20
    ]  # fmt: skip
    if fitting and g.flip():
        xs = g.choose(fitting)
    else:
        xs = g.leaf((g.choose([1, 2, 3, 5]), *g.shape(1), g.size()), g.dtype_like("f"))
    one = TensorType(xs.type.dtype, xs.type.shape[1:])
    h0, c = gc.Symbol(g.operand_of(one)), gc.Symbol(g.operand_of(one))

    def stacked(h: gc.Symbol, x: gc.Symbol) -> tuple[gc.Symbol, gc.Symbol]:
        new = gc.tanh(h * 0.5 + x * c)
        return new, new + x

    def summed(h: gc.Symbol, x: gc.Symbol) -> tuple[gc.Symbol, gc.Symbol]:
        return h * 0.5 + x, gc.sin(h)

    def product(h: gc.Symbol, x: gc.Symbol) -> tuple[gc.Symbol, gc.Symbol]:
        return gc.tanh(_through(g, h, W)) + x, h

    width = xs.type.shape[-1]
    W = gc.Symbol(g.leaf((width, width), xs.type.dtype)) if xs.type.rank == 3 else c
    cell = g.choose([stacked, summed, product] if xs.type.rank == 3 else [stacked, summed])
    found = gc.scan(cell, sequences=[gc.Symbol(xs)], init=[h0], reverse=g.flip())
    return g.choose(found).ir


def _through(g: Growth, h: gc.Symbol, W: gc.Symbol) -> gc.Symbol:
    return gc.matmul(h, W) * 0.3


def while_loop(g: Growth, op: Op) -> Value:
    """A loop that ends by its test, with a declared bound that is now and then reached before."""
    x = gc.Symbol(_floats(g))
    c = gc.Symbol(g.operand_of(x.ir.type))
    least = float(g.rng.uniform(0.05, 1.0))

    def goes_on(total: gc.Symbol, size: gc.Symbol) -> gc.Symbol:
        return size > least

    def body(total: gc.Symbol, size: gc.Symbol) -> tuple[gc.Symbol, gc.Symbol]:
        return gc.sin(total) * 0.5 + c, size * 0.5

    start = gc.constant(1.0).astype(_name(x.ir.type.dtype))
    total, _ = gc.while_loop(goes_on, body, (x, start), bound=g.choose([1, 2, 6]))
    return total.ir


def _name(dtype: DType) -> str:
    return dtype.numpy_name
