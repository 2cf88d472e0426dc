"""Running passes and keeping the history: what each pass did, rewrite by rewrite.

A pass is a frozen dataclass with a `name` that maps a valid graph to a valid graph. Nodes that it makes carry
the origin (module path and user's line) of what they replace.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from graphc.errors import VerifyError
from graphc.ir.graph import NOWHERE, Graph, Node, Origin, Value
from graphc.ir.text import print_graph, value_names
from graphc.ir.verify import verify as verify_graph


@dataclass(frozen=True)
class Rewrite:
    """One rewrite: the rule's name, what stood there, what stands there now, why, and the user's place."""

    rule: str
    before: str
    after: str
    why: str
    origin: Origin = NOWHERE

    def __str__(self) -> str:
        place = f"   # {self.origin}" if str(self.origin) else ""
        return f"{self.rule}: {self.before}  ->  {self.after}{place}"


@dataclass(frozen=True)
class PassResult:
    """What a pass returns: the new graph (the same object if nothing changed), its rewrites and its remarks.

    Remarks say what the pass could have done and why it did not.
    """

    graph: Graph
    rewrites: tuple[Rewrite, ...] = ()
    remarks: tuple[str, ...] = ()


class Pass(Protocol):
    """What the manager runs."""

    @property
    def name(self) -> str:
        """The name by which the pass is shown and switched off."""

    def __call__(self, graph: Graph) -> PassResult:
        """Rewrite a valid graph into a valid graph of the same meaning."""


@dataclass(frozen=True)
class Stage:
    """One pass of a run: its name, the graphs before and after it, rewrites and remarks. Texts are made when asked for."""

    name: str
    before: Graph
    after: Graph
    rewrites: tuple[Rewrite, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """True if the pass changed the structure of the graph."""
        return self.before is not self.after and self.before != self.after

    @cached_property
    def before_text(self) -> str:
        """The graph before the pass."""
        return print_graph(self.before)

    @cached_property
    def after_text(self) -> str:
        """The graph after the pass."""
        return print_graph(self.after)

    @cached_property
    def diff(self) -> str:
        """A unified diff of the texts, empty if nothing changed.

        A value that survives the pass keeps its number from `before_text` and a new one gets a number above
        them all, so that only lines that changed show.
        """
        old_names = value_names(self.before)
        new_text = print_graph(self.after, _kept_names(self.before, self.after, old_names))
        lines = difflib.unified_diff(
            print_graph(self.before, old_names).split("\n"), new_text.split("\n"), "before", "after", lineterm="", n=2
        )
        return "\n".join(lines)


def run(graph: Graph, passes: Sequence[Pass], verify: bool = False) -> tuple[Graph, tuple[Stage, ...]]:
    """Apply `passes` in order; returns the last graph and a stage for each pass.

    With `verify` the graph is verified at the start and after each pass; VerifyError names the pass at fault.
    """
    if verify:
        verify_graph(graph)
    stages = []
    for step in passes:
        result = step(graph)
        if verify:
            try:
                verify_graph(result.graph)
            except VerifyError as error:
                raise VerifyError(f"after the pass {step.name!r}: {error}") from None
        stages.append(Stage(step.name, graph, result.graph, result.rewrites, result.remarks))
        graph = result.graph
    return graph, tuple(stages)


def _kept_names(before: Graph, after: Graph, names: dict[Value, str]) -> dict[Value, str]:
    """Names for `after`: those of `before` for nodes of equal op, attributes and operands, or else origin and type."""
    exact: dict[tuple[object, ...], list[Node]] = {}
    similar: dict[tuple[object, ...], list[Node]] = {}
    for node in before.nodes:
        exact.setdefault(_exact_key(node, names), []).append(node)
        similar.setdefault(_similar_key(node), []).append(node)
    kept = {value: value.name for value in after.inputs}
    taken: set[Node] = set()
    fresh = sum(len(node.outputs) for node in before.nodes)
    identical = {node for node in before.nodes} & set(after.nodes)
    for node in after.nodes:
        candidates = [node] if node in identical else [*exact.get(_exact_key(node, kept), ())]
        candidates += [n for n in similar.get(_similar_key(node), ()) if n not in identical]
        match = next((n for n in candidates if n not in taken), None)
        if match is not None:
            taken.add(match)
        for index, value in enumerate(node.outputs):
            kept[value] = names[match.outputs[index]] if match is not None else str(fresh)
            fresh += match is None
    return kept


def _exact_key(node: Node, names: dict[Value, str]) -> tuple[object, ...]:
    return (node.op.name, tuple(names[v] for v in node.inputs), tuple(node.attributes.items()))


def _similar_key(node: Node) -> tuple[object, ...]:
    return (node.op.name, node.output_types, node.origin)
