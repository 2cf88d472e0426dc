"""The textual form of graphs: a deterministic printer and its parser, `parse(print_graph(g)) == g`.

    graph mlp(%x: f32[N,784], %fc.weight: f32[10,784]) -> f32[N,10] {
      %0 = matmul(%x, %fc.weight, transpose_b=true) : f32[N,10]   # fc  train.py:12
      return %0
    }

Attributes are printed where they differ from their defaults. The comment of a node is its origin (module path,
then file and line) and is read back as such; comments on lines of their own are skipped. A node's type may be
left out in hand-written text. Names that are no plain words are quoted: `%"layer 1"`.
"""

from __future__ import annotations

from graphc.ir.literals import format_literal
from graphc.ir.parser import parse
from graphc.ir.printer import format_attribute, format_attributes, print_graph, print_lines, value_names

__all__ = [
    "format_attribute",
    "format_attributes",
    "format_literal",
    "parse",
    "print_graph",
    "print_lines",
    "value_names",
]
