"""Stable losses and their log-probabilities: log_softmax and cross_entropy, over the last axis.

Both reduce twice: the maximum m of a row, then s = sum(exp(x - m)), for which the row is still in a cache.
Log-probabilities are (x - m) - log(s), which keeps its digits for large x where x - (m + log(s)) does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.errors import ShapeError
from graphc.ir.builder import Builder
from graphc.ir.graph import Node, Value
from graphc.ir.op import Attributes, Op, Sample, define
from graphc.ir.types import TensorType
from graphc.kernel.expr import Affine, Apply, Expr, Name
from graphc.kernel.form import Accumulate, Kernel, Let, Stage, Store
from graphc.ops import forms
from graphc.ops.indexing import check_range, expect_labels, picked
from graphc.ops.rules import FLOATS, expect_dtype, expect_operands


def _expect_classes(logits: TensorType) -> None:
    expect_dtype(logits, FLOATS, "the operand of logits")
    if logits.rank < 1 or logits.shape[-1] == 0:
        raise ShapeError("the logits have no classes; their last axis must be the classes, at least one")


def _log_softmax(x: Any) -> Any:
    shifted = x - x.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def _reduce_stages(node: Node) -> tuple[Stage, Stage]:
    """Maximum `m`, sum `s` and `log_s` of each row of operand 0, visible to the stages after them.

    Where m is infinite, x - m is NaN somewhere: an infinite logit makes its whole row NaN, as in PyTorch.
    """
    logits = node.inputs[0].type
    row = forms.identity(logits.rank - 1)
    x, reduce = forms.load(node, 0, (*row, Affine.axis("r0"))), forms.axes(logits.shape[-1:], "r")
    power = Apply("exp", (Apply("sub", (x, Name("m"))),))
    return (
        Stage(reduce=reduce, accumulates=(Accumulate(("m",), "max", (x,)),)),
        Stage(
            reduce=reduce,
            accumulates=(Accumulate(("s",), "sum", (power,)),),
            results=(Let("log_s", Apply("log", (Name("s"),))),),
        ),
    )


def _log_probability(x: Expr) -> Expr:
    return Apply("sub", (Apply("sub", (x, Name("m"))), Name("log_s")))


def _infer_log_softmax(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    expect_operands(types, 1)
    _expect_classes(types[0])
    return (types[0],)


def _log_softmax_reference(arrays: Sequence[Any], attributes: Attributes) -> tuple[Any, ...]:
    with np.errstate(all="ignore"):
        return (_log_softmax(arrays[0]),)


def _log_softmax_gradient(node: Node, cotangents: Sequence[Value | None], b: Builder) -> Sequence[Value | None]:
    """dx = g - softmax(x) * sum(g), where softmax(x) = exp(y)."""
    (g,) = cotangents
    if g is None:
        return [None]
    total = b.sum(g, axes=(node.type.rank - 1,), keepdims=True)
    return [b.sub(g, b.elementwise("mul", b.exp(node.output), total))]


def _lower_log_softmax(node: Node) -> Kernel:
    *rows, last = forms.axes(node.type.shape)
    store = Store("out0", forms.identity(node.type.rank), _log_probability(forms.load(node, 0)))
    stages = (*_reduce_stages(node), Stage(space=(last,), stores=(store,)))
    return Kernel(forms.kernel_name(node), forms.operands(node), tuple(rows), stages)


def _logit_samples() -> list[np.ndarray]:
    x = np.sin(np.arange(12.0) * 2).reshape(3, 4)
    limits = np.array([[np.inf, 0.0, 1.0], [-np.inf, 2.0, 0.0], [-np.inf, -np.inf, -np.inf], [0.0, np.nan, 1.0]])
    return [x, (100 * x).astype(np.float32), x[:, :1], x[0], (1e4 * x).reshape(3, 1, 4), limits]


LOG_SOFTMAX = define(
    Op(
        "log_softmax",
        "The logarithm of the softmax over the last axis, without overflow.",
        latex=r"y_c = x_c - \log \sum_k e^{x_k}",
        infer=_infer_log_softmax,
        reference=_log_softmax_reference,
        gradient=_log_softmax_gradient,
        lower=_lower_log_softmax,
        samples=lambda: [Sample((x,), differentiable=(0,) if abs(x).max() <= 1 else ()) for x in _logit_samples()],
    )
)


def _infer_cross_entropy(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    expect_operands(types, 2)
    _expect_classes(types[0])
    expect_labels(*types)
    return (TensorType(types[0].dtype, types[1].shape),)


def _cross_entropy_reference(arrays: Sequence[Any], attributes: Attributes) -> tuple[Any, ...]:
    logits, labels = arrays
    check_range(labels, logits.shape[-1])
    with np.errstate(all="ignore"):
        return (-np.take_along_axis(_log_softmax(logits), labels[..., None].astype(np.int64), -1)[..., 0],)


def _cross_entropy_gradient(node: Node, cotangents: Sequence[Value | None], b: Builder) -> Sequence[Value | None]:
    """dlogits = (softmax(logits) - one_hot(labels)) * g."""
    (g,), (logits, labels) = cotangents, node.inputs
    if g is None:
        return [None, None]
    marks = b.one_hot(labels, depth=logits.type.shape[-1], dtype=logits.type.dtype)
    error = b.sub(b.exp(b.log_softmax(logits)), marks)
    return [b.elementwise("mul", error, b.reshape(g, shape=(*g.type.shape, 1))), None]


def _lower_cross_entropy(node: Node) -> Kernel:
    loss = Apply("neg", (_log_probability(picked(node)),))
    stages = (*_reduce_stages(node), Stage(stores=(Store("out0", forms.identity(node.type.rank), loss),)))
    return Kernel(forms.kernel_name(node), forms.operands(node), forms.axes(node.type.shape), stages)


def _cross_entropy_samples() -> Sequence[Sample]:
    found = []
    for k, x in enumerate(_logit_samples()):
        labels = (np.arange(x[..., 0].size).reshape(x.shape[:-1]) * 2 + 1) % x.shape[-1]
        dtype = (np.int32, np.int64, np.uint8)[k % 3]
        found.append(Sample((x, labels.astype(dtype)), differentiable=(0,) if abs(x).max() <= 1 else ()))
    return found


CROSS_ENTROPY = define(
    Op(
        "cross_entropy",
        "The loss of each row: minus the log-softmax of its logits (last axis) at its label. Labels must be in range.",
        latex=r"y_n = \log \sum_k e^{x_{n,k}} - x_{n, t_n}",
        infer=_infer_cross_entropy,
        reference=_cross_entropy_reference,
        gradient=_cross_entropy_gradient,
        lower=_lower_cross_entropy,
        samples=_cross_entropy_samples,
    )
)
