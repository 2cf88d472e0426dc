"""From symbols to a declared graph: the function of inputs, variables and random state that a program computes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np

from graphc.dsl import declare
from graphc.dsl.regions import RNG, Placeholder, Region
from graphc.dsl.symbol import Symbol
from graphc.dsl.variables import Input, Leaf, Variable
from graphc.dsl.watch import Watch, refuse_inside, watched
from graphc.errors import InputError, StateError, SymbolError
from graphc.ir.graph import Graph, Node, Value, rebuild, topological

__all__ = ["Declared", "collect"]


@dataclass(frozen=True, eq=False)
class Declared:
    """A declared graph and what its inputs and outputs stand for.

    The graph's inputs are `inputs`, then `variables` in the order of their first use, then `rng` (i64[2]) if
    `uses_rng`; its outputs are the results, then what is watched, then the new values of `updated`.
    """

    graph: Graph
    inputs: tuple[Input, ...]
    variables: tuple[Variable, ...]
    updated: tuple[Variable, ...]
    uses_rng: bool
    watches: tuple[Watch, ...] = ()

    @property
    def results(self) -> int:
        """How many of the graph's outputs are results, that is neither watched nor updates."""
        return len(self.graph.outputs) - len(self.watches) - len(self.updated)

    @property
    def named_variables(self) -> dict[str, Variable]:
        """Each variable by the name of its graph input (its own name may change when a module takes it in)."""
        leaves = self.graph.inputs[len(self.inputs) :]
        return {leaf.name: variable for leaf, variable in zip(leaves, self.variables, strict=False)}


def collect(
    inputs: Sequence[Input],
    outputs: Sequence[Symbol],
    updates: Mapping[Variable, Any] | None = None,
    *,
    name: str = "program",
) -> Declared:
    """The declared graph that computes `outputs` and the new values of the variables in `updates` from `inputs`.

    Random ops get their stream numbers, in topological order; variables that modules named get unique names. An input
    that nothing reads stays an input. Raises InputError (an input is missing from the list, listed twice, no
    `gc.input`, or two tensors have one name), StateError (an update of something that is no variable, or whose new
    value has another shape or dtype).
    """
    listed = _checked_inputs(inputs)
    if isinstance(outputs, Symbol):
        raise InputError(f"outputs must be a list: [loss]; got one symbol, {outputs!r}")
    results = [_checked_output(output) for output in outputs]
    updated = tuple(updates or ())
    news = [_new_value(variable, new) for variable, new in (updates or {}).items()]
    values = [*results, *news]
    nodes = topological(values)
    variables, uses_rng = _leaves(listed, values, nodes)
    variables = tuple(dict.fromkeys((*variables, *updated)))
    watches = _watches(listed, variables, uses_rng, nodes)
    if watches:
        values = [*results, *(w.value for w in watches), *_guarded(updated, news, watches)]
        nodes = topological(values)
    leaves = _named_leaves(listed, variables)
    rng = (RNG,) if uses_rng else ()
    new = _copied(nodes, {**leaves, RNG: RNG})
    graph = Graph(name, (*leaves.values(), *rng), tuple(new[v] for v in values))
    return Declared(graph, listed, variables, updated, uses_rng, watches)


def _checked_inputs(inputs: Sequence[Input]) -> tuple[Input, ...]:
    if isinstance(inputs, Symbol):
        raise InputError("inputs must be a list of gc.input symbols, got one symbol; write [x]")
    for symbol in inputs:
        if not isinstance(symbol, Input):
            raise InputError(f"inputs must be symbols made by gc.input, got {symbol!r}")
    if len(set(inputs)) != len(inputs):
        raise InputError(f"an input is listed twice in {[i.name for i in inputs]}")
    return tuple(inputs)


def _checked_output(output: Symbol) -> Value:
    if not isinstance(output, Symbol):
        raise InputError(f"outputs must be symbols, got {type(output).__name__}; gc.constant makes one of a number")
    return output.ir


def _new_value(variable: Variable, new: Any) -> Value:
    """The value of an update, of the variable's type; numbers and arrays become constants."""
    if not isinstance(variable, Variable):
        raise StateError(f"updates must be of variables (gc.param, gc.state), got {variable!r}")
    if isinstance(new, Symbol):
        value = new.ir
    else:
        value = declare.constant(variable.checked(_spread(new, variable)), variable.dtype)
    if value.type != variable.type:
        place = f"; declared at {value.origin.place}" if value.origin.place else ""
        raise StateError(
            f"update of {variable.name}: the new value is {value.type}, the variable "
            f"{variable.type}{place}. Sum over, reshape or .astype the new value"
        )
    return value


def _spread(new: Any, variable: Variable) -> np.ndarray[Any, Any]:
    """A number in every element of the variable; an array as it is."""
    array = np.asarray(new)
    return array if array.ndim else np.full(variable.static_shape, array)


def _watches(
    inputs: Sequence[Input], variables: Sequence[Variable], uses_rng: bool, nodes: Sequence[Node]
) -> tuple[Watch, ...]:
    """What the program prints and asserts."""
    for node in nodes:
        bodies = [value for value in node.attributes.values() if isinstance(value, Graph)]
        for body in bodies:
            refuse_inside(body.nodes, f"the functions given to {node.op.name}")
    return watched([*(i.ir for i in inputs), *(v.ir for v in variables), *([RNG] if uses_rng else [])], nodes)


def _guarded(updated: Sequence[Variable], news: Sequence[Value], watches: Sequence[Watch]) -> list[Value]:
    """The new values, or the old ones where an assertion fails."""
    conditions = [watch.holds for watch in watches if watch.holds is not None]
    if not conditions:
        return list(news)
    holds = reduce(lambda a, b: declare.elementwise("logical_and", a, b), conditions)
    return [declare.where(holds, new, variable.ir) for variable, new in zip(updated, news, strict=True)]


def _leaves(
    listed: Sequence[Input], values: Iterable[Value], nodes: Iterable[Node]
) -> tuple[tuple[Variable, ...], bool]:
    """The variables that are read, in the order of first use, and whether random numbers are."""
    variables: dict[Variable, None] = {}
    uses_rng = False
    for value in (*(v for node in nodes for v in node.inputs), *values):
        if value.producer is not None:
            continue
        owner = value.owner if isinstance(value, Leaf) else None
        if value is RNG:
            uses_rng = True
        elif isinstance(owner, Variable):
            variables[owner] = None
        elif isinstance(value, Placeholder) and value.region is not None:
            raise SymbolError(_escaped(value, value.region))
        elif not isinstance(owner, Input):
            raise InputError(f"the graph reads {value!r}, which is no input, parameter or state")
        elif owner not in listed:
            place = f" (declared at {value.origin.place})" if value.origin.place else ""
            raise InputError(
                f"the outputs depend on the input {owner.name!r}{place}, which is not in the list of "
                f"inputs [{', '.join(i.name for i in listed)}]; add it"
            )
    return tuple(variables), uses_rng


def _named_leaves(inputs: Sequence[Input], variables: Sequence[Variable]) -> dict[Value, Value]:
    """Graph inputs with unique names. Only names that modules gave may be changed to make them so."""
    fixed: list[Input | Variable] = [*inputs, *(v for v in variables if not v.automatic_name)]
    taken: dict[str, Input | Variable] = {}
    for symbol in fixed:
        if symbol.name in taken:
            raise InputError(f"two tensors are called {symbol.name!r}: {taken[symbol.name]!r}, {symbol!r}; rename one")
        taken[symbol.name] = symbol
    leaves: dict[Value, Value] = {}
    everything: tuple[Input | Variable, ...] = (*inputs, *variables)
    for symbol in everything:
        name, number = symbol.name, 1
        while taken.get(name, symbol) is not symbol:
            name, number = f"{symbol.name}.{number}", number + 1
        taken[name] = symbol
        assert isinstance(symbol.ir, Leaf)
        leaves[symbol.ir] = replace(symbol.ir, name=name)
    return leaves


def _escaped(value: Placeholder, region: Region) -> str:
    place = f" (traced at {region.origin.place})" if region.origin.place else ""
    return (
        f"the outputs depend on {value.name!r}, which has a value only inside {region.what}{place}; "
        "return what is needed from the function, and use what the loop or branch gives"
    )


def _copied(nodes: Iterable[Node], new: dict[Value, Value]) -> dict[Value, Value]:
    """Copies of the nodes over the leaves in `new`, random streams numbered."""
    streams = itertools.count()
    for node in nodes:
        inputs = tuple(new[v] for v in node.inputs)
        copy = Node(node.op, inputs, _numbered(node, streams), node.output_types, node.origin)
        new.update(zip(node.outputs, copy.outputs, strict=True))
    return new


def _numbered(node: Node, streams: Iterator[int]) -> Mapping[str, Any]:
    """The node's attributes, with the next stream number for a random op, in nested graphs too."""
    changed: dict[str, Any] = {}
    for name, value in node.attributes.items():
        if name == "stream" and value == -1:
            changed[name] = next(streams)
        elif isinstance(value, Graph):
            changed[name] = rebuild(value, lambda inner, inputs: _renumbered(inner, inputs, streams))
    return node.op.complete({**node.attributes, **changed}) if changed else node.attributes


def _renumbered(node: Node, inputs: tuple[Value, ...], streams: Iterator[int]) -> Sequence[Value] | None:
    attributes = _numbered(node, streams)
    same = attributes is node.attributes
    return None if same else Node(node.op, inputs, attributes, node.output_types, node.origin).outputs
