"""Algebraic identities: the same value written one way, and as little of it as there needs to be.

Rules keep values exactly, with two exceptions that IEEE arithmetic makes: the sign of a zero may change
(`x + 0`, `-(x - y)`), and sums over several axes are one sum (reductions have no promised order).
`0 * x` stays for floats: it is NaN where x is infinite or NaN, and hiding that hides a diverged training; it goes
for integers. `x / c` becomes `x * (1/c)` only where 1/c is exact, that is for powers of two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from graphc.ir.builder import Builder
from graphc.ir.dims import Dim, product
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.types import DType, TensorType, bool_, f32, f64, i32, i64, u8
from graphc.ops.einsum import equation_of
from graphc.ops.rules import normalise_axes
from graphc.passes.manager import PassResult
from graphc.passes.rewrite import Match, Rule, left_in, rewrite

# dtype -> dtypes that hold all its values exactly
EXACT_CASTS: dict[DType, tuple[DType, ...]] = {
    bool_: (u8, i32, i64, f32, f64),
    u8: (i32, i64, f32, f64),
    i32: (i64, f64),
    f32: (f64,),
}
REDUCTIONS = ("sum", "mean", "max", "min")


@dataclass(frozen=True)
class Canonicalise:
    """Apply algebraic identities; see `RULES`. Those named in `without` are left out."""

    without: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """`canonicalise`."""
        return "canonicalise"

    def __call__(self, graph: Graph) -> PassResult:
        """The graph with every rule of `RULES` applied to a fixed point."""
        return rewrite(graph, left_in(RULES, self.without))


def _apply(b: Builder, node: Node, *inputs: Value, **changed: Any) -> Value:
    """The op of `node` on other operands, with some attributes changed."""
    result = b.apply(node.op, inputs, {**node.attributes, **changed})
    assert isinstance(result, Value)
    return result


def _broadcast(b: Builder, value: Value, shape: tuple[Dim, ...]) -> Value:
    return value if value.type.shape == shape else b.broadcast(value, shape)


def _reshape(b: Builder, value: Value, shape: tuple[Dim, ...]) -> Value:
    return value if value.type.shape == shape else b.reshape(value, shape=shape)


# -------------------------------------------------------------------------------------------- constants


def _is_integer(match: Match) -> bool:
    return match["x"].type.dtype.is_integer


def _constant_is_left(match: Match) -> bool:
    left, right = match.root.inputs
    return match.constant(left) is not None and match.constant(right) is None


def _exact_reciprocal(match: Match, b: Builder) -> Value | None:
    divisor, limits = match.constant(match["c"]), np.finfo(match.root.type.dtype.numpy)
    if divisor is None or not math.isfinite(divisor) or abs(math.frexp(divisor)[0]) != 0.5:
        return None
    inverse = 1.0 / divisor.item()
    if not float(limits.tiny) <= abs(inverse) <= float(limits.max):
        return None
    return b.mul(match["x"], b.full(inverse, match["c"].type))


def _negated_constant(match: Match, b: Builder) -> Value | None:
    factor = match.constant(match["c"])
    return None if factor is None else b.mul(match["x"], b.full(-factor.item(), match["c"].type))


# ----------------------------------------------------------------------------------- shapes and dtypes


def _positive_axes(match: Match, b: Builder) -> Value | None:
    """Axes counted from the front, sorted where their order means nothing."""
    node = match.root
    (name,) = [k for k in ("axes", "axis", "permutation") if k in node.attributes]
    given, rank = node.attributes[name], node.inputs[0].type.rank
    if isinstance(given, int):
        axes: Any = given % rank
    else:
        axes = tuple(axis % rank for axis in given)
        axes = tuple(sorted(axes)) if name == "axes" else axes
    return None if axes == given else _apply(b, node, match["x"], **{name: axes})


def _same_type(match: Match) -> bool:
    return match["x"].type == match.root.type


def _same_permutation(match: Match) -> bool:
    return match.root.attributes["permutation"] == tuple(range(match.root.type.rank))


def _joined_transposes(match: Match, b: Builder) -> Value:
    inner, outer = match.node("t").attributes["permutation"], match.root.attributes["permutation"]
    return b.transpose(match["x"], permutation=tuple(inner[k] for k in outer))


def _moves_only_ones(match: Match) -> bool:
    """True if the axes that are longer than 1 keep their order."""
    permutation, shape = match.root.attributes["permutation"], match["x"].type.shape
    wide = [k for k in permutation if shape[k] != 1]
    return wide == sorted(wide)


def _as_reshape(match: Match, b: Builder) -> Value:
    return _reshape(b, match["x"], match.root.type.shape)


def _adds_leading_ones(match: Match) -> bool:
    source, shape = match["x"].type.shape, match["r"].type.shape
    extra = len(shape) - len(source)
    return extra > 0 and shape == (1,) * extra + source


def _as_broadcast(match: Match, b: Builder) -> Value:
    return _broadcast(b, match["x"], match.root.type.shape)


def _is_scalar(match: Match) -> bool:
    return match["x"].type.size == 1


def _scalar_broadcast(match: Match, b: Builder) -> Value:
    return _broadcast(b, _reshape(b, match["x"], ()), match.root.type.shape)


def _cast_is_exact(match: Match) -> bool:
    return match["c"].type.dtype in EXACT_CASTS.get(match["x"].type.dtype, ())


def _direct_cast(match: Match, b: Builder) -> Value:
    same = match["x"].type == match.root.type
    return match["x"] if same else b.cast(match["x"], dtype=match.root.type.dtype)


# ------------------------------------------------------------------------------------------------ joins


def _padded(match: Match, value: Value) -> list[Node] | None:
    """The `pad` nodes that are added up in a value that nothing else reads; None if it is no such sum."""
    node = value.producer
    if node is None or value in match.sweep.protected or not (node is match.root or match.read_once(value)):
        return None
    if node.op.name == "pad":
        plain = node.attributes["value"] == 0 and set(node.attributes["step"]) <= {1}
        return [node] if plain else None
    sides = [_padded(match, operand) for operand in node.inputs] if node.op.name == "add" else [None]
    return [pad for side in sides for pad in side or ()] if None not in sides else None


def _sum_of_pads(match: Match, b: Builder) -> Value | None:
    """A sum of pieces with zeros around them that lie side by side: the pieces joined."""
    pads, shape = _padded(match, match.root.output), match.root.type.shape
    if pads is None:
        return None
    partial = {k for pad in pads for k, size in enumerate(pad.inputs[0].type.shape) if size != shape[k]}
    if len(partial) != 1:
        return None
    (axis,) = partial
    starts = [pad.attributes["start"][axis] for pad in pads]
    if not all(isinstance(start, int) for start in starts):
        return None
    pieces = [pad.inputs[0] for _, pad in sorted(zip(starts, pads, strict=True), key=lambda pair: pair[0])]
    sizes = [piece.type.shape[axis] for piece in pieces]
    ends = [0, *accumulate(sizes)]
    if ends[:-1] != sorted(starts) or ends[-1] != shape[axis]:
        return None
    joined = b.concatenate(*pieces, axis=axis)
    assert isinstance(joined, Value)
    return joined


# ----------------------------------------------------------------------------------------- contractions


def _swaps_last_two(node: Node) -> bool:
    rank = node.type.rank
    return rank >= 2 and node.attributes["permutation"] == (*range(rank - 2), rank - 1, rank - 2)


def _transposed_operand(flag: str) -> Any:
    def replacement(match: Match, b: Builder) -> Value | None:
        if not _swaps_last_two(match.node("t")):
            return None
        return _apply(b, match.root, match["x"], match["y"], **{flag: not match.root.attributes[flag]})

    return replacement


def _transposed_product(match: Match, b: Builder) -> Value | None:
    """(X Y)^T = Y^T X^T, with the flags of the product instead of a transpose."""
    product_node = match.node("p")
    if not _swaps_last_two(match.root) or not match.read_once(match["p"]):
        return None
    flags = product_node.attributes
    swapped = {"transpose_a": not flags["transpose_b"], "transpose_b": not flags["transpose_a"]}
    return _apply(b, product_node, match["y"], match["x"], **swapped)


def _summed_products(match: Match, b: Builder) -> Value | None:
    """A sum over axes that both operands of a contraction have: these axes are contracted too."""
    node, contraction = match.root, match.node("p")
    left, right, out = equation_of(contraction)
    axes = node.attributes["axes"]
    summed = [out[k] for k in axes if out[k] in left and out[k] in right]
    if not match.read_once(match["p"]) or len(summed) < len(axes):
        return None
    kept = "".join(label for label in out if label not in summed)
    return _reshape(b, b.einsum(match["x"], match["y"], equation=f"{left},{right}->{kept}"), node.type.shape)


# ------------------------------------------------------------------------------------------- reductions


def _reduces_ones(match: Match) -> bool:
    return all(match["x"].type.shape[axis] == 1 for axis in match.root.attributes["axes"])


def _joined_reductions(match: Match, b: Builder) -> Value | None:
    """A reduction of a reduction is one over the axes of both."""
    inner = match.node("r")
    ties = {match.root.attributes.get("ties"), inner.attributes.get("ties")}
    if not match.read_once(match["r"]) or len(ties) > 1 or "first" in ties:
        return None
    left = list(range(match["x"].type.rank))
    if not inner.attributes["keepdims"]:
        left = [k for k in left if k not in inner.attributes["axes"]]
    outer = {left[axis] for axis in match.root.attributes["axes"]}
    axes = tuple(sorted(outer | set(inner.attributes["axes"])))
    return _reshape(b, _apply(b, inner, match["x"], axes=axes, keepdims=False), match.root.type.shape)


def _reduced_transpose(match: Match, b: Builder) -> Value | None:
    """A reduction of a transposed operand: that of the operand, where the kept axes stay in order."""
    node, rank = match.root, match["x"].type.rank
    permutation = [axis % rank for axis in match.node("t").attributes["permutation"]]
    reduced = normalise_axes(node.attributes["axes"], rank)
    kept = [axis for k, axis in enumerate(permutation) if k not in reduced]
    if kept != sorted(kept):
        return None
    axes = tuple(sorted(permutation[k] for k in reduced))
    return _reshape(b, _apply(b, node, match["x"], axes=axes, keepdims=False), node.type.shape)


def _reduced_broadcast(match: Match, b: Builder) -> Value | None:
    """A reduction over axes along which the operand repeats: the operand itself, or for a sum its count-fold."""
    node, source, spread = match.root, match["x"], match["b"].type
    extra = spread.rank - source.type.rank
    repeated = [k for k in range(spread.rank) if k < extra or source.type.shape[k - extra] != spread.shape[k]]
    axes = [axis for axis in node.attributes["axes"] if axis in repeated]
    if not axes or any(spread.shape[axis] == 0 for axis in axes):
        return None
    kept = tuple(1 if k in axes else dim for k, dim in enumerate(spread.shape))
    value = _broadcast(b, _reshape(b, source, (1,) * extra + source.type.shape), kept)
    if rest := tuple(axis for axis in node.attributes["axes"] if axis not in axes):
        value = _apply(b, node, value, axes=rest, keepdims=True)
    value = _reshape(b, value, node.type.shape)
    if node.op.name != "sum":
        return value
    count, dtype = product(spread.shape[axis] for axis in axes), node.type.dtype
    number = b.constant(count, dtype) if isinstance(count, int) else b.cast(b.size(dim=count), dtype=dtype)
    return b.elementwise("mul", value, number)


def _negated_reduction(match: Match, b: Builder) -> Value | None:
    return b.neg(_apply(b, match.root, match["x"])) if match.read_once(match["n"]) else None


# ------------------------------------------------------------------------------------------ elementwise


def _computed_before_broadcast(match: Match, b: Builder) -> Value | None:
    """An elementwise op whose operands all repeat the same way is computed once and repeated then."""
    node = match.root
    if node.op.scalar is None:
        return None
    sources = [v.producer.inputs[0] for v in node.inputs if v.producer and v.producer.op.name == "broadcast_to"]
    numbers = [match.constant(v) for v in node.inputs]
    shapes = {s.type.shape for s, n in zip(sources, numbers, strict=False) if n is None}
    if len(sources) != len(node.inputs) or len(shapes) != 1:
        return None
    (shape,) = shapes
    operands = [
        source if number is None else b.full(number, TensorType(source.type.dtype, shape))
        for source, number in zip(sources, numbers, strict=True)
    ]
    return b.broadcast(_apply(b, node, *operands), node.type.shape)


def _each(pattern: str, ops: tuple[str, ...]) -> str:
    return " | ".join(pattern.format(op) for op in ops)


RULES: tuple[Rule, ...] = (
    # -- one way to write it
    Rule(
        "positive_axes",
        _each("{}(x)", (*REDUCTIONS, "argmax", "transpose")),
        _positive_axes,
        "equal axes are written in one way",
    ),
    Rule(
        "constant_right",
        _each("{}(a, b)", ("add", "mul", "maximum", "minimum", "eq", "ne", "logical_and", "logical_or")),
        lambda match, b: _apply(b, match.root, *match.root.inputs[::-1]),
        "constants stand right, so that equal values look equal",
        _constant_is_left,
    ),
    # -- neutral and absorbing elements
    Rule("add_zero", "add(x, 0) | sub(x, 0)", "x", "adding zero changes nothing"),
    Rule("mul_by_one", "mul(x, 1) | div(x, 1)", "x", "multiplying by one changes nothing"),
    Rule("mul_by_minus_one", "mul(x, -1) | div(x, -1) | sub(0, x)", "neg(x)", "a change of sign needs no product"),
    Rule(
        "mul_by_zero",
        "mul(x, 0)",
        lambda match, b: b.full(0, match.root.type),
        "an integer times zero is zero (a float may be infinite or NaN)",
        _is_integer,
    ),
    Rule("exact_reciprocal", "div(x, c)", _exact_reciprocal, "a product is cheaper than a quotient, and exact here"),
    Rule("same_choice", "where(c, x, x)", "x", "both branches are the same value"),
    Rule("relu_of_relu", "relu(relu(x))", "relu(x)", "relu changes nothing that is not negative"),
    # -- signs
    Rule("double_negation", "neg(neg(x))", "x", "the signs cancel"),
    Rule("sub_of_negation", "sub(x, neg(y))", "add(x, y)", "the signs cancel"),
    Rule("add_of_negation", "add(x, neg(y))", "sub(x, y)", "one op instead of two"),
    Rule("mul_of_negations", "mul(neg(x), neg(y))", "mul(x, y)", "the signs cancel"),
    Rule("div_of_negations", "div(neg(x), neg(y))", "div(x, y)", "the signs cancel"),
    Rule("abs_of_negation", "abs(neg(x))", "abs(x)", "the sign does not matter"),
    Rule("negated_constant", "mul(neg(x), c)", _negated_constant, "the sign moves into the constant"),
    Rule(
        "negated_difference",
        "neg(d@sub(x, y))",
        "sub(y, x)",
        "one op instead of two",
        lambda match: match.read_once(match["d"]),
    ),
    Rule(
        "negated_product",
        "neg(p@mul(neg(x), y))",
        "mul(x, y)",
        "the signs cancel",
        lambda match: match.read_once(match["p"]),
    ),
    Rule(
        "negated_reduction", "sum(n@neg(x)) | mean(n@neg(x))", _negated_reduction, "one change of sign instead of many"
    ),
    # -- shapes and dtypes
    Rule(
        "stop_gradient",
        "stop_gradient(x)",
        "x",
        "there is nothing left to differentiate",
        lambda match: not match.sweep.old_protected,
    ),
    Rule("identity_reshape", "reshape(x) | broadcast_to(x) | cast(x)", "x", "it changes nothing", _same_type),
    Rule("identity_transpose", "transpose(x)", "x", "it changes nothing", _same_permutation),
    Rule("reshape_of_reshape", "reshape(reshape(x))", _as_reshape, "the last shape is all that counts"),
    Rule("transpose_of_transpose", "transpose(t@transpose(x))", _joined_transposes, "two permutations are one"),
    Rule("transpose_of_ones", "transpose(x)", _as_reshape, "only axes of size 1 move", _moves_only_ones),
    Rule("broadcast_of_broadcast", "broadcast_to(broadcast_to(x))", _as_broadcast, "the last shape is all that counts"),
    Rule(
        "broadcast_of_reshape",
        "broadcast_to(r@reshape(x))",
        _as_broadcast,
        "a broadcast adds leading axes itself",
        _adds_leading_ones,
    ),
    Rule(
        "shape_of_scalar",
        "reshape(broadcast_to(x)) | transpose(broadcast_to(x))",
        _scalar_broadcast,
        "one number fills any shape",
        _is_scalar,
    ),
    Rule("cast_of_cast", "cast(c@cast(x))", _direct_cast, "the first conversion loses nothing", _cast_is_exact),
    Rule("sum_of_pads", "add(x, y)", _sum_of_pads, "pieces side by side are joined, not added up with zeros"),
    # -- contractions and reductions
    Rule(
        "transposed_left", "matmul(t@transpose(x), y)", _transposed_operand("transpose_a"), "a product reads either way"
    ),
    Rule(
        "transposed_right",
        "matmul(x, t@transpose(y))",
        _transposed_operand("transpose_b"),
        "a product reads either way",
    ),
    Rule("transposed_product", "transpose(p@matmul(x, y))", _transposed_product, "a product writes either way"),
    Rule(
        "sum_of_products",
        "sum(p@matmul(x, y)) | sum(p@einsum(x, y))",
        _summed_products,
        "one contraction; the products of each batch are not stored",
    ),
    Rule("reduction_of_ones", _each("{}(x)", REDUCTIONS), _as_reshape, "there is one element to reduce", _reduces_ones),
    Rule(
        "reduction_of_transpose",
        " | ".join(f"{op}(t@transpose(x))" for op in ("sum", "mean")),
        _reduced_transpose,
        "the order of what is reduced does not matter",
    ),
    Rule("reduction_of_broadcast", _each("{}(b@broadcast_to(x))", REDUCTIONS), _reduced_broadcast, "all are equal"),
    Rule(
        "reduction_of_reduction",
        " | ".join(f"{op}(r@{op}(x))" for op in REDUCTIONS),
        _joined_reductions,
        "one pass over the elements instead of two",
    ),
    Rule("broadcast_last", "x", _computed_before_broadcast, "fewer elements to compute"),
)
