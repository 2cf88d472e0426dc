"""Regions: functions of the user that are traced into graphs of their own, the bodies of loops and branches.

Such a graph is closed: all that the function uses of the world around it becomes an operand (closure conversion). In a
loop what does not depend on the turn stays outside and is computed once; in a branch all that the function declares is
inside, so that it is computed only where the branch is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from graphc.dsl.origin import here
from graphc.errors import SymbolError
from graphc.ir.builder import Builder
from graphc.ir.dims import Dim
from graphc.ir.graph import Graph, Node, Value, next_number, reached_from, topological, with_inputs
from graphc.ir.op import OPS
from graphc.ir.types import TensorType, i64
from graphc.ops.derivatives import differentiated
from graphc.ops.nested import Parameters

__all__ = ["RNG", "Placeholder", "Region", "captured_by", "closed", "current", "random_state", "refuse"]

RNG = Value(TensorType(i64, (2,)), name="rng")
"""The graph input that holds `[seed, step]`; the runtime gives its value."""


@dataclass(frozen=True, eq=False)
class Placeholder(Value):
    """An argument of a function that is traced: it has a meaning inside of `region` only."""

    region: Region | None = None


MOVES = ("broadcast_to", "reshape", "transpose")  # kernels read their operand in another way, and copy nothing


class Region:
    """A function being traced. `what` names it in messages; `turns` is set for loops, 0 for any number of them."""

    def __init__(self, what: str, turns: Dim | None = None) -> None:
        self.what = what
        self.turns = turns
        self.origin = here()
        self.outer = _CURRENT.get()
        self.since = next_number()
        self.turn: Placeholder | None = None  # the number of the turn, for those who ask
        self._state: Value | None = None

    @property
    def is_branch(self) -> bool:
        """Whether all that is declared in it belongs to it, also what does not depend on its arguments."""
        return self.turns is None

    def argument(self, name: str, type_: TensorType) -> Placeholder:
        """A new argument of the function."""
        return Placeholder(type_, name=name, region=self)

    def random_state(self) -> Value:
        """The random state in this region: another one in each turn of a loop."""
        around = RNG if self.outer is None else self.outer.random_state()
        if self.turns is None:
            return around
        if self._state is None:
            self.turn = Placeholder(TensorType(i64, ()), name="turn", region=self)
            state = Builder(here()).apply(OPS["turn_state"], (around, self.turn), {"turns": self.turns})
            assert isinstance(state, Value)
            self._state = state
        return self._state

    def holds(self, value: Value) -> bool:
        """Whether the value belongs to the region, or to one inside of it."""
        nodes = topological([value])
        leaves = {v for node in nodes for v in node.inputs if v.producer is None} | {value}
        if any(isinstance(v, Placeholder) and v.region is self for v in leaves):
            return True
        return self.is_branch and value.producer is not None and value.producer.number >= self.since

    @contextmanager
    def traced(self) -> Iterator[Region]:
        """Declare nodes in this region inside the `with` block."""
        token = _CURRENT.set(self)
        try:
            yield self
        finally:
            _CURRENT.reset(token)


_CURRENT: ContextVar[Region | None] = ContextVar("graphc_region", default=None)


def current() -> Region | None:
    """The innermost region being traced in this thread or task; None outside all functions of loops and branches."""
    return _CURRENT.get()


def random_state() -> Value:
    """The random state that random ops declared now read."""
    region = _CURRENT.get()
    return RNG if region is None else region.random_state()


def refuse(use: str, value: Value | None, advice: str) -> None:
    """Raise SymbolError if `value` belongs to a region being traced, or for None if there is one at all."""
    region = _CURRENT.get()
    while region is not None:
        if value is None or region.holds(value):
            place = f" (traced at {region.origin.place})" if region.origin.place else ""
            raise SymbolError(f"{use} inside {region.what}{place} is not available; {advice}")
        region = region.outer


def captured_by(
    placeholders: Sequence[Value], outputs: Sequence[Value], region: Region | None = None
) -> tuple[Value, ...]:
    """What `outputs` need of the world outside a function of the placeholders: values for operands, in order of use.

    Outside is what depends on inputs, variables or random state and not on a placeholder. But all that a branch
    declares is inside, and what a loop only moves or repeats: a product reads a transposed matrix where it is. Between
    an output and what a derivative inside is taken by, all is inside.
    """
    nodes = topological(outputs)
    made = [] if region is None else [n for n in nodes if n.number >= region.since]
    all_made = region is not None and region.is_branch
    inside = _inside([*placeholders, *(v for n in made for v in n.outputs if all_made)], nodes)
    readers = Graph("", (), tuple(outputs)).readers
    for node in reversed(made):
        read_by = [v for value in node.outputs for reader in readers.get(value, ()) for v in reader.outputs]
        if node.op.name in MOVES and inside.issuperset(read_by):
            inside.update(node.outputs)
    read = [v for node in nodes for v in node.inputs] + list(outputs)
    outside = reached_from([v for v in read if v.producer is None and v not in inside], nodes) - inside
    at_border = [v for node in nodes if any(o in inside for o in node.outputs) for v in node.inputs if v in outside]
    return tuple(dict.fromkeys([*at_border, *(v for v in outputs if v in outside)]))


def _inside(first: Sequence[Value], nodes: Sequence[Node]) -> set[Value]:
    """The first values, what depends on them, and paths that derivatives inside walk."""
    inside = reached_from(first, nodes)
    while True:
        paths: set[Value] = set()
        for node in nodes:
            if any(v in inside for v in node.outputs):
                heads = node.inputs[: node.attributes.get("outputs", 1)]
                for target in differentiated(node):
                    paths |= reached_from([target], topological(heads)) - {target}
        if paths <= inside:
            return inside
        inside = reached_from([*inside, *paths], nodes)


def closed(name: str, placeholders: Sequence[Value], captured: Sequence[Value], outputs: Sequence[Value]) -> Graph:
    """The graph from the placeholders and the captured values to `outputs`; its inputs and nodes are copies."""
    parameters = Parameters()
    leaves = [parameters.add(_called(v), v.type) for v in (*placeholders, *captured)]
    known: dict[Value, Value] = dict(zip((*placeholders, *captured), leaves, strict=True))
    for node in topological(outputs, captured):
        copy = with_inputs(node, tuple(known[v] for v in node.inputs))
        known.update(zip(node.outputs, copy.outputs, strict=True))
    return Graph(name, tuple(leaves), tuple(known[v] for v in outputs))


def _called(value: Value) -> str:
    """The name of a leaf, or of the op that makes a value."""
    return value.name if value.producer is None else value.producer.op.name
