"""Losses over symbols, with PyTorch's names, argument order and reductions."""

from __future__ import annotations

import warnings

from graphc.dsl import declare
from graphc.dsl.declare import Operand
from graphc.dsl.functions import integer_indices, log_softmax
from graphc.dsl.origin import here
from graphc.dsl.symbol import Symbol, elementwise, unwrap
from graphc.errors import AttributeValueError, DTypeError, NumericalWarning, ShapeError
from graphc.ir.builder import explain
from graphc.ir.graph import Value

__all__ = ["binary_cross_entropy_with_logits", "cross_entropy", "mse_loss"]

# Ops through which the elements of a softmax pass unchanged.
_PASSING = frozenset({"reshape", "transpose", "broadcast_to", "cast", "stop_gradient"})


def cross_entropy(logits: Operand, labels: Operand, reduction: str = "mean") -> Symbol:
    """-log softmax(logits)[label], the class on axis 1: logits `[N,C,...]`, labels `[N,...]` integers in 0 ... C-1.

    Labels may also be class probabilities, floating with the shape of the logits. `reduction` is "mean", "sum" or
    "none". Warns (`NumericalWarning`) when the logits come from a softmax. Raises ShapeError, DTypeError.
    Source: torch.nn.functional.cross_entropy.
    """
    scores, targets = declare.as_value(unwrap(logits)), declare.as_value(unwrap(labels))
    if scores.type.rank < 2:
        reason = f"logits need a class axis 1, [N,C], got {scores.type}"
        raise ShapeError(explain("cross_entropy", [scores.type, targets.type], reason, here()))
    if _is_softmax(scores):
        _warn_softmax(scores)
    if targets.type.dtype.is_float:
        if targets.type.rank < scores.type.rank:
            reason = ("labels need an integer dtype: gc.input(..., dtype='int32') or .astype('int32'); "
                      "float targets are probabilities of the shape of the logits")
            raise DTypeError(explain("cross_entropy", [scores.type, targets.type], reason, here()))
        return _reduced(_with_probabilities(scores, targets), reduction)
    targets = integer_indices("cross_entropy", targets)
    expected = (scores.type.shape[0], *scores.type.shape[2:])
    if targets.type.shape != expected:
        reason = "labels must have the shape of the logits without the class axis 1"
        raise ShapeError(explain("cross_entropy", [scores.type, targets.type], reason, here()))
    if scores.type.rank > 2:
        scores = declare.move_axis(scores, 1, -1)
        scores = declare.reshape(scores, (-1, scores.type.shape[-1]))
        targets = declare.reshape(targets, (-1,))
    rows = declare.apply("cross_entropy", scores, targets)
    # The mean is over all rows at once; only "none" shows their shape.
    return _reduced(declare.reshape(rows, expected) if reduction == "none" else rows, reduction)


def mse_loss(prediction: Operand, target: Operand, reduction: str = "mean") -> Symbol:
    """(prediction - target)^2, shapes equal. Source: torch.nn.functional.mse_loss."""
    _check_equal_shapes("mse_loss", prediction, target)
    difference = declare.elementwise("sub", unwrap(prediction), unwrap(target))
    return _reduced(declare.elementwise("mul", difference, difference), reduction)


def binary_cross_entropy_with_logits(logits: Operand, target: Operand, reduction: str = "mean") -> Symbol:
    """-(t log s + (1-t) log(1-s)) with s = sigmoid(logits), as softplus(z) - t z, which never overflows.

    Shapes equal; targets in 0 ... 1. Source: torch.nn.functional.binary_cross_entropy_with_logits.
    """
    _check_equal_shapes("binary_cross_entropy_with_logits", logits, target)
    z = declare.as_value(unwrap(logits))
    product = declare.elementwise("mul", unwrap(target), z)
    return _reduced(declare.elementwise("sub", declare.elementwise("softplus", z), product), reduction)


def _reduced(losses: Value, reduction: str) -> Symbol:
    if reduction not in ("mean", "sum", "none"):
        raise AttributeValueError(f"reduction {reduction!r} is not 'mean', 'sum' or 'none'")
    return Symbol(losses if reduction == "none" else declare.reduce(reduction, losses, None, False))


def _with_probabilities(scores: Value, targets: Value) -> Value:
    _check_equal_shapes("cross_entropy", scores, targets)
    weighted = elementwise("mul", targets, log_softmax(scores, axis=1).ir)
    return (-weighted.sum(axis=1)).ir


def _check_equal_shapes(op: str, first: Operand, second: Operand) -> None:
    """Losses do not broadcast: `[N,1]` against `[N]` would give `[N,N]`, a mistake found only in the curves."""
    values = [v for v in map(unwrap, (first, second)) if isinstance(v, Value)]
    if len(values) == 2 and values[0].type.shape != values[1].type.shape:
        types = [v.type for v in values]
        raise ShapeError(explain(op, types, "prediction and target must have the same shape; use .reshape", here()))


def _is_softmax(value: Value) -> bool:
    """Whether the elements come from softmax: exp(log_softmax(x)), or exp(x) / sum(exp(x)) written out."""
    node = value.producer
    while node is not None and node.op.name in _PASSING:
        node = node.inputs[0].producer
    if node is None:
        return False
    if node.op.name == "exp":
        return _made_by(node.inputs[0], "log_softmax")
    if node.op.name == "div":
        numerator, denominator = node.inputs
        return _made_by(numerator, "exp") and _made_by(denominator, "sum") and _sums(denominator, numerator)
    return False


def _made_by(value: Value, op: str) -> bool:
    return _source(value) is not None and _source_op(value) == op


def _source(value: Value) -> Value | None:
    while value.producer is not None and value.producer.op.name in _PASSING:
        value = value.producer.inputs[0]
    return value if value.producer is not None else None


def _source_op(value: Value) -> str:
    source = _source(value)
    return source.producer.op.name if source is not None and source.producer is not None else ""


def _sums(total: Value, terms: Value) -> bool:
    """Whether `total` is the sum of `terms`."""
    source = _source(total)
    assert source is not None and source.producer is not None
    return _equal(_source(source.producer.inputs[0]), _source(terms))


def _equal(first: Value | None, second: Value | None, depth: int = 8) -> bool:
    """Whether two values are computed alike, as `exp(x)` written twice is; random samples are equal to themselves."""
    if first is second:
        return True
    if first is None or second is None or not depth:
        return False
    a, b = first.producer, second.producer
    if a is None or b is None or a.op is not b.op or a.attributes != b.attributes or "stream" in a.attributes:
        return False
    return len(a.inputs) == len(b.inputs) and all(
        _equal(v, w, depth - 1) for v, w in zip(a.inputs, b.inputs, strict=True)
    )


def _warn_softmax(scores: Value) -> None:
    message = (
        "cross_entropy takes logits and applies log_softmax itself, but its input comes from a softmax; "
        "leave the softmax out (or use -gc.sum(labels * gc.log(p)) if probabilities are all there is)"
    )
    warnings.warn(explain("cross_entropy", [scores.type], message, here()), NumericalWarning, stacklevel=3)
