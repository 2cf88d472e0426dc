"""Transforms of declared graphs: gradients.

`grad` is deferred: it declares one node that the first pass of the compiler replaces by the derivative graph, so a
program found in the cache never derives anything. What can be said of the path from the loss to a parameter is said
at declaration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, overload

import numpy as np

from graphc.dsl.collect import collect
from graphc.dsl.origin import here
from graphc.dsl.random import RNG
from graphc.dsl.symbol import Symbol
from graphc.dsl.variables import Input, Leaf, Variable
from graphc.errors import GradientError
from graphc.ir.builder import Builder
from graphc.ir.graph import Node, Value, reached_from, topological
from graphc.ir.op import OPS, NotDifferentiable

__all__ = ["check_gradients", "grad", "value_and_grad"]


@overload
def grad(loss: Symbol, wrt: Symbol) -> Symbol: ...
@overload
def grad(loss: Symbol, wrt: Sequence[Symbol]) -> list[Symbol]: ...
def grad(loss: Symbol, wrt: Symbol | Sequence[Symbol]) -> Symbol | list[Symbol]:
    """The gradient of the scalar `loss` with respect to one symbol, or to several (a list, in their order).

    `wrt` may hold parameters, inputs and intermediate results; gradients of gradients work. Raises GradientError if
    the loss is no floating scalar, if it does not depend differentiably on a symbol, or if an op without a gradient
    lies between (the message names it).
    """
    gradients = gradients_of(loss, [wrt] if isinstance(wrt, Symbol) else list(wrt))
    return gradients[0] if isinstance(wrt, Symbol) else gradients


def gradients_of(
    loss: Symbol, sources: Sequence[Symbol], unused: str = "leave it out of wrt, or use it in the loss"
) -> list[Symbol]:
    """See `grad`; `unused` is the advice about a source that the loss does not depend on."""
    _check_loss(loss)
    for source in sources:
        _check_source(source)
    if not sources:
        return []
    _check_paths(loss.ir, [s.ir for s in sources], unused)
    found = Builder(here()).apply(OPS["grad"], (loss.ir, *(s.ir for s in sources)), {})
    return [Symbol(value) for value in (found if isinstance(found, tuple) else (found,))]


@overload
def value_and_grad(loss: Symbol, wrt: Symbol) -> tuple[Symbol, Symbol]: ...
@overload
def value_and_grad(loss: Symbol, wrt: Sequence[Symbol]) -> tuple[Symbol, list[Symbol]]: ...
def value_and_grad(loss: Symbol, wrt: Symbol | Sequence[Symbol]) -> tuple[Symbol, Symbol | list[Symbol]]:
    """`(loss, grad(loss, wrt))`. A static graph computes what both share once in any case."""
    return loss, grad(loss, wrt)


def _check_loss(loss: Any) -> None:
    if not isinstance(loss, Symbol):
        raise GradientError(f"grad: the loss must be a symbol, got {type(loss).__name__}")
    if loss.shape:
        raise GradientError(f"grad: the loss must be a scalar, got {loss!r}; take its sum or mean")
    if not loss.dtype.is_float:
        raise GradientError(f"grad: the loss must be float32 or float64, got {loss!r}")


def _check_source(source: Any) -> None:
    if not isinstance(source, Symbol):
        raise GradientError(f"grad: expected symbols to differentiate by, got {type(source).__name__}")
    if not source.dtype.is_float:
        raise GradientError(f"grad: {source!r} is not floating, so there is no gradient with respect to it")


def _check_paths(loss: Value, sources: Sequence[Value], unused: str) -> None:
    nodes = topological([loss])
    live = _differentiably_read(loss, nodes)
    for source in sources:
        if source not in live and not _blocked_between([source], live, nodes):
            raise GradientError(_unreached(loss, source, nodes, unused))
    for node in _blocked_between(sources, live, nodes):
        assert isinstance(node.op.gradient, NotDifferentiable)
        raise GradientError(
            f"grad: {node.op.name} has no gradient ({node.op.gradient.reason}), and the loss depends on "
            f"{_names(sources)} through it{_place(node)}; use gc.stop_gradient(operand) to hold it constant"
        )


def _differentiably_read(loss: Value, nodes: Sequence[Node]) -> set[Value]:
    """The floating values that the loss depends on through ops that have gradients."""
    live = {loss}
    for node in reversed(nodes):
        if _passes(node) and any(v in live for v in node.outputs):
            live.update(v for v in node.inputs if v.type.dtype.is_float)
    return live


def _blocked_between(sources: Iterable[Value], live: set[Value], nodes: Sequence[Node]) -> list[Node]:
    """Ops without a gradient that lie on a path of floating values from `sources` to the loss."""
    active, blocked = set(sources), []
    for node in nodes:
        if node.op.name == "stop_gradient" or not any(v in active for v in node.inputs):
            continue
        outputs = [v for v in node.outputs if v.type.dtype.is_float and v not in active]
        if isinstance(node.op.gradient, NotDifferentiable):
            if any(v in live for v in outputs):
                blocked.append(node)
        else:
            active.update(outputs)
    return blocked


def _passes(node: Node) -> bool:
    return node.op.name != "stop_gradient" and not isinstance(node.op.gradient, NotDifferentiable)


def _unreached(loss: Value, source: Value, nodes: Sequence[Node], unused: str) -> str:
    what = f"grad: the loss{_place(loss)}"
    reached = reached_from([source], nodes)
    if loss not in reached:
        return f"{what} does not depend on {_names([source])}; {unused}"
    cuts = {
        n.op.name
        for n in nodes
        if n.inputs
        and any(v in reached for v in n.inputs)
        and (not _passes(n) or not any(v.type.dtype.is_float for v in n.outputs))
    }
    return f"{what} depends on {_names([source])} only through {', '.join(sorted(cuts))}, which pass no gradient"


def _names(values: Sequence[Value]) -> str:
    """Names as the user knows them: a variable's path in its module, which its owner has, comes first."""
    owners = [getattr(v.owner, "name", "") if isinstance(v, Leaf) else "" for v in values]
    return ", ".join(o or v.name or f"the {v.type}{_place(v)}" for o, v in zip(owners, values, strict=True))


def _place(item: Node | Value) -> str:
    origin = item.origin
    module = f" in module {origin.module}" if origin.module else ""
    return module + (f" (declared at {origin.place})" if origin.place else "")


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
