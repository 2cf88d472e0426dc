"""What need not be done in a loop turn by turn, done once before or after it.

* Contractions of slices and captured values, such as the input projection of a recurrent cell, become one contraction
  of the whole sequences before the loop, with all that only they need.
* Contractions and reductions of captured values alone are computed once, before the loop.
* A carried sum of contractions, such as the gradient of a recurrent weight, becomes one contraction over all turns
  after the loop, for which the loop stacks the factors. The sum of a factor, the gradient of a bias, goes with it.
* A stacked output that is a slice of a sequence is that sequence.
* A captured matrix that each turn would read across its rows is transposed once before the loop.

So fewer kernels run in a turn, and those outside have more to do at once. Sums are taken in another order.
"""

from __future__ import annotations

import string
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Node, Value, reading, rebuild, topological, with_inputs
from graphc.ir.types import TensorType
from graphc.ops.einsum import equation_of
from graphc.ops.nested import Parameters, used_by
from graphc.ops.scan import Scan
from graphc.passes.manager import PassResult, Rewrite
from graphc.passes.stacking import stacked

CONTRACTIONS = ("matmul", "einsum")
TURNS_TO_TRANSPOSE = 8  # a loop of so many turns wins more than a transpose costs
REDUCTIONS = ("sum", "mean", "max", "min", "prod")


@dataclass(frozen=True)
class Hoist:
    """Move work out of the scans of a graph. Transposed copies are made only where `layouts` is set: after
    differentiation, for gradients read the matrix itself."""

    name: str = "hoist"
    layouts: bool = False

    def __call__(self, graph: Graph) -> PassResult:
        """The graph with less work in its loops; the same graph if there is none to move."""
        rewrites: list[Rewrite] = []

        def replaced(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
            if node.op.name != "scan":
                return None
            made = _Hoisting(with_inputs(node, inputs), self.layouts)
            outputs = made.outputs()
            rewrites.extend(made.rewrites)
            return outputs

        if not any(node.op.name == "scan" for node in graph.nodes):
            return PassResult(graph)
        after = rebuild(graph, replaced)
        return PassResult(after, tuple(rewrites)) if rewrites else PassResult(graph)


@dataclass
class _Sum:
    """A carried sum: its terms that leave the loop, and those that stay."""

    leaving: list[Value]
    staying: list[Value]


@dataclass
class _Hoisting:
    """One scan: `outputs` gives what stands for its results."""

    node: Node
    layouts: bool = False
    rewrites: list[Rewrite] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.builder = Builder(self.node.origin)
        self.scan = Scan.of(self.node)

    def outputs(self) -> Sequence[Value] | None:
        """The values for the results of the loop; None if it stays as it is."""
        self.scan = self._before(self.scan)
        if self.layouts:
            self.scan = self._turned(self.scan)
        sums = self._sums(self.scan)
        slices = set(self.scan.split(self.scan.body.inputs)[1])
        walked = any(v in slices for v in self.scan.body.outputs[len(self.scan.init) :])
        if not self.rewrites and not sums and not walked:
            return None
        return self._after(self.scan, sums)

    def _record(self, rule: str, before: str, after: str, why: str) -> None:
        self.rewrites.append(Rewrite(rule, before, after, why, self.node.origin))

    # ---- before the loop --------------------------------------------------------------------------------------------

    def _before(self, scan: Scan) -> Scan:
        """The loop without the contractions that can be done before it."""
        outside = self._outside(scan)
        roots = [node for node in scan.body.nodes if node.outputs[0] in outside and _is_costly(node, outside)]
        moved = {value for node in roots for value in node.outputs}
        needed = _operands_until(scan.body.outputs, moved)
        frontier = [value for node in roots for value in node.outputs if value in needed]
        if not frontier:
            return scan
        for value in frontier:
            _, is_stack = outside[value]
            assert value.producer is not None
            rule, why = ("sequence_first", "of all turns at once") if is_stack else ("same_in_all_turns", "once")
            self._record(rule, f"{value.producer.op.name} in a turn", "before the loop", f"it can be done {why}")
        return _with_inputs(scan, frontier, [outside[value] for value in frontier])

    def _outside(self, scan: Scan) -> dict[Value, tuple[Value, bool]]:
        """Values of the body that can be had outside: as stacks of all turns (True), or as the same in all (False)."""
        _, slices, captured = scan.split(scan.body.inputs)
        found = {value: (outer, True) for value, outer in zip(slices, scan.sequences, strict=True)}
        found |= {value: (outer, False) for value, outer in zip(captured, scan.captured, strict=True)}
        for node in scan.body.nodes:
            operands = [found[v] for v in node.inputs if v in found]
            if len(operands) < len(node.inputs):
                continue
            if any(is_stack for _, is_stack in operands):
                stack = stacked(node, operands, scan.length, self.builder)
                if stack is not None:
                    found[node.output] = (stack, True)
            else:
                copy = with_inputs(node, tuple(value for value, _ in operands))
                found |= {inner: (outer, False) for inner, outer in zip(node.outputs, copy.outputs, strict=True)}
        return found

    def _turned(self, scan: Scan) -> Scan:
        """The loop that is given transposed matrices where its turns contract along their rows."""
        b, body = self.builder, scan.body
        outer = dict(zip(scan.split(body.inputs)[2], scan.captured, strict=True))
        wanted = [node for node in body.nodes if _contracts_rows(node, outer)]
        if not wanted or not isinstance(scan.length, int) or scan.length < TURNS_TO_TRANSPOSE:
            return scan
        parameters = Parameters(v.name for v in body.inputs)
        matrices = dict.fromkeys(node.inputs[1] for node in wanted)
        inner = {m: parameters.add(f"{m.name}.transposed", _turned_type(m)) for m in matrices}
        new: dict[Value, Value] = {}
        for node in wanted:
            attributes = {**node.attributes, "transpose_b": False}
            (left,) = _substituted(node.inputs[:1], new)
            made = Builder(node.origin).apply(node.op, (left, inner[node.inputs[1]]), attributes)
            assert isinstance(made, Value)
            new[node.output] = made
            why = "rows of the transposed matrix are contiguous where they are read"
            self._record("transposed_once", "matmul with a transposed operand", "a transpose before the loop", why)
        outputs = _substituted(body.outputs, new)
        used = used_by(outputs)
        given = [pair for pair in outer.items() if pair[0] in used]
        given += [(value, b.transpose(outer[m], permutation=(1, 0))) for m, value in inner.items()]
        carries, slices, _ = scan.split(body.inputs)
        turn = Graph(body.name, (*carries, *slices, *(v for v, _ in given)), outputs)
        return replace(scan, captured=tuple(value for _, value in given), body=turn)

    # ---- after the loop ---------------------------------------------------------------------------------------------

    def _sums(self, scan: Scan) -> dict[int, _Sum]:
        """Carried sums with terms that can be summed after the loop."""
        body, k = scan.body, len(scan.init)
        sums: dict[int, list[Value]] = {}
        adders: set[Node] = set()
        for i in range(k):
            carried, new = body.inputs[i], body.outputs[i]
            terms, nodes = _terms(body, new)
            if carried not in terms or body.outputs.count(new) > 1 or carried in body.outputs[k:]:
                continue
            if body.readers.get(new):
                continue  # the running sum is read in its turn
            terms.remove(carried)
            if len(body.readers.get(carried, ())) == 1 and carried not in terms:
                sums[i] = terms
                adders.update(nodes)
        found = {}
        for i, terms in sums.items():
            leaving = [v for v in terms if _can_leave(scan, v, adders)]
            if leaving:
                found[i] = _Sum(leaving, [v for v in terms if v not in leaving])
        return found

    def _after(self, scan: Scan, sums: dict[int, _Sum]) -> list[Value]:
        """The results of the loop with shorter sums, and with the rest of the sums after it."""
        b, k, body = self.builder, len(scan.init), scan.body
        gone = [i for i, total in sums.items() if not total.staying]
        kept = [i for i in range(k) if i not in gone]
        _, slices, _ = scan.split(body.inputs)
        sequence = dict(zip(slices, scan.sequences, strict=True))
        news = {i: _added(b, [body.inputs[i], *sums[i].staying]) if i in sums else body.outputs[i] for i in kept}
        stacks = [v for v in body.outputs[k:] if v not in sequence]
        factors = (v for total in sums.values() for term in total.leaving for v in _factors(term))
        stacks = list(dict.fromkeys((*stacks, *(v for v in factors if v not in sequence))))
        inputs = (*(body.inputs[i] for i in kept), *body.inputs[k:])
        turn = Graph(body.name, inputs, (*(news[i] for i in kept), *stacks))
        results = replace(scan, init=tuple(scan.init[i] for i in kept), body=turn).apply(b)
        last = dict(zip(kept, results, strict=False))
        stack = sequence | dict(zip(stacks, results[len(kept) :], strict=True))
        wholes: dict[Value, Value] = {}  # one for all sums that have the term
        for i, total in sums.items():
            for term in total.leaving:
                if term not in wholes:
                    wholes[term] = _over_all_turns(term, [stack[v] for v in _factors(term)], b)
                last[i] = b.elementwise("add", last.get(i, scan.init[i]), wholes[term])
                what = "slice" if term.producer is None else term.producer.op.name
                why = "one sum over all turns instead of one added in each"
                self._record("sum_after_loop", f"{what} added in each turn", "after the loop", why)
        for _ in (v for v in body.outputs[k:] if v in sequence):
            self._record("stack_of_slices", "a stack of the slices", "the sequence", "they are the same")
        return [*(last[i] for i in range(k)), *(stack[v] for v in body.outputs[k:])]


def _contracts_rows(node: Node, captured: Mapping[Value, Value]) -> bool:
    """True for a product with a captured matrix, of which it reads whole rows for one element of the result."""
    return (
        node.op.name == "matmul"
        and node.type.rank == 2
        and node.inputs[1] in captured
        and (node.attributes["transpose_b"] and node.inputs[0] not in captured)
    )


def _turned_type(matrix: Value) -> TensorType:
    return TensorType(matrix.type.dtype, matrix.type.shape[::-1])


def _is_costly(node: Node, outside: dict[Value, tuple[Value, bool]]) -> bool:
    """True if the node is worth to be done outside: a contraction, or a reduction of what is the same in all turns."""
    is_stack = outside[node.outputs[0]][1]
    return node.op.name in (CONTRACTIONS if is_stack else (*CONTRACTIONS, *REDUCTIONS))


def _operands_until(outputs: Iterable[Value], until: set[Value]) -> set[Value]:
    """The outputs, and what the nodes that they need read, without looking through the values `until`."""
    given = tuple(outputs)
    return {*given, *(v for node in topological(given, until) for v in node.inputs)}


def _with_inputs(scan: Scan, values: Sequence[Value], outer: Sequence[tuple[Value, bool]]) -> Scan:
    """The scan whose turn is given `values` of its body: slices of stacks, and what is the same in all turns."""
    body, parameters = scan.body, Parameters(v.name for v in scan.body.inputs)
    new = {}
    for value in values:
        assert value.producer is not None
        new[value] = parameters.add(value.producer.op.name, value.type)
    carries, slices, captured = scan.split(body.inputs)
    outputs = _substituted(body.outputs, new)
    used = used_by(outputs)
    walked = [*zip(slices, scan.sequences, strict=True)]
    walked += [(new[v], value) for v, (value, is_stack) in zip(values, outer, strict=True) if is_stack]
    given = [*zip(captured, scan.captured, strict=True)]
    given += [(new[v], value) for v, (value, is_stack) in zip(values, outer, strict=True) if not is_stack]
    walked, given = ([pair for pair in pairs if pair[0] in used] for pairs in (walked, given))
    inputs = (*carries, *(v for v, _ in walked), *(v for v, _ in given))
    sequences, taken = (tuple(value for _, value in pairs) for pairs in (walked, given))
    return replace(scan, sequences=sequences, captured=taken, body=Graph(body.name, inputs, outputs))


def _substituted(outputs: Sequence[Value], new: dict[Value, Value]) -> tuple[Value, ...]:
    """The outputs with other values in the place of some."""
    known = dict(new)
    for node in topological(outputs, new.keys()):
        made = reading(node, tuple(known.get(v, v) for v in node.inputs))
        for old, value in zip(node.outputs, made.outputs, strict=True):
            known.setdefault(old, value)
    return tuple(known.get(v, v) for v in outputs)


def _terms(body: Graph, value: Value) -> tuple[list[Value], list[Node]]:
    """What is added up in `value`, and the additions, of whose results nothing else reads any but the last one."""
    node = value.producer
    if node is None or node.op.name != "add":
        return [value], []
    terms: list[Value] = []
    adders = [node]
    for operand in node.inputs:
        once = len(body.readers.get(operand, ())) == 1 and operand not in body.outputs
        inner, more = _terms(body, operand) if once else ([operand], [])
        terms += inner
        adders += more
    return terms, adders


def _can_leave(scan: Scan, term: Value, adders: Collection[Node]) -> bool:
    """True if a term of a carried sum can be had after the loop: a slice, a contraction of values that change from turn
    to turn, or a sum of what is in memory anyway, because a contraction reads it."""
    node, body = term.producer, scan.body
    _, slices, captured = scan.split(body.inputs)
    if node is None:
        return term in slices
    if not node.inputs or term in body.outputs or not set(body.readers[term]) <= set(adders):
        return False
    constant = {*captured, *(v for n in body.nodes for v in n.outputs if not n.inputs)}
    if any(v in constant for v in node.inputs):
        return False
    if node.op.name in CONTRACTIONS:
        return True
    read = {reader.op.name for reader in body.readers[node.inputs[0]]}
    return node.op.name == "sum" and (node.inputs[0].producer is None or bool(read & set(CONTRACTIONS)))


def _factors(term: Value) -> tuple[Value, ...]:
    """What is stacked for a term of a sum: its operands, or itself if it is a slice."""
    return (term,) if term.producer is None else term.producer.inputs


def _over_all_turns(term: Value, stacks: Sequence[Value], b: Builder) -> Value:
    """The sum over the turns of a slice, a contraction or a sum, given the stacks of its factors."""
    node = term.producer
    if node is None:
        found: Value | None = b.sum(stacks[0], axes=(0,))
    elif node.op.name == "sum":
        rank = node.inputs[0].type.rank
        axes = tuple(sorted(k % rank + 1 for k in node.attributes["axes"]))
        total = b.sum(stacks[0], axes=(0, *axes), keepdims=False)
        assert isinstance(total, Value)
        found = b.reshape(total, shape=node.type.shape) if total.type != node.type else total
    else:
        left, right, out = equation_of(node)
        turn = next(c for c in string.ascii_letters if c not in left + right)
        found = b.einsum(*stacks, equation=f"{turn}{left},{turn}{right}->{out}")
    assert isinstance(found, Value)
    return found


def _added(b: Builder, values: Sequence[Value]) -> Value:
    total = values[0]
    for value in values[1:]:
        total = b.elementwise("add", total, value)
    return total
