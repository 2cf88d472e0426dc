"""A graph with the arrays that it is run on: what is drawn, checked, shrunk and printed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from graphc.autodiff.expand import expand_derivatives
from graphc.ir.graph import Graph
from graphc.ir.text import print_graph
from graphc.passes.bind import graph_symbols

from .noise import COUNT, Trials, first_rows

MOST_PRINTED = 256  # elements of an array
RNG = "rng"  # the graph input that holds the random state [seed, step]


@dataclass(frozen=True, eq=False)
class Case:
    """A graph, and arrays for its inputs at the greatest count of rows; other counts take the first rows of them.

    The graph's outputs are results, then the new values of the variables in `updated`. `counts` are the numbers of
    rows that the program is run with, one after the other, none above `capacity`.
    """

    graph: Graph
    arrays: Mapping[str, np.ndarray]
    counts: tuple[int, ...]
    capacity: int
    variables: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()

    @property
    def capacities(self) -> dict[str, int]:
        """What the dimension symbols are compiled for."""
        return {COUNT: self.capacity} if COUNT in graph_symbols(self.graph) else {}

    @cached_property
    def expanded(self) -> Graph:
        """The graph with its deferred derivatives written out, as the interpreter needs it."""
        return expand_derivatives(self.graph)

    @cached_property
    def trials(self) -> Trials:
        """The interpreter's values of all nodes of the expanded graph, exact and under noise, at each count.

        Raises GraphcError if the interpreter cannot run the case: then it is no case at all.
        """
        trials = Trials(self.counts)
        for value in self.graph.inputs:
            trials.give(value, self.arrays[value.name])
        trials.run(self.expanded.nodes)
        return trials

    def rows(self, count: int) -> dict[str, np.ndarray]:
        """The arrays for `count` rows, by the name of the graph input."""
        return {value.name: first_rows(self.arrays[value.name], value, count) for value in self.graph.inputs}

    def __str__(self) -> str:
        """The graph as text, what it is run with, and the arrays."""
        lines = [print_graph(self.graph, origins=False), ""]
        if self.capacities:
            lines.append(f"N <= {self.capacity}, run with N = {', '.join(map(str, self.counts))}")
        lines += [f"{word}: {', '.join(names)}" for word, names in self._roles() if names]
        lines += [f"{value.name} = {_array_text(self.arrays[value.name])}" for value in self.graph.inputs]
        return "\n".join(lines)

    def _roles(self) -> list[tuple[str, tuple[str, ...]]]:
        return [("variables", self.variables), ("updated by the last outputs", self.updated)]


def _array_text(array: np.ndarray) -> str:
    """Python that makes the array; large ones as a few of their elements."""
    if array.size > MOST_PRINTED:
        return f"<{array.dtype}{list(array.shape)}: {', '.join(map(str, array.flat[:8]))} ...>"
    elements = ", ".join(map(str, array.ravel()))
    return f"np.array([{elements}], '{array.dtype}').reshape({array.shape})"
