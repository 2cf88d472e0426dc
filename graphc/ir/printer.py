"""Printing graphs; `graphc.ir.text` describes the form. It reads graphs only, so that a graph can print itself."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from graphc.errors import GraphcError
from graphc.ir.dims import format_shape
from graphc.ir.literals import format_literal
from graphc.ir.op import REQUIRED, Attribute
from graphc.ir.types import as_dtype

if TYPE_CHECKING:
    from graphc.ir.graph import Graph, Node, Origin, Value

HEADER_WIDTH = 110  # longer headers take a line for each input
COMMENT_COLUMN = 100  # a statement longer than this does not push the other comments out

_PLAIN_VALUE = re.compile(r"(?![0-9]+\Z)\w[\w./-]*")
_PLAIN_WORD = re.compile(r"[^\W\d][\w.]*")


def print_graph(graph: Graph, names: Mapping[Value, str] | None = None, *, origins: bool = True) -> str:
    """The text of `graph`, with `origins` as comments.

    `names` (value -> name without `%`) replaces the consecutive numbers of `value_names`.
    """
    return "\n".join(line for line, _ in print_lines(graph, names, origins=origins))


def print_lines(
    graph: Graph, names: Mapping[Value, str] | None = None, *, origins: bool = True, align: bool = True
) -> list[tuple[str, Node | None]]:
    """The lines of `print_graph`, each with the node that it belongs to (None: header, return, closing brace).

    Without `align` comments follow their statements directly, so that a line depends on its own node only.
    """
    names = value_names(graph) if names is None else names
    statements = [(_statement(node, names, origins), node) for node in graph.nodes]
    nodes = graph.nodes
    comments = _comments([node.origin for node in nodes], align) if origins else [""] * len(nodes)
    widths = [len(text.rpartition("\n")[2]) for text, _ in statements]
    column = max((w for w, c in zip(widths, comments, strict=True) if c and align and w <= COMMENT_COLUMN), default=0)
    lines: list[tuple[str, Node | None]] = [(line, None) for line in _header(graph, names).split("\n")]
    for (text, node), comment, width in zip(statements, comments, widths, strict=True):
        full = f"{text}{' ' * (max(column, width) - width + 3)}{comment}" if comment else text
        lines.extend((f"  {line}", node) for line in full.split("\n"))
    returned = "return " + ", ".join(_reference(v, names) for v in graph.outputs)
    return [*lines, (f"  {returned}".rstrip(), None), ("}", None)]


def value_names(graph: Graph) -> dict[Value, str]:
    """The names that the printer gives: an input's own, `0`, `1`, ... for nodes' outputs in order."""
    names = {value: value.name for value in graph.inputs}
    counter = 0
    for node in graph.nodes:
        for value in node.outputs:
            names[value] = str(counter)
            counter += 1
    return names


def format_attribute(kind: str, value: Any) -> str:
    """An attribute's value as text. Raises TypeError, ValueError or AttributeError if it is not of its `kind`."""
    if value is None:
        return "none"
    return _WRITERS[kind](value)


def format_attributes(node: Node, *, origins: bool = True) -> list[str]:
    """`name=value` for each attribute of a node that differs from its default, in declared order."""
    shown = []
    for name, value in node.attributes.items():
        schema = node.op.attributes.get(name)
        text = _format_or_repr(schema, value, origins)
        if schema is None or schema.default is REQUIRED or text != _format_or_repr(schema, schema.default):
            shown.append(f"{name}={text}")
    return shown


_WRITERS: dict[str, Callable[[Any], str]] = {
    "int": lambda v: str(int(v)),
    "ints": lambda v: "[" + ",".join(str(int(i)) for i in v) + "]",
    "bool": lambda v: "true" if v else "false",
    "float": lambda v: repr(float(v)),
    "str": json.dumps,
    "dtype": lambda v: str(as_dtype(v)),
    "shape": lambda v: format_shape(tuple(v)),
    "dim": str,
    "literal": format_literal,
    "graph": lambda v: print_graph(v),
}


def _format_or_repr(schema: Attribute | None, value: Any, origins: bool = True) -> str:
    """Text for any value: wrong graphs must be printable, the verifier's messages show them."""
    try:
        if schema is not None and schema.kind == "graph" and value is not None:
            return print_graph(value, origins=origins)
        return repr(value) if schema is None else format_attribute(schema.kind, value)
    except (TypeError, ValueError, AttributeError, GraphcError):
        return repr(value)


def _reference(value: Value, names: Mapping[Value, str]) -> str:
    if value not in names:
        return f"%?{value.name}"  # a value that the graph does not define; only the verifier's messages show it
    name = names[value]
    plain = _PLAIN_VALUE.fullmatch(name) if value.producer is None else name
    return f"%{name}" if plain else "%" + json.dumps(name)


def _statement(node: Node, names: Mapping[Value, str], origins: bool) -> str:
    targets = ", ".join(_reference(v, names) for v in node.outputs)
    arguments = [*(_reference(v, names) for v in node.inputs), *format_attributes(node, origins=origins)]
    types = ", ".join(map(str, node.output_types))
    return f"{targets} = {node.op.name}({', '.join(arguments)}) : {types}"


def _header(graph: Graph, names: Mapping[Value, str]) -> str:
    word = graph.name if _PLAIN_WORD.fullmatch(graph.name) else json.dumps(graph.name)
    inputs = [f"{_reference(v, names)}: {v.type}" for v in graph.inputs]
    types = ", ".join(str(v.type) for v in graph.outputs)
    result = types if len(graph.outputs) == 1 else f"({types})"
    line = f"graph {word}({', '.join(inputs)}) -> {result} {{"
    if len(line) <= HEADER_WIDTH or not inputs:
        return line
    listed = ",\n    ".join(inputs)
    return f"graph {word}(\n    {listed}\n) -> {result} {{"


def _comments(origins: list[Origin], align: bool) -> list[str]:
    """`# module  place` for each origin, the places of a block in one column."""
    width = max((len(o.module) for o in origins if align and o.file and len(o.module) <= 40), default=0)
    comments = []
    for origin in origins:
        text = f"{origin.module:{width}}  {origin.place}" if origin.file else origin.module
        comments.append(f"# {text}" if text else "")
    return comments
