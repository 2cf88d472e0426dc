"""Rewrites of expressions that overflow or cancel into the stable op that means the same.

They run before differentiation too: the gradient of a naive `log(softmax(z))` overflows where its value does.
The softmax rules hold along the last axis. Sources: Higham, "Accuracy and Stability of Numerical Algorithms",
2nd ed., chapter 1; Blanchard, Higham & Higham, "Accurately computing the log-sum-exp and softmax functions", 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Value
from graphc.passes.manager import PassResult
from graphc.passes.rewrite import Match, Rule, left_in, rewrite


@dataclass(frozen=True)
class Stability:
    """Replace unstable expressions by stable ops: first `WHOLES`, then also `PARTS` of what is left.

    Rules named in `without` are left out.
    """

    without: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """`stability`."""
        return "stability"

    def __call__(self, graph: Graph) -> PassResult:
        """The graph with every rule of `RULES` applied to a fixed point."""
        wholes = rewrite(graph, left_in(WHOLES, self.without))
        parts = rewrite(wholes.graph, left_in(RULES, self.without))
        return PassResult(parts.graph, wholes.rewrites + parts.rewrites)


def _has_classes(match: Match) -> bool:
    """False for rows without elements, which log_softmax refuses."""
    return match.root.type.shape[-1] != 0


def _drops_no_target(match: Match) -> bool:
    """False if a gradient by something that only the shift depends on is asked for: it is zero, but must exist."""
    stack, seen = [match["m"]], {match["x"]}
    while stack:
        value = stack.pop()
        if value in seen:
            continue
        if value in match.sweep.protected:
            return False
        seen.add(value)
        if value.producer is not None and value.producer.op.name != "stop_gradient":
            stack.extend(value.producer.inputs)
    return True


def _is_unshifted(match: Match) -> bool:
    """True if the operand of exp is not shifted already, by a user or by one of these rules, and has a maximum."""
    node, axes = match["x"].producer, match.node("s").attributes["axes"]
    if any(match["x"].type.shape[axis] == 0 for axis in axes):
        return False
    if node is None or node.op.name != "sub":
        return True
    shift = node.inputs[1]
    if shift.producer is not None and shift.producer.op.name == "broadcast_to":
        shift = shift.producer.inputs[0]
    return shift.type.rank != node.type.rank or any(shift.type.shape[axis] != 1 for axis in axes)


def _largest(match: Match, b: Builder) -> Value:
    """max(x) over the reduced axes, kept finite so that rows of infinities give the right limits.

    It is a constant to the gradient: what it is used for does not depend on it.
    """
    x = match["x"]
    limit = float(np.finfo(x.type.dtype.numpy).max)
    top = b.stop_gradient(b.max(x, axes=match.node("s").attributes["axes"], keepdims=True))
    return b.minimum(b.maximum(top, b.full(-limit, top.type)), b.full(limit, top.type))


def _log_sum_exp(match: Match, b: Builder) -> Value:
    """m + log(sum(exp(x - m))) with m = max(x)."""
    sum_attributes, top = match.node("s").attributes, _largest(match, b)
    total = b.log(b.sum(b.exp(b.elementwise("sub", match["x"], top)), **sum_attributes))
    return b.add(total, top if sum_attributes["keepdims"] else b.reshape(top, shape=total.type.shape))


def _shifted_softmax(match: Match, b: Builder) -> Value:
    """exp(x - m) / sum(exp(x - m)) with m = max(x)."""
    powers = b.exp(b.elementwise("sub", match["x"], _largest(match, b)))
    return b.elementwise("div", powers, b.sum(powers, axes=match.node("s").attributes["axes"], keepdims=True))


def _without_negation(match: Match, b: Builder) -> Value:
    reduction = match.node("r")
    result = b.apply(reduction.op, [match["x"]], dict(reduction.attributes))
    assert isinstance(result, Value)
    return result


WHOLES: tuple[Rule, ...] = (
    # -- softmax and cross-entropy
    Rule(
        "log_of_softmax",
        "log(div(exp(x), per_row(sum(exp(x), axes=last))))",
        "log_softmax(x)",
        "exp overflows for large x, and the logarithm of a probability that rounds to 0 is -inf",
        _has_classes,
    ),
    Rule(
        "log_sum_exp_difference",
        "sub(x, per_row(log(sum(exp(x), axes=last))))",
        "log_softmax(x)",
        "exp overflows for large x and the difference cancels",
        _has_classes,
    ),
    Rule(
        "shifted_log_softmax",
        "log_softmax(sub(x, per_row(m))) | log_softmax(add(x, per_row(m)))",
        "log_softmax(x)",
        "log_softmax does not change when a number is added to a row, and subtracts the maximum itself",
        _drops_no_target,
    ),
    Rule(
        "cross_entropy",
        "neg(gather(p@log_softmax(z), t))",
        "cross_entropy(z, t)",
        "one pass over the logits, and the gradient softmax(z) - one_hot(t) without a scatter",
        lambda match: match.read_once(match["p"]),
    ),
    Rule("double_negation", "neg(neg(x))", "x", "the signs cancel"),
    Rule("negated_twice", "neg(r@mean(neg(x))) | neg(r@sum(neg(x)))", _without_negation, "the signs cancel"),
    # -- sigmoid and softplus
    Rule("log_of_picked_exp", "log(gather(exp(x), t))", "gather(x, t)", "the logarithm of exp(x) rounded to 0 is -inf"),
    Rule("log_of_exp", "log(exp(x))", "x", "exp overflows for large x"),
    Rule("softplus", "log(add(1, exp(x))) | log1p(exp(x))", "softplus(x)", "exp overflows for large x"),
    Rule("log_of_sigmoid", "log(sigmoid(x))", "neg(softplus(neg(x)))", "sigmoid(x) rounds to 0 for very negative x"),
    Rule(
        "log_of_one_minus_sigmoid",
        "log(sub(1, sigmoid(x))) | log1p(neg(sigmoid(x)))",
        "neg(softplus(x))",
        "1 - sigmoid(x) cancels to 0 for large x",
    ),
    Rule(
        "sigmoid",
        "div(1, add(1, exp(neg(x)))) | div(1, add(1, exp(mul(x, -1))))",
        "sigmoid(x)",
        "exp(-x) overflows for very negative x, and its gradient with it",
    ),
    Rule(
        "sigmoid_of_ratio",
        "div(exp(x), add(1, exp(x)))",
        "sigmoid(x)",
        "exp(x) overflows for large x: inf / inf is NaN",
    ),
    # -- numbers near one
    Rule("log1p", "log(add(1, x))", "log1p(x)", "1 + x drops the digits of a small x"),
    Rule("expm1", "sub(exp(x), 1) | add(exp(x), -1)", "expm1(x)", "exp(x) - 1 cancels for small x"),
)

# What remains when no larger expression matched: these would take a part out of one.
PARTS: tuple[Rule, ...] = (
    Rule(
        "picked_log_softmax",
        "gather(p@log_softmax(z), t)",
        "neg(cross_entropy(z, t))",
        "one pass over the logits, and the gradient softmax(z) - one_hot(t) without a scatter",
        lambda match: match.read_once(match["p"]),
    ),
    Rule(
        "softmax",
        "div(exp(x), per_row(s@sum(exp(x), axes=last)))",
        _shifted_softmax,
        "exp overflows for large x: inf / inf is NaN",
        _is_unshifted,
    ),
    Rule("log_sum_exp", "log(s@sum(exp(x)))", _log_sum_exp, "exp overflows for large x", _is_unshifted),
)
RULES = WHOLES + PARTS
