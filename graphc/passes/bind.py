"""Bind dimension symbols to sizes: in all types and attributes, nested graphs too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from graphc.errors import ShapeError
from graphc.ir.dims import Dim, substitute, symbols
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.types import TensorType
from graphc.passes.manager import PassResult, Rewrite


@dataclass(frozen=True)
class Bind:
    """Replace the named dimension symbols by sizes. Symbols that are not named stay: they are runtime counts.

    Inputs of the result are new values of the same names, in the same order. Raises ShapeError for a size below 0.
    """

    sizes: tuple[tuple[str, int], ...]

    @property
    def name(self) -> str:
        """`bind`."""
        return "bind"

    def __call__(self, graph: Graph) -> PassResult:
        """The graph with the symbols bound; the same graph if none of them occurs in it."""
        for name, size in self.sizes:
            if size < 0:
                raise ShapeError(f"dims={{{name!r}: {size}}}: a size cannot be negative")
        bound = bind(graph, dict(self.sizes))
        if bound is graph:
            return PassResult(graph)
        used = graph_symbols(graph)
        rewrites = (
            Rewrite("bind", name, str(size), "kernels are compiled for this size")
            for name, size in self.sizes
            if name in used
        )
        return PassResult(bound, tuple(rewrites))


def bind(graph: Graph, sizes: Mapping[str, Dim]) -> Graph:
    """`graph` with dimension symbols replaced by sizes or by other dimensions; itself if it has none of them."""
    if not graph_symbols(graph) & set(sizes):
        return graph
    new: dict[Value, Value] = {v: Value(_bind_type(v.type, sizes), name=v.name) for v in graph.inputs}
    for node in graph.nodes:
        kinds = {name: attribute.kind for name, attribute in node.op.attributes.items()}
        attributes = {k: bind_attribute(kinds[k], v, sizes) for k, v in node.attributes.items()}
        types = tuple(_bind_type(t, sizes) for t in node.output_types)
        inputs = tuple(new[v] for v in node.inputs)
        copy = Node(node.op, inputs, MappingProxyType(attributes), types, node.origin)
        new.update(zip(node.outputs, copy.outputs, strict=True))
    return Graph(graph.name, tuple(new[v] for v in graph.inputs), tuple(new[v] for v in graph.outputs))


def bind_attribute(kind: str, value: Any, sizes: Mapping[str, Dim]) -> Any:
    """An attribute of `kind` with dimension symbols replaced."""
    if value is None:
        return None
    if kind == "dim":
        return substitute(value, sizes)
    if kind == "shape":
        return tuple(substitute(dim, sizes) for dim in value)
    return bind(value, sizes) if kind == "graph" else value


def graph_symbols(graph: Graph) -> frozenset[str]:
    """Names of the dimension symbols in the types and attributes of a graph."""
    found: set[str] = set()
    for type_ in (v.type for v in graph.inputs):
        found.update(*(symbols(dim) for dim in type_.shape))
    for node in graph.nodes:
        for type_ in node.output_types:
            found.update(*(symbols(dim) for dim in type_.shape))
        for name, value in node.attributes.items():
            found.update(_attribute_symbols(node.op.attributes[name].kind, value))
    return frozenset(found)


def _attribute_symbols(kind: str, value: Any) -> frozenset[str]:
    if value is None or kind not in ("dim", "shape", "graph"):
        return frozenset()
    if kind == "graph":
        return graph_symbols(value)
    return frozenset().union(*(symbols(dim) for dim in (value if kind == "shape" else (value,))))


def _bind_type(type_: TensorType, sizes: Mapping[str, Dim]) -> TensorType:
    return type_.bind(dict(sizes))
