"""Transforms of declared graphs: gradients, products with Jacobians, Jacobians and Hessians.

They are deferred: each declares one node that the first pass of the compiler replaces by the derivative graph, so a
program found in the cache never derives anything. What can be said of the path from an output to a parameter is said
at declaration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, overload

import numpy as np

from graphc.dsl import declare
from graphc.dsl.collect import collect
from graphc.dsl.declare import Operand
from graphc.dsl.origin import here
from graphc.dsl.paths import check_paths
from graphc.dsl.random import RNG
from graphc.dsl.symbol import Symbol, unwrap
from graphc.dsl.variables import Input, Variable
from graphc.errors import GradientError
from graphc.ir.builder import Builder
from graphc.ir.dims import format_shape
from graphc.ir.graph import Value
from graphc.ir.op import OPS

__all__ = ["check_gradients", "grad", "hessian", "hvp", "jacobian", "jvp", "value_and_grad", "vjp"]

Symbols = Symbol | Sequence[Symbol]


@overload
def grad(loss: Symbol, wrt: Symbol) -> Symbol: ...
@overload
def grad(loss: Symbol, wrt: Sequence[Symbol]) -> list[Symbol]: ...
def grad(loss: Symbol, wrt: Symbols) -> Symbol | list[Symbol]:
    """The gradient of the scalar `loss` with respect to one symbol, or to several (a list, in their order).

    `wrt` may hold parameters, inputs and intermediate results; gradients of gradients work. Raises GradientError if
    the loss is no floating scalar, if it does not depend differentiably on a symbol, or if an op without a gradient
    lies between (the message names it).
    """
    return _like(wrt, _gradients("grad", loss, _listed(wrt)))


@overload
def value_and_grad(loss: Symbol, wrt: Symbol) -> tuple[Symbol, Symbol]: ...
@overload
def value_and_grad(loss: Symbol, wrt: Sequence[Symbol]) -> tuple[Symbol, list[Symbol]]: ...
def value_and_grad(loss: Symbol, wrt: Symbols) -> tuple[Symbol, Symbol | list[Symbol]]:
    """`(loss, grad(loss, wrt))`. A static graph computes what both share once in any case."""
    return loss, grad(loss, wrt)


def vjp(outputs: Symbols, wrt: Symbols, cotangents: Operand | Sequence[Operand]) -> Symbol | list[Symbol]:
    """The vector-Jacobian product: cotangents of `wrt` from cotangents of `outputs`, by reverse mode.

    `cotangents` are symbols, arrays or (for every element) numbers: one for one output, as many as outputs for a
    list; shapes as the outputs'. The result has the shapes of `wrt`, a list for a list. Raises GradientError as
    `grad` does, and for vectors that do not fit.
    """
    listed, sources = _outputs("vjp", outputs), _listed(wrt)
    vectors = _vectors("vjp", "cotangent", outputs, listed, cotangents)
    _check_sources("vjp", sources)
    check_paths("vjp", _values(listed), _values(sources))
    operands = (*_values(listed), *vectors, *_values(sources))
    return _like(wrt, _applied("vjp", operands, outputs=len(listed)) if sources else [])


def jvp(outputs: Symbols, wrt: Symbols, tangents: Operand | Sequence[Operand]) -> Symbol | list[Symbol]:
    """The Jacobian-vector product: tangents of `outputs` from tangents of `wrt`, by forward mode.

    `jvp(loss, [W], [dW])` is the derivative of the loss in the direction dW. `tangents` are symbols, arrays or (for
    every element) numbers, one for each of `wrt`, of their shapes. The result has the shapes of `outputs`, a list for
    a list. All that is not in `wrt` is held constant, what is in it varies by itself. Raises GradientError as `grad`
    does, and for vectors that do not fit.
    """
    listed, sources = _outputs("jvp", outputs), _listed(wrt)
    _check_sources("jvp", sources)
    vectors = _vectors("jvp", "tangent", wrt, sources, tangents)
    if not sources:
        raise GradientError("jvp: wrt is empty; name what the tangents belong to")
    check_paths("jvp", _values(listed), _values(sources))
    operands = (*_values(listed), *_values(sources), *vectors)
    return _like(outputs, _applied("jvp", operands, outputs=len(listed)))


def hvp(loss: Symbol, wrt: Symbols, vectors: Operand | Sequence[Operand]) -> Symbol | list[Symbol]:
    """The Hessian of the scalar `loss` by `wrt`, times vectors of their shapes: forward mode over reverse mode.

    It costs a few gradients and never makes the Hessian. (Pearlmutter, "Fast exact multiplication by the Hessian",
    Neural Computation 6(1), 1994.) Raises GradientError as `grad` and `jvp` do.
    """
    sources = _listed(wrt)
    given = _vectors("hvp", "vector", wrt, sources, vectors)
    gradients = _gradients("hvp", loss, sources)
    operands = (*_values(gradients), *_values(sources), *given)
    return _like(wrt, _applied("jvp", operands, outputs=len(gradients)) if sources else [])


def jacobian(output: Symbol, wrt: Symbols) -> Symbol | list[Symbol]:
    """The derivative of every element of `output` by every element of `wrt`, of shape `output.shape + wrt.shape`.

    One reverse pass for each element of the output, or one forward pass for each element of `wrt` if these are fewer,
    all in one graph: for small outputs. Sizes must be integers. Raises GradientError as `grad` does, ShapeError.
    """
    (listed,), sources = _outputs("jacobian", output), _listed(wrt)
    _check_sources("jacobian", sources)
    check_paths("jacobian", [listed.ir], _values(sources))
    return _like(wrt, _applied("jacobian", (listed.ir, *_values(sources))) if sources else [])


def hessian(loss: Symbol, wrt: Symbols) -> Symbol | list[list[Symbol]]:
    """The second derivatives of the scalar `loss`: for one symbol of shape s a symbol of shape s + s.

    For a list the blocks `[[d2 loss / d wrt[i] d wrt[j] ...] ...]`. It is the Jacobian of the gradient, see there.
    """
    sources = _listed(wrt)
    gradients = _gradients("hessian", loss, sources)
    blocks = [_applied("jacobian", (g.ir, *_values(sources))) for g in gradients]
    return blocks[0][0] if isinstance(wrt, Symbol) else blocks


def gradients_of(loss: Symbol, sources: Sequence[Symbol], unused: str) -> list[Symbol]:
    """See `grad`; `unused` is the advice about a source that the loss does not depend on."""
    return _gradients("grad", loss, sources, unused)


def _gradients(op: str, loss: Symbol, sources: Sequence[Symbol], unused: str = "") -> list[Symbol]:
    if not isinstance(loss, Symbol):
        raise GradientError(f"{op}: the loss must be a symbol, got {type(loss).__name__}")
    if loss.shape:
        raise GradientError(f"{op}: the loss must be a scalar, got {loss!r}; take its sum or mean")
    if not loss.dtype.is_float:
        raise GradientError(f"{op}: the loss must be float32 or float64, got {loss!r}")
    _check_sources(op, sources)
    check_paths(op, [loss.ir], _values(sources), unused)
    return _applied("grad", (loss.ir, *_values(sources))) if sources else []


def _applied(op: str, operands: Sequence[Value], **attributes: Any) -> list[Symbol]:
    found = Builder(here()).apply(OPS[op], operands, attributes)
    return [Symbol(value) for value in (found if isinstance(found, tuple) else (found,))]


def _listed(symbols: Symbols) -> list[Symbol]:
    if isinstance(symbols, Symbol):
        return [symbols]
    return list(symbols)


def _like(asked: Symbols, found: list[Symbol]) -> Symbol | list[Symbol]:
    return found[0] if isinstance(asked, Symbol) else found


def _values(symbols: Sequence[Symbol]) -> list[Value]:
    return [symbol.ir for symbol in symbols]


def _outputs(op: str, outputs: Any) -> list[Symbol]:
    listed: list[Any] = _listed(outputs) if isinstance(outputs, (Symbol, list, tuple)) else [outputs]
    for output in listed:
        if not isinstance(output, Symbol) or not output.dtype.is_float:
            found = repr(output) if isinstance(output, Symbol) else type(output).__name__
            raise GradientError(f"{op}: the output must be a float32 or float64 symbol, got {found}")
    if not listed:
        raise GradientError(f"{op}: there are no outputs to differentiate")
    return listed


def _check_sources(op: str, sources: Sequence[Symbol]) -> None:
    for source in sources:
        if not isinstance(source, Symbol):
            raise GradientError(f"{op}: expected symbols to differentiate by, got {type(source).__name__}")
        if not source.dtype.is_float:
            raise GradientError(f"{op}: {source!r} is not floating, so there is no gradient with respect to it")


def _vectors(op: str, what: str, asked: Symbols, like: Sequence[Symbol], vectors: Any) -> list[Value]:
    """The vectors as values of the types of `like`; numbers are spread over all elements."""
    given = [vectors] if isinstance(asked, Symbol) else list(vectors)
    if len(given) != len(like):
        raise GradientError(f"{op}: {len(like)} {what}s are needed, one for each of {like!r}, got {len(given)}")
    found = []
    for symbol, vector in zip(like, given, strict=True):
        value, type_ = unwrap(vector), symbol.ir.type
        if not isinstance(value, Value):
            value = declare.constant(value, type_.dtype)
            value = value if value.type.rank else declare.broadcast_to(value, type_.shape)
        if value.type != type_:
            shapes = f"{value.type.dtype}{format_shape(value.type.shape)}"
            raise GradientError(f"{op}: the {what} of {symbol!r} must be {type_} like it, got {shapes}")
        found.append(value)
    return found


def check_gradients(
    loss: Symbol, wrt: Sequence[Symbol], at: Mapping[Symbol, Any], *, order: int = 1, rtol: float = 1e-6, seed: int = 0
) -> float:
    """Compare `grad(loss, wrt)` with central differences, in float64 on the reference interpreter.

    `at` maps every input that the loss needs to an array; parameters and state have their values, unless `at` gives
    others. `wrt` may hold inputs and variables. `seed` is that of random ops. Returns the largest relative error;
    raises GradientError naming the worst element if it exceeds `rtol`. Every element costs two evaluations, so use
    small arrays. `order=2` checks gradients of gradients.
    """
    from graphc.autodiff.check import check_gradients as check

    declared = collect([s for s in at if isinstance(s, Input)], [loss])
    symbols: list[Input | Variable] = [*declared.inputs, *declared.variables]
    names: dict[Symbol, str] = {symbol: leaf.name for symbol, leaf in zip(symbols, declared.graph.inputs, strict=False)}
    unknown = [symbol for symbol in (*wrt, *at) if symbol not in names]
    if unknown:
        raise GradientError(
            f"check_gradients: {unknown[0]!r} is no input, parameter or state that the loss depends on; check by "
            "inputs and variables only"
        )
    arrays = {name: v.value for name, v in declared.named_variables.items()} | {names[s]: at[s] for s in at}
    if declared.uses_rng:
        arrays[RNG.name] = np.array([seed, 0], np.int64)
    return check(declared.graph, arrays, [names[symbol] for symbol in wrt], order, rtol)
