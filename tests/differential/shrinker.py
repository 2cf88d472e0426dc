"""Make a case that fails as small as it can be, and still fail in the same way.

Greedy: each kind of step is tried at every place until none helps any more. A step keeps only some outputs, runs one
count of rows, replaces a value by an input that holds it, skips a node, makes a size smaller, or simplifies data. A
smaller case counts only if float32 can know its outputs, as `noise` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from graphc.autodiff.expand import expand_derivatives
from graphc.errors import GraphcError
from graphc.ir.builder import Builder
from graphc.ir.dims import Dim, evaluate
from graphc.ir.graph import Graph, Literal, Node, Value, topological, with_inputs
from graphc.ir.types import TensorType
from graphc.passes.bind import bind, graph_symbols

from .case import RNG, Case
from .check import Failure
from .noise import COUNT, computed

MOST_CHECKS = 500  # a failing case of 30 nodes takes about 100

Step = Iterator[Callable[[], "Case | None"]]  # choices, made only when they are tried; None: not possible after all
Failing = Callable[[Case], "Failure | None"]


def shrink(case: Case, failing: Failing, most: int = MOST_CHECKS) -> Case:
    """The smallest case found that fails with the same kind of failure as `case`, which must fail.

    Gives up after `most` checks, with the smallest so far.
    """
    first = failing(case)
    assert first is not None, "there is nothing to shrink: the case does not fail"
    left = most
    changed = True
    while changed and left > 0:
        changed = False
        for step in STEPS:
            position = 0
            while left > 0 and position < len(choices := list(step(case))):
                smaller = choices[position]()
                left -= 1
                if smaller is not None and _fails_alike(smaller, failing, first.kind):
                    case, changed = smaller, True  # what stands at this position now is another choice
                else:
                    position += 1
    return case


def _fails_alike(case: Case, failing: Failing, kind: str) -> bool:
    """Whether a case can be judged at all, and fails with this kind of failure."""
    try:
        known = all(case.trials.settled(value) for value in case.expanded.outputs)
        failure = failing(case) if known else None
    except GraphcError:
        return False  # no case any more: a gradient that does not exist, an index out of range
    return failure is not None and failure.kind == kind


# ------------------------------------------------------------------------------------------- outputs and counts


def fewer_outputs(case: Case) -> Step:
    """Each output alone; then all but one."""
    count = len(case.graph.outputs)
    if count > 1:
        for keep in range(count):
            yield partial(_kept, case, [keep])
        for drop in range(count):
            yield partial(_kept, case, [k for k in range(count) if k != drop])


def no_variables(case: Case) -> Step:
    """Variables that are not updated as inputs, updates as results."""
    if case.updated:
        yield partial(replace, case, updated=())
    if set(case.variables) - set(case.updated):
        yield partial(replace, case, variables=case.updated)


def fewer_rows(case: Case) -> Step:
    """One count; a smaller one; the capacity that it needs; a fixed size instead of the symbol."""
    if len(case.counts) > 1:
        for count in case.counts:
            yield partial(replace, case, counts=(count,))
        for drop in case.counts:
            yield partial(replace, case, counts=tuple(n for n in case.counts if n != drop))
    if COUNT not in graph_symbols(case.graph):
        return
    if len(case.counts) == 1:
        yield partial(_fixed, case, case.counts[0])
    for capacity in (1, 2, case.capacity // 2, case.capacity - 1):
        if 0 < capacity < case.capacity:
            yield partial(_of_capacity, case, capacity)


def _of_capacity(case: Case, capacity: int) -> Case:
    counts = tuple(dict.fromkeys(min(n, capacity) for n in case.counts))
    return _pruned(replace(case, capacity=capacity, counts=counts))


def _fixed(case: Case, count: int) -> Case:
    graph = bind(case.graph, {COUNT: count})
    return _pruned(replace(case, graph=graph, capacity=count, counts=(count,)))


def _kept(case: Case, positions: list[int]) -> Case:
    first_update = len(case.graph.outputs) - len(case.updated)
    updated = tuple(case.updated[k - first_update] for k in positions if k >= first_update)
    outputs = tuple(case.graph.outputs[k] for k in positions)
    return _pruned(replace(case, graph=Graph(case.graph.name, case.graph.inputs, outputs), updated=updated))


# ------------------------------------------------------------------------------------------- nodes


def earlier(case: Case) -> Step:
    """An operand of the node that makes an output as the output."""
    for position, output in enumerate(case.graph.outputs[: len(case.graph.outputs) - len(case.updated)]):
        for operand in dict.fromkeys(output.producer.inputs if output.producer else ()):
            if operand.producer is not None:
                yield partial(_with_output, case, position, operand)


def _with_output(case: Case, position: int, value: Value) -> Case:
    outputs = (*case.graph.outputs[:position], value, *case.graph.outputs[position + 1 :])
    return _pruned(replace(case, graph=Graph(case.graph.name, case.graph.inputs, outputs)))


def cut(case: Case) -> Step:
    """A node's outputs as inputs that hold their values, late nodes first: all that only they need goes."""
    for node in reversed(case.graph.nodes):
        yield partial(_cut_at, case, node)


def _cut_at(case: Case, node: Node) -> Case | None:
    new: dict[Value, Value] = {}
    arrays = dict(case.arrays)
    for value in node.outputs:
        name = _fresh({*arrays})
        new[value] = Value(value.type, name=name)
        try:
            arrays[name] = _value(case, value, max(case.counts))
        except GraphcError:
            return None
    return _replaced(replace(case, arrays=arrays), new)


def skip(case: Case) -> Step:
    """An operand in place of a node, where the types are the same."""
    for node in reversed(case.graph.nodes):
        if len(node.outputs) == 1:
            for operand in dict.fromkeys(node.inputs):
                if operand.type == node.type:
                    yield partial(_replaced, case, {node.output: operand})


def _value(case: Case, value: Value, count: int) -> np.ndarray:
    """A value as the program sees it, at a count of rows."""
    graph = expand_derivatives(Graph("value", case.graph.inputs, (value,)))
    (array,) = computed(graph, case.rows(count))
    return array.astype(value.type.dtype.numpy)


def _replaced(case: Case, new: Mapping[Value, Value]) -> Case:
    """The case with values replaced by others of their types."""
    known = dict(new)
    for node in topological(case.graph.outputs, until=new.keys()):
        inputs = tuple(known.get(v, v) for v in node.inputs)
        copy = with_inputs(node, inputs)
        known.update((old, value) for old, value in zip(node.outputs, copy.outputs, strict=True) if old not in new)
    outputs = tuple(known.get(v, v) for v in case.graph.outputs)
    leaves = [v for v in new.values() if v.producer is None and v not in case.graph.inputs]
    return _pruned(replace(case, graph=Graph(case.graph.name, (*case.graph.inputs, *leaves), outputs)))


def _fresh(names: set[str]) -> str:
    return next(name for k in range(len(names) + 1) if (name := f"v{k}") not in names)


def _pruned(case: Case) -> Case:
    """The case without inputs that nothing reads, but for one that tells the number of rows; arrays of their sizes."""
    graph = case.graph
    read = {v for node in graph.nodes for v in node.inputs} | set(graph.outputs)
    inputs = [v for v in graph.inputs if v in read or v.name in case.updated]
    wanted = {COUNT} & graph_symbols(Graph(graph.name, tuple(inputs), graph.outputs))
    if wanted and not any(str(d) == COUNT for v in inputs for d in v.type.shape):
        inputs += [v for v in graph.inputs if any(str(d) == COUNT for d in v.type.shape)][:1]
    arrays = {v.name: _first(case.arrays[v.name], v.type, case.capacity) for v in inputs}
    return replace(
        case,
        graph=Graph(graph.name, tuple(inputs), graph.outputs),
        arrays=arrays,
        variables=tuple(name for name in case.variables if name in arrays),
    )


def _first(array: np.ndarray, type_: TensorType, capacity: int) -> np.ndarray:
    return array[tuple(slice(evaluate(d, {COUNT: capacity})) for d in type_.shape)]


# ------------------------------------------------------------------------------------------- sizes and data


def smaller_sizes(case: Case) -> Step:
    """A size made smaller wherever it stands, and its multiples with it."""
    values = [*case.graph.inputs, *(v for node in case.graph.nodes for v in node.outputs)]
    sizes = sorted({d for v in values if v.name != RNG for d in v.type.shape if isinstance(d, int) and d > 1})
    for size in reversed(sizes):
        for less in sorted({1, 2, size // 2, size - 1}):
            for multiples in (True, False):
                if less < size:
                    yield partial(_resized, case, size, less, multiples)


def _resized(case: Case, size: int, less: int, multiples: bool) -> Case | None:
    """The case with a size replaced in all types and attributes; None if the ops' own rules do not take that."""

    def resize(dim: Dim) -> Dim:
        if not isinstance(dim, int) or dim < size or dim % size or (dim != size and not multiples):
            return dim
        return dim // size * less

    def attribute(kind: str, value: Any) -> Any:
        if kind == "shape":
            return tuple(map(resize, value))
        if kind == "literal":
            return Literal.of(value.array[tuple(slice(resize(d)) for d in value.array.shape)])
        return resize(value) if kind == "dim" else value

    keep = {v: v.type.shape if v.name == RNG else tuple(map(resize, v.type.shape)) for v in case.graph.inputs}
    new = {v: Value(TensorType(v.type.dtype, shape), name=v.name) for v, shape in keep.items()}
    try:
        for node in case.graph.nodes:
            kinds = node.op.attributes
            attributes = {name: attribute(kinds[name].kind, value) for name, value in node.attributes.items()}
            made = Builder().apply(node.op, [new[v] for v in node.inputs], attributes)
            outputs = made if isinstance(made, tuple) else (made,)
            new.update(zip(node.outputs, outputs, strict=True))
    except GraphcError:
        return None
    inputs = tuple(new[v] for v in case.graph.inputs)
    arrays = {v.name: _first(_below(case.arrays[v.name], size, less), v.type, case.capacity) for v in inputs}
    return replace(case, graph=Graph(case.graph.name, inputs, tuple(new[v] for v in case.graph.outputs)), arrays=arrays)


def _below(array: np.ndarray, size: int, less: int) -> np.ndarray:
    """Indices below `size` as indices below `less`; other arrays as they are."""
    is_index = array.dtype.kind in "iu" and array.size and 0 <= array.min() and less <= array.max() < size
    return (array % less).astype(array.dtype) if is_index else array


def simpler_data(case: Case) -> Step:
    """An input that holds zeros, ones, or rounded numbers."""
    for name, array in case.arrays.items():
        simpler = [np.zeros_like(array), np.ones_like(array)]
        if array.dtype.kind == "f":
            simpler += [np.round(array), np.round(array, 1)]
        worth = _complexity(array)
        for other in simpler:
            if name != RNG and _complexity(other) < worth:
                yield partial(replace, case, arrays={**case.arrays, name: other})


def _complexity(array: np.ndarray) -> int:
    return sum(len(f"{number:.9g}") for number in np.unique(array))


STEPS = (fewer_outputs, earlier, fewer_rows, no_variables, cut, skip, smaller_sizes, fewer_rows, simpler_data)
