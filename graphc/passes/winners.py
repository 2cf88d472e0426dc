"""Derivatives below a max pooling are computed for the winners only.

The gradient of a pooling is 0 but at the winners, and an activation's derivative by its output y is the same function
of the pooled values there. So `where(y <= 0, 0, max_unpool(g, t))` is `max_unpool(where(p <= 0, 0, g), t)` with the
pooled values p: a quarter of the work for a 2 x 2 window, and y need not be kept for the backward pass. Products are
moved where y is bounded alone: 0 times an infinite derivative would be NaN. A sum over whole windows is one of the
winners' gradients: bias gradients read a quarter.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphc.ir.builder import Builder
from graphc.ir.dims import Dim
from graphc.ir.graph import Graph, Node, Value
from graphc.ops.rules import normalise_axes
from graphc.passes.manager import PassResult
from graphc.passes.rewrite import Match, Rule, constant_value, rewrite

BOUNDED = ("tanh", "sigmoid")  # between -1 and 1, and so are polynomials of them


@dataclass(frozen=True)
class Winners:
    """Move derivatives from before a pooling's gradient to the pooled values."""

    name: str = "winners"

    def __call__(self, graph: Graph) -> PassResult:
        """The graph with `RULES` applied."""
        return rewrite(graph, RULES)


def _pooled(unpool: Node) -> tuple[Value, Value] | None:
    """What was pooled and the pooled values, if the taps of an unpooling are those of a pooling of its shape."""
    pool = unpool.inputs[1].producer
    if pool is None or pool.op.name != "max_pool" or unpool.inputs[1].index != 1:
        return None
    if any(pool.attributes[name] != unpool.attributes[name] for name in pool.attributes if name != "shape"):
        return None
    return (pool.inputs[0], pool.outputs[0]) if pool.inputs[0].type == unpool.type else None


def _at_winners(value: Value, y: Value, pooled: Value, b: Builder) -> Value | None:
    """An elementwise function of `y` as the same function of the pooled values; None if it reads anything else."""
    if value is y:
        return pooled
    number, node = constant_value(value), value.producer
    if number is not None:
        return b.broadcast(b.constant(number.item(), value.type.dtype), pooled.type.shape)
    if node is None or node.op.scalar is None or node.op.name == "cast":
        return None
    args = [_at_winners(v, y, pooled, b) for v in node.inputs]
    if any(arg is None for arg in args):
        return None
    result = b.apply(node.op, [arg for arg in args if arg is not None], dict(node.attributes))
    assert isinstance(result, Value)
    return result


def _moved(match: Match, b: Builder, factor: Value, bounded: bool) -> tuple[Value, Value] | None:
    """The factor for the winners and the gradient at them, if the factor can be moved."""
    unpool = match["u"].producer
    assert unpool is not None
    found = _pooled(unpool)
    if found is None:
        return None
    y, pooled = found
    if bounded and (y.producer is None or y.producer.op.name not in BOUNDED):
        return None
    moved = _at_winners(factor, y, pooled, b)
    return None if moved is None else (moved, unpool.inputs[0])


def _unpooled(match: Match, b: Builder, g: Value) -> Value:
    unpool = match["u"].producer
    assert unpool is not None
    result = b.apply(unpool.op, (g, unpool.inputs[1]), dict(unpool.attributes))
    assert isinstance(result, Value)
    return result


def _choice(match: Match, b: Builder) -> Value | None:
    found = _moved(match, b, match["c"], bounded=False)
    if found is None:
        return None
    condition, g = found
    zero = b.constant(0, g.type.dtype)
    return _unpooled(match, b, b.elementwise("where", condition, zero, g))


def _product(match: Match, b: Builder) -> Value | None:
    found = _moved(match, b, match["f"], bounded=True)
    return None if found is None else _unpooled(match, b, b.elementwise("mul", *found))


def _sum(match: Match, b: Builder) -> Value | None:
    unpool = match["u"].producer
    assert unpool is not None
    attributes, (g, _) = unpool.attributes, unpool.inputs
    first = g.type.rank - len(attributes["kernel"])
    axes = normalise_axes(match.root.attributes["axes"], g.type.rank)
    slides = zip(*(attributes[name] for name in ("kernel", "stride", "padding", "dilation")), strict=True)
    for axis, (kernel, stride, padding, dilation) in enumerate(slides, start=first):
        if (kernel, stride, padding) != (1, 1, 0):
            sizes = g.type.shape[axis], unpool.type.shape[axis]
            if axis not in axes or not _all_inside(kernel, stride, padding, dilation, *sizes):
                return None
    result = b.apply(match.root.op, (g,), dict(match.root.attributes))
    assert isinstance(result, Value)
    return result


def _all_inside(kernel: int, stride: int, padding: int, dilation: int, windows: Dim, elements: Dim) -> bool:
    """True if every window has an element, and so a winner."""
    if not isinstance(windows, int) or not isinstance(elements, int):
        return False
    taps = ([w * stride + k * dilation - padding for k in range(kernel)] for w in range(windows))
    return all(any(0 <= element < elements for element in window) for window in taps)


def _read_once(match: Match) -> bool:
    return match.read_once(match["u"])


WHY = "the gradient of a pooling is 0 but at the winners"
ONE_EACH = "every window has one winner"
RULES = (
    Rule("choice_at_winners", "where(c, 0, u@max_unpool(g, t))", _choice, WHY, _read_once),
    Rule("product_at_winners", "mul(f, u@max_unpool(g, t))", _product, WHY, _read_once),
    Rule("sum_of_winners", "sum(u@max_unpool(g, t))", _sum, ONE_EACH),
)
