"""Products in the order that takes the least arithmetic.

These rules run before differentiation, so that gradients have the better order too: the gradient of a table's rows
is scattered before it is multiplied, not after.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graphc.ir.builder import Builder
from graphc.ir.dims import Dim, evaluate, symbols
from graphc.ir.graph import Graph, Value
from graphc.passes.manager import PassResult
from graphc.passes.rewrite import Match, Rule, rewrite

USUAL_COUNT = 32  # what a runtime count is taken to be


@dataclass(frozen=True)
class Algebra:
    """Reorder products; see `RULES`."""

    @property
    def name(self) -> str:
        """`algebra`."""
        return "algebra"

    def __call__(self, graph: Graph) -> PassResult:
        """The graph with every rule of `RULES` applied to a fixed point."""
        return rewrite(graph, RULES)


def _number(dim: Dim) -> int:
    return evaluate(dim, dict.fromkeys(symbols(dim), USUAL_COUNT))


def _takes_rows_of_matrix(match: Match) -> bool:
    table = match["t"].type
    return table.rank == 2 and match.node("rows").attributes["axis"] in (0, -2)


def _keeps_last_axis(match: Match) -> bool:
    permutation = match.node("m").attributes["permutation"]
    return _takes_rows_of_matrix(match) and permutation[-1] == len(permutation) - 1


def _rows_of_moved_indices(match: Match, b: Builder) -> Value:
    moved = b.transpose(match["i"], permutation=match.node("m").attributes["permutation"][:-1])
    found = b.take(match["t"], moved, axis=0)
    assert isinstance(found, Value)
    return found


def _same_matrix_for_all(value: Value) -> Value | None:
    """The matrix that a factor of a product is, if it is the same for the whole batch."""
    if value.type.rank == 2:
        return value
    node = value.producer
    if node is None or node.op.name != "broadcast_to":
        return None
    return node.inputs[0] if node.inputs[0].type.rank == 2 else None


def _product_before_rows(match: Match, b: Builder) -> Value | None:
    table, indices, node = match["t"], match["i"], match.root
    factor = _same_matrix_for_all(match["w"])
    if factor is None or node.attributes["transpose_a"] or _number(indices.type.size) <= _number(table.type.shape[0]):
        return None
    product: Any = b.matmul(table, factor, transpose_b=node.attributes["transpose_b"])
    found = b.take(product, indices, axis=0)
    assert isinstance(found, Value)
    return found


RULES: tuple[Rule, ...] = (
    Rule(
        "rows_of_moved_indices",
        "m@transpose(rows@take(t, i))",
        _rows_of_moved_indices,
        "there are fewer indices than elements of rows",
        _keeps_last_axis,
    ),
    Rule(
        "product_before_rows",
        "matmul(rows@take(t, i), w)",
        _product_before_rows,
        "the table has fewer rows than are taken of it",
        _takes_rows_of_matrix,
    ),
)
