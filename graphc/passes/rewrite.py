"""Rewrite rules: a pattern and a replacement with a name, applied bottom-up to a fixed point.

A pattern is written as the expression that it matches:

    log(div(exp(x), per_row(s@sum(exp(x), axes=last))))

    x             captures any value; the same name twice must be the same value
    1  -0.5       a constant of that value, broadcast or not
    op(...)       an application of `op`; operands of commutative ops match in either order
    attr=value    an attribute must be equal: an integer, true, false, or `last` (the last axis of operand 0)
    s@op(...)     names a node, so that conditions and replacements can read its attributes
    per_row(p)    `p` spread along the last axis: a value that is constant there, broadcast (and reshaped) or not
    p | q         either pattern

A rule never looks through, and never removes, a value that a `grad` node differentiates with respect to: the
gradient is by that very value, so it must stay on every path on which it stands.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NoReturn, TypeAlias

import numpy as np

from graphc.errors import DefinitionError, VerifyError
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Node, Value, reading
from graphc.ir.op import OPS
from graphc.ir.text import format_attributes
from graphc.ops.derivatives import differentiated
from graphc.passes.manager import PassResult, Rewrite, label

SWEEP_LIMIT = 64  # sweeps over a graph; a rule set that still fires then runs in a circle
NODE_LIMIT = 16  # rules applied in a row to one node within a sweep
UNIFORM_LIMIT = 4096  # larger literals are not searched for being all one value


# -------------------------------------------------------------------------------------------- patterns


@dataclass(frozen=True)
class Capture:
    """Any value, remembered under a name."""

    name: str


@dataclass(frozen=True)
class Number:
    """A constant whose elements all have this value."""

    value: float


@dataclass(frozen=True)
class Application:
    """A node of one op with matching operands and attributes, remembered under `label` if there is one."""

    op: str
    args: tuple[Pattern, ...]
    attributes: tuple[tuple[str, Any], ...] = ()
    label: str = ""


Pattern: TypeAlias = Capture | Number | Application

PER_ROW = "per_row"
LAST = "last"
_TOKEN = re.compile(r"\s*(?:([A-Za-z_]\w*)|(-?\d+(?:\.\d*)?(?:e-?\d+)?)|([(),=@|]))")


@cache
def parse_pattern(text: str) -> tuple[Pattern, ...]:
    """The alternatives of a pattern. Raises DefinitionError where the text is no pattern."""
    tokens: list[str] = []
    position = 0
    while position < len(text.rstrip()):
        match = _TOKEN.match(text, position)
        if match is None:
            raise DefinitionError(f"pattern {text!r}: {text[position:]!r} is neither a name, a number nor punctuation")
        tokens.append(match.group().strip())
        position = match.end()
    reader = _PatternReader(text, tokens)
    alternatives = [reader.pattern()]
    while reader.take("|"):
        alternatives.append(reader.pattern())
    if reader.tokens:
        reader.fail("the end")
    return tuple(alternatives)


class _PatternReader:
    def __init__(self, text: str, tokens: list[str]) -> None:
        self.text, self.tokens = text, tokens

    def fail(self, expected: str) -> NoReturn:
        raise DefinitionError(f"pattern {self.text!r}: expected {expected} before {' '.join(self.tokens) or 'the end'}")

    def take(self, token: str) -> bool:
        if self.tokens[:1] != [token]:
            return False
        del self.tokens[0]
        return True

    def word(self) -> str:
        if not self.tokens or self.tokens[0] in "(),=@|":
            self.fail("a name or a number")
        return self.tokens.pop(0)

    def pattern(self) -> Pattern:
        word, label = self.word(), ""
        if not (word[0].isalpha() or word[0] == "_"):
            return Number(float(word))
        if self.take("@"):
            label, word = word, self.word()
        if not self.take("("):
            return Capture(word)
        args: list[Pattern] = []
        attributes: list[tuple[str, Any]] = []
        while not self.take(")"):
            if (args or attributes) and not self.take(","):
                self.fail("',' or ')'")
            if self.tokens[1:2] == ["="]:
                name = self.word()
                self.take("=")
                attributes.append((name, self.attribute(self.word())))
            else:
                args.append(self.pattern())
        return Application(word, tuple(args), tuple(attributes), label)

    def attribute(self, text: str) -> Any:
        known: dict[str, Any] = {"true": True, "false": False, LAST: LAST}
        return known[text] if text in known else int(text)


# --------------------------------------------------------------------------------------------- matching


@dataclass(frozen=True)
class Match:
    """Where a pattern matched: `root`, the captured and labelled values, and what the rule needs of the graph."""

    root: Node
    values: Mapping[str, Value]
    interior: tuple[Value, ...]
    sweep: _Sweep

    def __getitem__(self, name: str) -> Value:
        return self.values[name]

    def node(self, label: str) -> Node:
        """The node that the pattern names `label@...`."""
        producer = self.values[label].producer
        assert producer is not None
        return producer

    def constant(self, value: Value) -> Any | None:
        """The number that all elements of `value` are, a NumPy scalar, or None (see `constant_value`)."""
        return constant_value(value, self.sweep.protected)

    def readers(self, value: Value) -> tuple[str, ...]:
        """The ops that read `value` in the graph, once for each operand; `return` for an output of the graph."""
        return tuple(self.sweep.current if value is self.root.output else self.sweep.readers.get(value, ()))

    def read_once(self, value: Value) -> bool:
        """True if nothing but the matched expression reads `value`, so that replacing it saves its computation."""
        return len(self.readers(value)) <= 1


# What a rule puts in place: an expression of captures, or a function (None: the rule does not apply after all).
Replacement = str | Callable[[Match, Builder], "Value | None"]


@dataclass(frozen=True)
class Rule:
    """A named rewrite: where `pattern` matches and `condition` holds, `replacement` takes its place; `why` is shown."""

    name: str
    pattern: str
    replacement: Replacement
    why: str
    condition: Callable[[Match], bool] | None = None

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        """The parsed alternatives."""
        return parse_pattern(self.pattern)


def constant_value(value: Value, opaque: Collection[Value] = ()) -> Any | None:
    """The NumPy scalar that all elements of a constant have (seen through broadcasts and reshapes), else None.

    Values in `opaque` count as unknown.
    """
    node = value.producer
    while node is not None and node.op.name in ("broadcast_to", "reshape", "transpose") and value not in opaque:
        value = node.inputs[0]
        node = value.producer
    if node is None or node.op.name != "constant" or value in opaque:
        return None
    array = node.attributes["value"].array
    if not 0 < array.size <= UNIFORM_LIMIT:
        return None
    first = array.reshape(-1)[0]
    return first if array.size == 1 or np.all(array == first) else None


_Found = tuple[dict[str, Value], tuple[Value, ...]]  # captures, interior values


def _match(pattern: Pattern, value: Value, found: _Found, protected: set[Value]) -> Iterator[_Found]:
    """All ways to match `pattern` at `value` (commutative ops give several)."""
    captures, interior = found
    if isinstance(pattern, Capture):
        if captures.get(pattern.name, value) is value:
            yield {**captures, pattern.name: value}, interior
    elif isinstance(pattern, Number):
        constant = constant_value(value, protected)
        if constant is not None and constant == pattern.value:
            yield captures, interior
    elif pattern.op == PER_ROW:
        yield from _match_per_row(pattern.args[0], value, found, protected)
    elif _is_application(pattern, value) and value not in protected:
        node = value.producer
        assert node is not None
        named = {**captures, pattern.label: value} if pattern.label else captures
        for args in _orders(node, pattern.args):
            yield from _match_all(args, node.inputs, (named, (*interior, value)), protected)


def _match_all(
    patterns: Sequence[Pattern], values: Sequence[Value], found: _Found, protected: set[Value]
) -> Iterator[_Found]:
    if not patterns:
        yield found
        return
    for head in _match(patterns[0], values[0], found, protected):
        yield from _match_all(patterns[1:], values[1:], head, protected)


def _is_application(pattern: Application, value: Value) -> bool:
    node = value.producer
    if node is None or node.op.name != pattern.op or len(node.inputs) != len(pattern.args) or len(node.outputs) != 1:
        return False
    return all(_has_attribute(node, name, wanted) for name, wanted in pattern.attributes)


def _has_attribute(node: Node, name: str, wanted: Any) -> bool:
    given = node.attributes[name]
    if wanted != LAST:
        return bool(given == wanted)
    last = node.inputs[0].type.rank - 1
    if isinstance(given, tuple):
        return len(given) == 1 and given[0] in (last, -1) and last >= 0
    return given in (last, -1) and last >= 0


def _orders(node: Node, args: tuple[Pattern, ...]) -> Iterator[tuple[Pattern, ...]]:
    yield args
    if node.op.commutative and len(args) == 2 and args[0] != args[1]:
        yield args[::-1]


def _match_per_row(pattern: Pattern, value: Value, found: _Found, protected: set[Value]) -> Iterator[_Found]:
    captures, interior = found
    node = value.producer
    if node is not None and node.op.name == "broadcast_to" and value not in protected:
        value, interior = node.inputs[0], (*interior, value)
        rows, type_ = node.type.shape[:-1], value.type
        if type_.shape != (*rows, 1):
            return
    if value.type.rank == 0 or value.type.shape[-1] != 1:
        return
    yield from _match(pattern, value, (captures, interior), protected)
    node = value.producer
    if node is not None and node.op.name == "reshape" and value not in protected:
        if node.inputs[0].type.shape == value.type.shape[:-1]:
            yield from _match(pattern, node.inputs[0], (captures, (*interior, value)), protected)


# --------------------------------------------------------------------------------------------- rewriting


def rewrite(graph: Graph, rules: Sequence[Rule]) -> PassResult:
    """Apply `rules` everywhere, operands first, until none applies; earlier rules have precedence.

    Returns the same graph object if nothing matched. Raises VerifyError, naming the rules, if a replacement has
    another type than what it replaces or if the rules still apply after `SWEEP_LIMIT` sweeps.
    """
    by_op = _by_root_op(rules)
    rewrites: list[Rewrite] = []
    for _ in range(SWEEP_LIMIT):
        sweep = _Sweep(graph, by_op)
        after = sweep.run()
        if not sweep.rewrites:
            return PassResult(graph, tuple(rewrites))
        rewrites += sweep.rewrites
        graph = after
    circle = ", ".join(sorted({r.rule for r in sweep.rewrites}))
    raise VerifyError(f"rewriting {graph.name!r} comes to no end: {circle} still apply after {SWEEP_LIMIT} sweeps")


def left_in(rules: Sequence[Rule], without: Collection[str]) -> tuple[Rule, ...]:
    """The rules but for those named in `without`. Names of rules that are not among them do not matter."""
    return tuple(rule for rule in rules if rule.name not in without)


def gradient_targets(graph: Graph) -> set[Value]:
    """The values that `grad` and other deferred derivatives of the graph differentiate with respect to."""
    return {value for node in graph.nodes for value in differentiated(node)}


def _by_root_op(rules: Sequence[Rule]) -> dict[str, list[tuple[Rule, Pattern]]]:
    """Rules by the op at their pattern's root, in order; a capture at the root stands under every op."""
    found: dict[str, list[tuple[Rule, Pattern]]] = {name: [] for name in OPS}
    for rule in rules:
        for pattern in rule.patterns:
            for name in [pattern.op] if isinstance(pattern, Application) else list(OPS):
                if name not in found:
                    raise DefinitionError(f"rule {rule.name!r}: no op is called {name!r}")
                found[name].append((rule, pattern))
    return found


class _Sweep:
    """One bottom-up pass over a graph."""

    def __init__(self, graph: Graph, rules: Mapping[str, Sequence[tuple[Rule, Pattern]]]) -> None:
        self.graph = graph
        self.returned = Counter(graph.outputs)
        self.rules = rules
        self.rewrites: list[Rewrite] = []
        self.new: dict[Value, Value] = {}
        self.readers: dict[Value, list[str]] = {}  # new value -> ops that read the old one
        self.current: list[str] = []  # ops that read the node at hand
        self.existing: set[Value] = set()
        self.old_protected = gradient_targets(graph)
        self.protected: set[Value] = set()

    def run(self) -> Graph:
        """The rewritten graph."""
        for value in self.graph.inputs:
            self.enter(value, value)
        for node in self.graph.nodes:
            current = reading(node, tuple(self.new[v] for v in node.inputs))
            frozen = any(v in self.old_protected for v in node.outputs)
            single = len(node.outputs) == 1
            self.current = self.readers_of(node.output) if single else []
            outputs = (self.rewritten(current),) if single and not frozen else current.outputs
            for old, new in zip(node.outputs, outputs, strict=True):
                self.enter(old, new)
        return Graph(self.graph.name, self.graph.inputs, tuple(self.new[v] for v in self.graph.outputs))

    def enter(self, old: Value, new: Value) -> None:
        self.new[old] = new
        self.existing.add(new)
        self.readers.setdefault(new, []).extend(self.readers_of(old))
        if old in self.old_protected:
            self.protected.add(new)

    def readers_of(self, old: Value) -> list[str]:
        readers = [node.op.name for node in self.graph.readers.get(old, ())]
        return readers + ["return"] * self.returned[old]

    def rewritten(self, node: Node) -> Value:
        """What stands for `node` after the rules."""
        value = node.output
        for _ in range(NODE_LIMIT):
            if value.producer is None or value in self.existing or len(value.producer.outputs) != 1:
                break
            after = self.apply_first(value.producer)
            if after is None:
                break
            value = after
        return value

    def apply_first(self, node: Node) -> Value | None:
        """The replacement by the first rule that applies at `node`, recorded; None if no rule does."""
        for rule, pattern in self.rules[node.op.name]:
            for captures, interior in _match(pattern, node.output, ({}, ()), self.protected):
                match = Match(node, captures, interior or (node.output,), self)
                if rule.condition is not None and not rule.condition(match):
                    continue
                after = _replacement(rule, match)
                if after is None:
                    continue
                if after.type != node.type:
                    raise VerifyError(
                        f"rule {rule.name!r} put {after.type} in the place of {node.op.name}: {node.type}"
                    )
                self.record(rule, match, after)
                return after
        return None

    def record(self, rule: Rule, match: Match, after: Value) -> None:
        names = {value: name for name, value in match.values.items() if value not in match.interior}
        before_text = _expression(match.root.output, names, lambda v: v in match.interior)
        after_text = _expression(after, names, lambda v: v not in self.existing)
        self.rewrites.append(Rewrite(rule.name, before_text, after_text, rule.why, match.root.origin))


def _replacement(rule: Rule, match: Match) -> Value | None:
    builder = Builder(match.root.origin)
    if callable(rule.replacement):
        return rule.replacement(match, builder)
    (pattern,) = parse_pattern(rule.replacement)
    return _instantiate(pattern, match, builder)


def _instantiate(pattern: Pattern, match: Match, builder: Builder) -> Value:
    if isinstance(pattern, Capture):
        return match[pattern.name]
    if isinstance(pattern, Number):
        raise DefinitionError("a number in a replacement has no type; write the replacement as a function")
    args = [_instantiate(arg, match, builder) for arg in pattern.args]
    result = builder.apply(OPS[pattern.op], args, dict(pattern.attributes))
    assert isinstance(result, Value)
    return result


def _expression(value: Value, names: Mapping[Value, str], inside: Callable[[Value], bool]) -> str:
    """`value` as an expression: nodes that are `inside` are written out, others by name, number or op."""
    if value in names:
        return names[value]
    constant = constant_value(value)
    if constant is not None:
        return f"{constant:g}" if constant.dtype.kind == "f" else str(constant)
    node = value.producer
    if node is None or not inside(value):
        return label(value)
    parts = [*(_expression(v, names, inside) for v in node.inputs), *format_attributes(node)]
    return f"{node.op.name}({', '.join(parts)})"
