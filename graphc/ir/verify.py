"""The verifier: is a graph what the rest of the compiler takes it for?

Types are inferred again by the same `Op.infer` that the builder uses, so a pass cannot change what an op means.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from graphc.errors import GraphcError, VerifyError
from graphc.ir.dims import Poly
from graphc.ir.graph import Graph, Literal, Node, Value
from graphc.ir.op import OPS, REQUIRED
from graphc.ir.text import print_lines
from graphc.ir.types import DType, TensorType

SHOWN_LINES = 24  # lines of a long graph that an error message shows on either side of the culprit


def verify(graph: Graph, *, allow_expanded: bool = True) -> None:
    """Check a graph against the grammar; nested graphs too. Returns nothing.

    Inputs have legal, unique names; operands are defined before they are used; attributes are complete and of
    their kinds; every node's types are those that its op infers. Ops that a pass must replace before lowering
    (`Op.expanded`: `grad`, `fusion`) are errors unless `allow_expanded`.

    Raises VerifyError with the graph's text and a marker at the first culprit.
    """
    _Verifier(graph, allow_expanded).check()


class _Verifier:
    def __init__(self, graph: Graph, allow_expanded: bool) -> None:
        self.graph = graph
        self.allow_expanded = allow_expanded
        self.defined: set[Value] = set()

    def fail(self, problem: str, culprit: Node | str) -> NoReturn:
        """Raise VerifyError; `culprit` is a node, or "header" or "return" for these lines."""
        raise VerifyError(f"graph {self.graph.name!r}: {problem}\n\n{_marked(self.graph, culprit)}")

    def check(self) -> None:
        self.check_inputs()
        for node in self.graph.nodes:
            self.check_operands(node)
            self.check_attributes(node)
            self.check_types(node)
            self.defined.update(node.outputs)
        for position, value in enumerate(self.graph.outputs):
            if value not in self.defined:
                self.fail(f"output {position} ({value!r}) is no input and no output of a node", "return")

    def check_inputs(self) -> None:
        if not self.graph.name:
            self.fail("the graph has no name", "header")
        names: set[str] = set()
        for value in self.graph.inputs:
            if not value.name or not value.name.isprintable():
                self.fail(f"input name {value.name!r} is not legal: it must have characters, all printable", "header")
            if value.name in names:
                self.fail(f"two inputs are called {value.name!r}", "header")
            if value.producer is not None:
                self.fail(f"input {value.name!r} is the output of a node", "header")
            if problem := _type_problem(value.type):
                self.fail(f"input {value.name!r}: {problem}", "header")
            names.add(value.name)
            self.defined.add(value)

    def check_operands(self, node: Node) -> None:
        if OPS.get(node.op.name) is not node.op:
            self.fail(f"op {node.op.name!r} is not in the registry", node)
        if node.op.expanded and not self.allow_expanded:
            self.fail(f"op {node.op.name!r} must have been replaced by a pass before this point", node)
        for position, value in enumerate(node.inputs):
            if value not in self.defined:
                self.fail(f"operand {position} of {node.op.name} ({value!r}) is not defined in this graph", node)

    def check_attributes(self, node: Node) -> None:
        schema = node.op.attributes
        if list(node.attributes) != list(schema):
            given, wanted = ", ".join(node.attributes) or "none", ", ".join(schema) or "none"
            self.fail(f"{node.op.name} has the attributes {given}; it must have, in order: {wanted}", node)
        for name, value in node.attributes.items():
            attribute = schema[name]
            optional = value is None and attribute.default is None
            if value is REQUIRED or not (optional or _KIND_CHECKS[attribute.kind](value)):
                self.fail(f"attribute {name!r} of {node.op.name} is {value!r}, not of kind {attribute.kind!r}", node)
            if isinstance(value, Graph):
                verify(value, allow_expanded=self.allow_expanded)

    def check_types(self, node: Node) -> None:
        for type_ in node.output_types:
            if problem := _type_problem(type_):
                self.fail(f"{node.op.name}: {problem}", node)
        try:
            inferred = tuple(node.op.infer([v.type for v in node.inputs], node.attributes))
        except GraphcError as error:
            self.fail(f"{node.op.name}: {error}", node)
        if inferred != node.output_types:
            wanted, given = (", ".join(map(str, types)) for types in (inferred, node.output_types))
            self.fail(f"{node.op.name} gives {wanted} for its operands, the node says {given}", node)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_dim(value: Any) -> bool:
    return isinstance(value, Poly) or (_is_int(value) and value >= 0)


_KIND_CHECKS: dict[str, Callable[[Any], bool]] = {
    "int": _is_int,
    "ints": lambda v: isinstance(v, tuple) and all(map(_is_int, v)),
    "bool": lambda v: isinstance(v, bool),
    "float": lambda v: isinstance(v, float) or _is_int(v),
    "str": lambda v: isinstance(v, str),
    "dtype": lambda v: isinstance(v, DType),
    "shape": lambda v: isinstance(v, tuple) and all(map(_is_dim, v)),
    "dim": _is_dim,
    "literal": lambda v: isinstance(v, Literal) and v.array.nbytes == len(v.data),
    "graph": lambda v: isinstance(v, Graph),
}


def _type_problem(type_: TensorType) -> str:
    if not isinstance(type_, TensorType) or not isinstance(type_.dtype, DType):
        return f"{type_!r} is not a tensor type"
    wrong = [dim for dim in type_.shape if not _is_dim(dim)]
    return f"{wrong[0]!r} in {type_} is not a dimension" if wrong else ""


def _marked(graph: Graph, culprit: Node | str) -> str:
    """The graph's text with `-->` before the culprit's first line; of long graphs only the lines around it."""
    lines = print_lines(graph)
    if isinstance(culprit, Node):
        at = next(i for i, (_, node) in enumerate(lines) if node is culprit)
    else:
        at = 0 if culprit == "header" else len(lines) - 2
    first, last = max(0, at - SHOWN_LINES), min(len(lines), at + SHOWN_LINES + 1)
    shown = [("--> " if i == at else "    ") + lines[i][0] for i in range(first, last)]
    return "\n".join([*(["    ..."] if first else []), *shown, *(["    ..."] if last < len(lines) else [])])
