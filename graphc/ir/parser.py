"""The parser of textual graphs; `graphc.ir.text` has the printer and describes the form."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import numpy as np

from graphc.errors import GraphcError, ParseError
from graphc.ir.dims import Dim, parse_dim
from graphc.ir.graph import NOWHERE, Graph, Literal, Node, Origin, Value
from graphc.ir.literals import read_elements
from graphc.ir.op import OPS, Op
from graphc.ir.types import DTYPES, DType, TensorType


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

    def fail(self, expected: str, offset: int | None = None, problem: str = "") -> NoReturn:
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
        self.fail(f"a dtype ({', '.join(map(str, DTYPES))})")

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
            self.fail("a dimension such as 784, N or 2*N+1", start)

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
            self.fail("", token.offset, f"not a string: {error}")

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
        texts = self.elements(like.shape)
        try:
            return Literal.of(read_elements(texts, like))
        except (ValueError, OverflowError):
            self.fail("", start, f"the elements do not fit {dtype}{list(like.shape)}")

    def base64(self, like: np.ndarray) -> bytes:
        start = self.token.offset
        try:
            data = base64.b64decode(self.string("base64 data in quotes"), validate=True)
        except ValueError:
            data = None
        if data is None or len(data) != like.nbytes:
            self.fail("", start, f"this is not base64 of the {like.nbytes} bytes that the literal's type needs")
        return data

    def elements(self, shape: tuple[int, ...]) -> list[str]:
        if not shape:
            return [self.element("an element")]
        start = self.expect("[", "'[' and elements").offset
        parts = self.separated("]", lambda: self.elements(shape[1:]))
        if len(parts) != shape[0]:
            self.fail("", start, f"{len(parts)} elements where the literal's shape says {shape[0]}")
        return [text for part in parts for text in part]
