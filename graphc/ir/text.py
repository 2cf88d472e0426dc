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

import base64
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from graphc.errors import GraphcError, ParseError
from graphc.ir.dims import Dim, format_shape, parse_dim
from graphc.ir.graph import NOWHERE, Graph, Literal, Node, Origin, Value
from graphc.ir.op import OPS, Attribute, Op
from graphc.ir.types import DTYPES, DType, TensorType, as_dtype

LIST_LIMIT = 32  # literals with more elements are written as base64
HEADER_WIDTH = 110  # longer headers take a line for each input
COMMENT_COLUMN = 100  # a statement longer than this does not push the other comments out

_PLAIN_VALUE = re.compile(r"(?![0-9]+\Z)\w[\w./-]*")
_PLAIN_WORD = re.compile(r"[^\W\d][\w.]*")


# ---------------------------------------------------------------------------------------------- printer


def print_graph(graph: Graph, names: Mapping[Value, str] | None = None) -> str:
    """The text of `graph`; `names` (value -> name without `%`) replaces the consecutive numbers of `value_names`."""
    return "\n".join(line for line, _ in print_lines(graph, names))


def print_lines(graph: Graph, names: Mapping[Value, str] | None = None) -> list[tuple[str, Node | None]]:
    """The lines of `print_graph`, each with the node that it belongs to (None: header, return, closing brace)."""
    names = value_names(graph) if names is None else names
    statements = [(_statement(node, names), node) for node in graph.nodes]
    comments = _comments([node.origin for node in graph.nodes])
    widths = [len(text.rpartition("\n")[2]) for text, _ in statements]
    column = max((w for w, c in zip(widths, comments, strict=True) if c and w <= COMMENT_COLUMN), default=0)
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


def format_attributes(node: Node) -> list[str]:
    """`name=value` for each attribute of a node that differs from its default, in declared order."""
    shown = []
    for name, value in node.attributes.items():
        schema = node.op.attributes.get(name)
        text = _format_or_repr(schema, value)
        if schema is None or text != _format_or_repr(schema, schema.default):
            shown.append(f"{name}={text}")
    return shown


def format_literal(literal: Literal) -> str:
    """`f32 0.5`, `i64[2] [1, 2]` or `f32[100] base64 "..."`: exact, down to the bits of a NaN."""
    kind = literal.dtype + (format_shape(literal.shape) if literal.shape else "")
    array = literal.array
    if array.size <= LIST_LIMIT:
        text = _nested_list(array)
        if _read_elements(re.findall(r"[^][, ]+", text), array).tobytes() == literal.data:
            return f"{kind} {text}"
    return f'{literal.dtype}{format_shape(literal.shape)} base64 "{base64.b64encode(literal.data).decode()}"'


def _nested_list(array: np.ndarray) -> str:
    if array.ndim:
        return "[" + ", ".join(_nested_list(part) for part in array) + "]"
    if array.dtype.kind == "b":
        return "true" if array else "false"
    return str(array[()]) if array.dtype.kind == "f" else str(int(array))


def _read_elements(texts: list[str], like: np.ndarray) -> np.ndarray:
    """The array of `like`'s dtype and shape that elements written by `_nested_list` stand for."""
    read: Callable[[str], Any] = {"b": lambda t: t == "true", "f": float}.get(like.dtype.kind, int)
    return np.array([read(text) for text in texts], like.dtype).reshape(like.shape)


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


def _format_or_repr(schema: Attribute | None, value: Any) -> str:
    """Text for any value: wrong graphs must be printable, the verifier's messages show them."""
    try:
        return repr(value) if schema is None else format_attribute(schema.kind, value)
    except (TypeError, ValueError, AttributeError, GraphcError):
        return repr(value)


def _reference(value: Value, names: Mapping[Value, str]) -> str:
    if value not in names:
        return f"%?{value.name}"  # a value that the graph does not define; only the verifier's messages show it
    name = names[value]
    plain = _PLAIN_VALUE.fullmatch(name) if value.producer is None else name
    return f"%{name}" if plain else "%" + json.dumps(name)


def _statement(node: Node, names: Mapping[Value, str]) -> str:
    targets = ", ".join(_reference(v, names) for v in node.outputs)
    arguments = [*(_reference(v, names) for v in node.inputs), *format_attributes(node)]
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


def _comments(origins: list[Origin]) -> list[str]:
    """`# module  place` for each origin, the places of a block in one column."""
    width = max((len(o.module) for o in origins if o.module and o.file and len(o.module) <= 40), default=0)
    comments = []
    for origin in origins:
        text = f"{origin.module:{width}}  {origin.place}" if origin.file else origin.module
        comments.append(f"# {text}" if text else "")
    return comments


# ----------------------------------------------------------------------------------------------- parser


def parse(text: str) -> Graph:
    """The graph that `text` describes; types are checked by the ops' own rules, and origins are read back.

    Raises ParseError with line, column and what was expected: wrong grammar, an unknown op, a value that is
    undefined or defined twice, wrong operands or types, a node that no output needs.
    """
    parser = _Parser(text)
    graph = parser.graph()
    parser.expect("end", "the end of the text")
    return graph


class _Token(NamedTuple):
    kind: str
    text: str
    offset: int


_TOKEN = re.compile(
    r"""(?P<space>\s+) | (?P<comment>\#[^\n]*) | (?P<value>%(?:"(?:[^"\\\n]|\\.)*"|\w[\w./-]*)) | (?P<arrow>->)
      | (?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?) | (?P<string>"(?:[^"\\\n]|\\.)*") | (?P<word>[^\W\d][\w.]*)
      | (?P<symbol>[][(){}=:,*+-])""",
    re.VERBOSE,
)
_COMMENT = re.compile(r"#\s?(?P<module>.*?)(?:  +(?P<file>\S.*):(?P<line>\d+))?")


class _Parser:
    """Recursive descent over the tokens of one text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[_Token] = []
        self.comments: dict[int, str] = {}  # line -> comment
        self.position = 0
        self._split()

    def _split(self) -> None:
        offset = 0
        while offset < len(self.text):
            match = _TOKEN.match(self.text, offset)
            if match is None:
                self.fail("a name, a number or punctuation", offset)
            kind = str(match.lastgroup)
            if kind == "comment":
                self.comments[self._line(offset)] = match.group()
            elif kind != "space":
                self.tokens.append(_Token(match.group() if kind == "symbol" else kind, match.group(), offset))
            offset = match.end()
        self.tokens.append(_Token("end", "", len(self.text)))

    def _line(self, offset: int) -> int:
        return self.text.count("\n", 0, offset) + 1

    # -- tokens

    @property
    def token(self) -> _Token:
        return self.tokens[self.position]

    def fail(self, expected: str, offset: int | None = None, problem: str = "") -> Any:
        """Raise ParseError at `offset` (the current token by default); `problem` replaces "expected ..."."""
        at = self.token.offset if offset is None else offset
        line, column = self._line(at), at - (self.text.rfind("\n", 0, at) + 1) + 1
        source = self.text.splitlines()[line - 1] if line <= len(self.text.splitlines()) else ""
        found = json.dumps(self.text[at : at + 20].split("\n")[0]) if at < len(self.text) else "the end of the text"
        message = problem or f"expected {expected}, found {found}"
        raise ParseError(f"line {line}, column {column}: {message}\n  {source}\n  {' ' * (column - 1)}^")

    def expect(self, kind: str, what: str = "") -> _Token:
        token = self.token
        if token.kind != kind:
            self.fail(what or repr(kind))
        self.position += 1
        return token

    def accept(self, kind: str) -> bool:
        if self.token.kind != kind:
            return False
        self.position += 1
        return True

    def keyword(self, word: str) -> None:
        if self.token.kind != "word" or self.token.text != word:
            self.fail(repr(word))
        self.position += 1

    def separated(self, end: str, item: Callable[[], Any]) -> list[Any]:
        """Items separated by commas up to and including the token `end`."""
        items: list[Any] = []
        while not self.accept(end):
            if items:
                self.expect(",", f"',' or {end!r}")
            items.append(item())
        return items

    # -- graphs and nodes

    def graph(self) -> Graph:
        self.keyword("graph")
        name = self.token.text if self.token.kind == "word" else self.string("a name")
        self.accept("word")
        scope: dict[str, Value] = {}
        self.expect("(")
        inputs = self.separated(")", lambda: self.graph_input(scope))
        self.expect("arrow", "'->'")
        types = self.separated(")", self.type) if self.accept("(") else [self.type()]
        self.expect("{")
        made: list[tuple[Node, int]] = []
        while self.token.kind == "value":
            start = self.token.offset
            made.append((self.node(scope), start))
        self.keyword("return")
        start = self.token.offset
        outputs = tuple(self.returned(scope))
        if [v.type for v in outputs] != types:
            given, declared = ", ".join(str(v.type) for v in outputs), ", ".join(map(str, types))
            self.fail("", start, f"graph {name!r} declares the outputs {declared or 'none'}, returned are {given}")
        self.expect("}")
        graph = Graph(name, tuple(inputs), outputs)
        needed = set(graph.nodes)
        for node, offset in made:
            if node not in needed:
                self.fail("", offset, "nothing reads this node: a graph holds what its outputs need, remove the line")
        return graph

    def graph_input(self, scope: dict[str, Value]) -> Value:
        token = self.expect("value", "an input such as '%x: f32[N]'")
        self.expect(":")
        name = self.unquoted(token.text[1:], token) if token.text[1] == '"' else token.text[1:]
        return self.define(scope, token, Value(self.type(), name=name))

    def define(self, scope: dict[str, Value], token: _Token, value: Value) -> Value:
        if token.text in scope:
            self.fail("", token.offset, f"{token.text} is defined twice")
        scope[token.text] = value
        return value

    def operand(self, scope: dict[str, Value]) -> Value:
        token = self.expect("value", "a value such as '%0'")
        if token.text not in scope:
            self.fail("", token.offset, f"{token.text} is not defined before this line")
        return scope[token.text]

    def returned(self, scope: dict[str, Value]) -> list[Value]:
        values: list[Value] = []
        while self.token.kind == "value":
            values.append(self.operand(scope))
            if not self.accept(","):
                break
        return values

    def node(self, scope: dict[str, Value]) -> Node:
        targets = [self.expect("value")]
        while self.accept(","):
            targets.append(self.expect("value", "a value such as '%0'"))
        self.expect("=", "',' or '='")
        name = self.expect("word", "the name of an op")
        if name.text not in OPS:
            self.fail("", name.offset, f"no op is called {name.text!r}")
        op = OPS[name.text]
        operands: list[Value] = []
        attributes: dict[str, Any] = {}
        self.expect("(")
        self.separated(")", lambda: self.argument(op, scope, operands, attributes))
        start, written = self.token.offset, None
        if self.accept(":"):
            written = [self.type()]
            while self.accept(","):
                written.append(self.type())
        node = self.apply(op, operands, attributes, name.offset)
        if written is not None and written != list(node.output_types):
            inferred = ", ".join(map(str, node.output_types))
            self.fail("", start, f"{op.name} gives {inferred}, not {', '.join(map(str, written))}")
        if len(targets) != len(node.outputs):
            self.fail("", targets[0].offset, f"{op.name} has {len(node.outputs)} outputs, {len(targets)} are named")
        for token, value in zip(targets, node.outputs, strict=True):
            self.define(scope, token, value)
        return node

    def argument(self, op: Op, scope: dict[str, Value], operands: list[Value], attributes: dict[str, Any]) -> None:
        if self.token.kind == "value":
            operands.append(self.operand(scope))
            return
        name = self.expect("word", "an operand or an attribute")
        if name.text not in op.attributes or name.text in attributes:
            known = ", ".join(op.attributes) or "none"
            problem = "twice" if name.text in attributes else f"unknown; {op.name} takes: {known}"
            self.fail("", name.offset, f"attribute {name.text!r} is {problem}")
        self.expect("=")
        attributes[name.text] = self.attribute(op.attributes[name.text].kind)

    def apply(self, op: Op, operands: list[Value], attributes: dict[str, Any], offset: int) -> Node:
        last = self.tokens[self.position - 1]
        try:
            full = op.complete(attributes)
            types = op.infer([v.type for v in operands], full)
        except GraphcError as error:
            self.fail("", offset, f"{op.name}({', '.join(str(v.type) for v in operands)}): {error}")
        return Node(op, tuple(operands), full, tuple(types), self.origin(self._line(last.offset)))

    def origin(self, line: int) -> Origin:
        match = _COMMENT.fullmatch(self.comments.get(line, ""))
        if match is None:
            return NOWHERE
        return Origin(match["module"].strip(), match["file"] or "", int(match["line"] or 0))

    # -- types and attributes

    def type(self) -> TensorType:
        return TensorType(self.dtype(), self.shape())

    def dtype(self) -> DType:
        token = self.token
        for dtype in DTYPES:
            if token.kind == "word" and dtype.name == token.text:
                self.position += 1
                return dtype
        return self.fail(f"a dtype ({', '.join(map(str, DTYPES))})")

    def shape(self) -> tuple[Dim, ...]:
        self.expect("[", "'[' and a shape")
        return tuple(self.separated("]", self.dim))

    def dim(self) -> Dim:
        start = self.token.offset
        while self.token.kind in ("number", "word", "*", "+", "-"):
            self.position += 1
        try:
            return parse_dim(self.text[start : self.token.offset].split("#")[0])
        except GraphcError:
            return self.fail("a dimension such as 784, N or 2*N+1", start)

    def attribute(self, kind: str) -> Any:
        if self.token.kind == "word" and self.token.text == "none":
            self.position += 1
            return None
        readers: dict[str, Callable[[], Any]] = {
            "int": self.integer,
            "ints": lambda: (self.expect("["), tuple(self.separated("]", self.integer)))[1],
            "bool": self.boolean,
            "float": lambda: float(self.element("a number")),
            "str": lambda: self.string("a string"),
            "dtype": self.dtype,
            "shape": self.shape,
            "dim": self.dim,
            "literal": self.literal,
            "graph": self.graph,
        }
        return readers[kind]()

    def element(self, what: str) -> str:
        """A number with its sign, `inf` or `nan`, or a truth value, as text."""
        sign = "-" if self.accept("-") else ""
        token = self.token
        if token.kind != "number" and token.text not in ("inf", "nan", "true", "false"):
            self.fail(what)
        self.position += 1
        return sign + token.text

    def string(self, what: str) -> str:
        token = self.expect("string", what)
        return self.unquoted(token.text, token)

    def unquoted(self, text: str, token: _Token) -> str:
        try:
            return str(json.loads(text))
        except ValueError as error:
            return str(self.fail("", token.offset, f"not a string: {error}"))

    def integer(self) -> int:
        start, text = self.token.offset, self.element("an integer")
        return int(text) if text.lstrip("-").isdecimal() else self.fail("an integer", start)

    def boolean(self) -> bool:
        start, text = self.token.offset, self.element("true or false")
        return text == "true" if text in ("true", "false") else self.fail("true or false", start)

    def literal(self) -> Literal:
        start, dtype = self.token.offset, self.dtype()
        shape = self.shape() if self.token.kind == "[" else ()
        if not all(isinstance(d, int) for d in shape):
            self.fail("a literal's shape, without symbols", start)
        like = np.empty(tuple(int(str(d)) for d in shape), dtype.numpy)
        if self.token.kind == "word" and self.token.text == "base64":
            self.position += 1
            return Literal(dtype.name, like.shape, self.base64(like))
        try:
            return Literal.of(_read_elements(self.elements(like.shape), like))
        except (ValueError, OverflowError):
            return self.fail("", start, f"the elements do not fit {dtype}{list(like.shape)}")

    def base64(self, like: np.ndarray) -> bytes:
        start = self.token.offset
        try:
            data = base64.b64decode(self.string("base64 data in quotes"), validate=True)
        except ValueError:
            data = None
        if data is None or len(data) != like.nbytes:
            self.fail("", start, f"this is not base64 of the {like.nbytes} bytes that the literal's type needs")
        return data or b""

    def elements(self, shape: tuple[int, ...]) -> list[str]:
        if not shape:
            return [self.element("an element")]
        self.expect("[", "'[' and elements")
        parts = self.separated("]", lambda: self.elements(shape[1:]))
        if len(parts) != shape[0]:
            self.fail("", None, f"{len(parts)} elements where the literal's shape says {shape[0]}")
        return [text for part in parts for text in part]
