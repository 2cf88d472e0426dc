"""Running passes and keeping the history: what each pass did, rewrite by rewrite.

A pass is a frozen dataclass with a `name` that maps a valid graph to a valid graph. Nodes that it makes carry
the origin (module path and user's line) of what they replace.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from graphc.errors import VerifyError
from graphc.ir.graph import NOWHERE, Graph, Node, Origin, Value
from graphc.ir.text import print_graph, print_lines, value_names
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


def label(value: Value) -> str:
    """A value's name for one-line records: `%x` for an input, `%exp` for the output of a node."""
    return f"%{value.name}" if value.producer is None else f"%{value.producer.op.name}"


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
    """One pass of a run: name, graphs before and after it, rewrites and remarks. Texts are made on demand."""

    name: str
    before: Graph
    after: Graph
    rewrites: tuple[Rewrite, ...] = ()
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        """What the pass did: counts, every rewrite with its rule and reason, and what changed in the text."""
        reasons = (f"  {rewrite}\n      {rewrite.why}" for rewrite in self.rewrites)
        return "\n".join([self.summary, *reasons, *([self.diff] if self.diff else [])])

    def __repr__(self) -> str:
        return f"<stage {self.summary}>"

    @property
    def summary(self) -> str:
        """`cse: 25 -> 24 nodes, 1 rewrite`."""
        count = len(self.rewrites)
        nodes = f"{len(self.before.nodes)} -> {len(self.after.nodes)} nodes"
        return f"{self.name}: {nodes}, {count} rewrite{'' if count == 1 else 's'}"

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
        new_names = _kept_names(self.before, self.after, old_names)
        before, after = (
            [line for text, _ in print_lines(graph, names, align=False) for line in text.split("\n")]
            for graph, names in ((self.before, old_names), (self.after, new_names))
        )
        return "\n".join(difflib.unified_diff(before, after, "before", "after", lineterm="", n=2))


def run(graph: Graph, passes: Sequence[Pass], verify: bool = False) -> tuple[Graph, tuple[Stage, ...]]:
    """Apply `passes` in order; returns the last graph and a stage for each pass.

    Stages have the names of the passes; the second run of a pass is called `canonicalise-2`, and so on. With `verify`
    the graph is verified at the start and after each pass; VerifyError names the pass at fault.
    """
    if verify:
        verify_graph(graph)
    stages: list[Stage] = []
    runs: Counter[str] = Counter()
    for step in passes:
        result = step(graph)
        if verify:
            try:
                verify_graph(result.graph)
            except VerifyError as error:
                raise VerifyError(f"after the pass {step.name!r}: {error}") from None
        runs[step.name] += 1
        name = step.name if runs[step.name] == 1 else f"{step.name}-{runs[step.name]}"
        stages.append(Stage(name, graph, result.graph, result.rewrites, result.remarks))
        graph = result.graph
    return graph, tuple(stages)


def _kept_names(before: Graph, after: Graph, names: dict[Value, str]) -> dict[Value, str]:
    """Names for the values of `after`: those of the nodes of `before` that they correspond to, or new numbers.

    A node corresponds to itself, or to one of equal op, attributes and operands, or else of equal op and origin.
    """
    candidates: dict[tuple[object, ...], list[Node]] = {}
    for node in before.nodes:
        for key in _keys(node, names):
            candidates.setdefault(key, []).append(node)
    kept = {value: value.name for value in after.inputs}
    taken = set(before.nodes) & set(after.nodes)
    unchanged = frozenset(taken)
    fresh = sum(len(node.outputs) for node in before.nodes)
    for node in after.nodes:
        match = node if node in unchanged else None
        if match is None:
            possible = (n for key in _keys(node, kept) for n in candidates.get(key, ()) if n not in taken)
            match = next(possible, None)
        if match is not None:
            taken.add(match)
        for index, value in enumerate(node.outputs):
            kept[value] = names[match.outputs[index]] if match is not None else str(fresh)
            fresh += match is None
    return kept


def _keys(node: Node, names: dict[Value, str]) -> Iterator[tuple[object, ...]]:
    """What nodes that correspond have in common, the strictest first."""
    outputs = len(node.outputs)
    yield (node.op.name, outputs, tuple(names[v] for v in node.inputs), tuple(node.attributes.items()))
    yield (node.op.name, outputs, node.output_types, node.origin)
    yield (node.op.name, outputs, node.origin)
