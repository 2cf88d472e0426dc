"""From declared symbols to a circuit: names of wires, gates, values by the interpreter, gradients by reverse mode."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from typing import Any

import numpy as np

from graphc.autodiff.expand import DEFERRED, expand_derivatives
from graphc.autodiff.reverse import gradients, pull_back
from graphc.dsl.collect import Declared, collect
from graphc.dsl.random import RNG
from graphc.dsl.symbol import Symbol
from graphc.dsl.variables import Input, Leaf, Param, Variable
from graphc.errors import GradientError, InputError
from graphc.inspect import circuit_rules as rules
from graphc.inspect.circuit_model import DONE, NO_GRADIENT, NOT_COMPUTED, Array, Edge, Gate, Sketch, Wire
from graphc.interpret import bind_sizes, evaluate
from graphc.ir.builder import Builder
from graphc.ir.dims import Dim
from graphc.ir.graph import Graph, Node, Value, reached_from, topological
from graphc.ir.types import TensorType
from graphc.passes.bind import bind

JACOBIAN_LIMIT = 36  # elements of a local Jacobian that are shown as numbers
_OUTPUT_NAMES = "f g L out result"
_INNER_NAMES = "q r s u v a b c d h k m n p"


@dataclass(frozen=True, eq=False)
class Declaration:
    """The expression as a graph of its own, and what the user said of its values; all sizes known if `arrays` is."""

    graph: Graph
    outputs: tuple[Value, ...]
    named: Mapping[Value, str]
    wrt: tuple[Value, ...] | None
    cut: frozenset[Value]
    kinds: Mapping[Value, str]  # of the graph's inputs
    arrays: Mapping[str, Any] | None

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """The gates' nodes: what the outputs need, down to the cut. Constants are leaves, or written into gates."""
        return tuple(n for n in topological(self.outputs, self.cut) if not _is_constant(n))

    @cached_property
    def leaves(self) -> tuple[Value, ...]:
        """The values at which the drawing starts, in the order in which they are first read."""
        made = {value for node in self.nodes for value in node.outputs}
        read = dict.fromkeys(v for node in self.nodes for v in node.inputs)
        known = [v for v in read if v in self.kinds or v in self.cut or rules.scalar_constant(v) is None]
        return tuple(v for v in dict.fromkeys([*known, *self.outputs]) if v not in made)


def _is_constant(node: Node) -> bool:
    return node.op.name == "constant" or rules.scalar_constant(node.outputs[0]) is not None


def declaration(
    outputs: Sequence[Symbol],
    at: Mapping[Symbol, Any] | None,
    wrt: Sequence[Symbol] | None,
    names: Mapping[Symbol, str],
    cut: Sequence[Symbol],
) -> Declaration:
    """Collect the expression. Raises InputError for values that are missing or that it does not read."""
    marked = [*outputs, *names, *(wrt or ()), *cut]
    inputs = _inputs(marked)
    declared = collect(inputs, marked, name="circuit")
    graph = declared.graph
    if any(node.op.name in DEFERRED for node in graph.nodes):
        graph = expand_derivatives(graph)
    arrays = None if at is None else _arrays(declared, at)
    if arrays is not None:
        known = {v: np.asarray(arrays[v.name]) for v in graph.inputs}
        sizes: dict[str, Dim] = dict(bind_sizes(graph.inputs, known))
        graph = bind(graph, sizes)
    values = iter(graph.outputs)
    results = tuple(next(values) for _ in outputs)
    named = {next(values): name for name in names.values()}
    by = None if wrt is None else tuple(next(values) for _ in wrt)
    ends = frozenset(next(values) for _ in cut)
    return Declaration(graph, results, named, by, ends, _kinds(declared, graph), arrays)


def _inputs(symbols: Sequence[Symbol]) -> list[Input]:
    """The inputs that the symbols depend on, in the order in which they are first read."""
    for symbol in symbols:
        if not isinstance(symbol, Symbol):
            raise InputError(f"gc.circuit: expected symbols, got {type(symbol).__name__}")
    values = [symbol.ir for symbol in symbols]
    found: dict[Input, None] = {}
    for value in (*(v for node in topological(values) for v in node.inputs), *values):
        if isinstance(value, Leaf) and isinstance(value.owner, Input):
            found[value.owner] = None
    return list(found)


def _kinds(declared: Declared, graph: Graph) -> dict[Value, str]:
    kinds = ["input"] * len(declared.inputs)
    kinds += ["parameter" if isinstance(v, Param) else "state" for v in declared.variables]
    kinds += ["random state"] * declared.uses_rng
    return dict(zip(graph.inputs, kinds, strict=True))


def _arrays(declared: Declared, at: Mapping[Symbol, Any]) -> dict[str, Any]:
    """Arrays by input name: those given, variables' own values, and a fixed random state."""
    arrays: dict[str, Any] = {}
    symbols: list[Input | Variable] = [*declared.inputs, *declared.variables]
    leaves: dict[Symbol, Value] = dict(zip(symbols, declared.graph.inputs, strict=False))
    unknown = [symbol for symbol in at if symbol not in leaves]
    if unknown:
        raise InputError(
            f"gc.circuit: `at` gives a value for {unknown[0]!r}, which is no input or parameter of the "
            f"expression; those are: {', '.join(v.name for v in leaves.values()) or 'none'}"
        )
    missing = [leaf.name for leaf in declared.inputs if leaf not in at]
    if missing:
        raise InputError(
            f"gc.circuit: `at` has no value for {', '.join(missing)}; give every input one, or leave `at` "
            "out to draw the circuit without numbers"
        )
    for name, variable in declared.named_variables.items():
        arrays[name] = at[variable] if variable in at else variable.value
    arrays |= {leaf.name: at[leaf] for leaf in declared.inputs}
    for symbol, leaf in leaves.items():
        if np.ndim(arrays[leaf.name]) != symbol.ndim:
            shape = list(np.shape(arrays[leaf.name]))
            raise InputError(f"gc.circuit: {leaf.name} is {leaf.type}, `at` gives it an array of shape {shape}")
    if declared.uses_rng:
        arrays[RNG.name] = np.zeros(2, np.int64)
    return arrays


def check_size(declared: Declaration, limit: int) -> None:
    """Raise InputError for more gates than a picture can show, and say how to narrow it."""
    nodes = declared.nodes
    if len(nodes) <= limit:
        return
    places = Counter(n.origin.module or n.origin.place or "an unknown line" for n in nodes).most_common(4)
    most = ", ".join(f"{place} ({number})" for place, number in places)
    raise InputError(
        f"gc.circuit: the expression has {len(nodes)} gates, more than limit={limit}; most are from {most}. Draw a "
        "part of it: give an inner symbol as the expression, stop at others with cut=[h, ...] (they are drawn as "
        "inputs), or raise the limit"
    )


def sketch(declared: Declaration) -> Sketch:
    """Gates, wires and edges with all their numbers, gradients included."""
    names = wire_names(declared)
    nodes = declared.nodes
    wires: dict[Value, Wire] = {}
    for value in declared.leaves:
        wires[value] = _wire(declared, value, names[value])
    gates = []
    for k, node in enumerate(nodes):
        operands = [_operand(v, names) for v in node.inputs]
        text = rules.formula(node, operands)
        for value in node.outputs:
            wires[value] = replace(_wire(declared, value, names[value]), formula=text, gate=k)
        gates.append(_gate(node, operands, names, {v: i for i, v in enumerate(wires)}))
    numbers = {v: i for i, v in enumerate(wires)}
    result = Sketch(tuple(wires.values()), tuple(gates), tuple(numbers[v] for v in declared.outputs),
                    _seed(declared, names))  # fmt: skip
    followed = _followed(declared, list(wires))
    return result if declared.arrays is None else _with_numbers(declared, result, list(wires), followed)


def _wire(declared: Declaration, value: Value, name: str) -> Wire:
    kind = _leaf_kind(declared, value)
    status = NOT_COMPUTED if value.type.dtype.is_float and kind != "constant" else NO_GRADIENT
    return Wire(name, kind, str(value.type), status=status)


def _leaf_kind(declared: Declaration, value: Value) -> str:
    if value in declared.cut:
        return "cut"
    constant = value.producer is not None and _is_constant(value.producer)
    return "constant" if constant else declared.kinds.get(value, "value")


def _operand(value: Value, names: Mapping[Value, str]) -> str:
    return names[value] if value in names else rules.constant_text(rules.scalar_constant(value) or 0.0)


def wire_names(declared: Declaration) -> dict[Value, str]:
    """The users' names, inputs' own names, `f` for the result and short letters for what lies between."""
    names = {v: name for v, name in declared.named.items()}
    for value in declared.leaves:
        if value in declared.kinds:
            names.setdefault(value, value.name)
    clash = [name for name, number in Counter(names.values()).items() if number > 1]
    if clash:
        raise InputError(f"gc.circuit: two wires are called {clash[0]!r}; rename one by names={{symbol: name}}")
    taken = set(names.values())
    results = [v for v in dict.fromkeys(declared.outputs) if v not in names]
    if len(results) == 1:
        names[results[0]] = next(_fresh(_OUTPUT_NAMES.split(), "f", taken))
    else:
        names |= dict(zip(results, _fresh([], "f", taken), strict=False))
    constants, letters = _fresh([], "c", taken), _fresh(_INNER_NAMES.split(), "v", taken)
    for value in [*declared.leaves, *(v for node in declared.nodes for v in node.outputs)]:
        if value not in names:
            names[value] = next(constants if _leaf_kind(declared, value) == "constant" else letters)
    return names


def _fresh(first: Sequence[str], stem: str, taken: set[str]) -> Iterator[str]:
    """Names that are not taken, `first` and then numbered ones; each is taken when it is given out."""
    for name in first:
        if name not in taken:
            taken.add(name)
            yield name
    for number in count(1):
        if (name := f"{stem}{number}") not in taken:
            taken.add(name)
            yield name


def _gate(node: Node, operands: Sequence[str], names: Mapping[Value, str], numbers: Mapping[Value, int]) -> Gate:
    constants = [None if v in numbers else text for v, text in zip(node.inputs, operands, strict=True)]
    outputs = [names[v] for v in node.outputs]
    elementwise = node.op.scalar is not None
    found = [] if elementwise else rules.gradient_rules(node, operands, outputs)
    edges = []
    for k, value in enumerate(node.inputs):
        if value not in numbers:
            continue
        if elementwise:
            symbol = rules.local_derivative(node, k, operands, outputs[0])
            label = f"∂{outputs[0]}/∂{operands[k]}"
        else:
            symbol, label = found[k], f"grad {operands[k]}"
        edges.append(Edge(numbers[value], label, symbol, elementwise=elementwise))
    return Gate(node.op.name, rules.glyph(node, constants), tuple(edges), tuple(numbers[v] for v in node.outputs),
                str(node.origin))  # fmt: skip


def _seed(declared: Declaration, names: Mapping[Value, str]) -> str:
    parts = [names[v] for v in declared.outputs if v.type.dtype.is_float] or [names[v] for v in declared.outputs]
    if all(v.type.shape == () for v in declared.outputs):
        return parts[0] if len(parts) == 1 else f"the sum {' + '.join(parts)}"
    return f"the sum of all elements of {', '.join(parts)}"


def _followed(declared: Declaration, wires: Sequence[Value]) -> set[Value]:
    """The wires whose gradients are asked for: floats that depend on `wrt`, or all but constants."""
    floats = {v for v in wires if v.type.dtype.is_float and _leaf_kind(declared, v) != "constant"}
    if declared.wrt is None:
        return floats
    foreign = [v for v in declared.wrt if v not in floats]
    if foreign:
        raise InputError(f"gc.circuit: wrt names {foreign[0]!r}, which is no floating wire of the circuit")
    return floats & reached_from(declared.wrt, declared.nodes)


def _with_numbers(declared: Declaration, drawn: Sketch, wires: Sequence[Value], followed: set[Value]) -> Sketch:
    """The sketch with values, gradients and local derivatives, all from one run of the interpreter."""
    builder = Builder()
    found = _gradients(declared, [v for v in wires if v in followed], builder)
    edges = [_edge_values(gate, node, wires, found, builder)
             for gate, node in zip(drawn.gates, declared.nodes, strict=True)]  # fmt: skip
    asked = [*wires, *found.values(), *(v for gate in edges for slopes, share in gate for v in (*slopes, share))]
    arrays = _evaluated(declared, list(dict.fromkeys(v for v in asked if v is not None)))
    new_wires = []
    for value, wire in zip(wires, drawn.wires, strict=True):
        wire = replace(wire, value=arrays[value])
        if value in found:
            g = found[value]
            wire = replace(wire, status=NO_GRADIENT) if g is None else replace(wire, gradient=arrays[g], status=DONE)
        new_wires.append(wire)
    gates = []
    for gate, values in zip(drawn.gates, edges, strict=True):
        shape = arrays[wires[gate.outputs[0]]].shape
        inputs = (_with_arrays(e, shape, *v, arrays) for e, v in zip(gate.inputs, values, strict=True))
        gates.append(replace(gate, inputs=tuple(inputs)))
    return replace(drawn, wires=tuple(new_wires), gates=tuple(gates))


def _gradients(declared: Declaration, wanted: Sequence[Value], builder: Builder) -> dict[Value, Value | None]:
    """The gradients of the sum of the outputs' elements; None where nothing flows."""
    results = [v for v in dict.fromkeys(declared.outputs) if v in set(wanted)]
    seeds = [builder.full(1, v.type) for v in results]
    try:
        return dict(zip(wanted, gradients(results, seeds, wanted, builder, until=declared.cut), strict=True))
    except GradientError as error:
        raise GradientError(f"gc.circuit: {error}; or draw the values alone, with wrt=[]") from None


EdgeValues = tuple[list[Value], Value | None]


def _edge_values(
    gate: Gate, node: Node, wires: Sequence[Value], found: Mapping[Value, Value | None], builder: Builder
) -> list[EdgeValues]:
    """For each edge the values of its slope (elementwise) or Jacobian rows, and of its share of the gradient."""
    operands = {wires[edge.wire] for edge in gate.inputs}
    drawn = [k for k, v in enumerate(node.inputs) if v in operands]
    result: list[EdgeValues] = [([], None) for _ in drawn]
    if not any(v in found for v in node.inputs) or not node.outputs[0].type.dtype.is_float:
        return result
    try:
        rows = [pull_back(node, [basis], builder) for basis in _bases(node, builder)]
    except GradientError:
        return result  # no gradient flows through this gate; `gradients` complained if one is needed
    given = [found.get(v) for v in node.outputs]
    shares = pull_back(node, given, builder) if any(g is not None for g in given) else [None] * len(node.inputs)
    for i, k in enumerate(drawn):
        if node.inputs[k] in found:
            slopes = [row[k] for row in rows]
            known = [s for s in slopes if s is not None]
            result[i] = (known if len(known) == len(slopes) else [], shares[k])
    return result


def _bases(node: Node, builder: Builder) -> list[Value]:
    """Cotangents of the output: all ones for an elementwise gate, else one for each element if there are few."""
    if len(node.outputs) != 1:
        return []
    output = node.outputs[0]
    if node.op.scalar is not None:
        return [builder.full(1, output.type)]
    rows, columns = (_count(output.type), max(_count(v.type) for v in node.inputs))
    if not 0 < rows * columns <= JACOBIAN_LIMIT:
        return []
    shape = [d for d in output.type.shape if isinstance(d, int)]
    return [builder.constant(row.reshape(shape), output.type.dtype) for row in np.eye(rows)]


def _evaluated(declared: Declaration, values: Sequence[Value]) -> dict[Value, Array]:
    assert declared.arrays is not None
    graph = expand_derivatives(Graph("circuit", declared.graph.inputs, tuple(values)))
    return dict(zip(values, evaluate(graph, declared.arrays), strict=True))


def _count(type_: TensorType) -> int:
    size = type_.size
    assert isinstance(size, int)  # the declaration is bound to its arrays
    return size


def _with_arrays(
    edge: Edge, output: tuple[int, ...], slopes: list[Value], share: Value | None, arrays: Mapping[Value, Array]
) -> Edge:
    number: Array | None = None
    if slopes and edge.elementwise:
        number = arrays[slopes[0]]
    elif slopes:
        rows = np.stack([arrays[s] for s in slopes])
        number = rows.reshape(output + rows.shape[1:])
    return replace(edge, number=number, share=None if share is None else arrays[share])
