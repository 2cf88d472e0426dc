"""Graph to kernel forms: each node that needs a kernel becomes one, a `fusion` node by composing its body's forms.

Nodes that run graphs (branches, loops) are lowered with them; `graphc.codegen.regions` makes them parts of the plan.
Operands of the resulting kernels are named by the values they hold, the same names as in the memory plan.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from graphc.errors import CompileError
from graphc.ir.builder import explain
from graphc.ir.dims import Dim
from graphc.ir.graph import Graph, Node, Value, inlined
from graphc.ir.types import i64
from graphc.kernel.compose import bind_kernel, change_expressions, separate_names
from graphc.kernel.expr import Affine, Apply, Cast, Computed, Const, Expr, Extent, Load, Name, transform, walk
from graphc.kernel.form import Axis, Kernel, Operand, Stage, Store
from graphc.kernel.parser import RESERVED
from graphc.ops.fusion import fused_form, named_form


@dataclass(frozen=True)
class LoweredNode:
    """A node of the fused graph and its kernel; operand names are value names."""

    node: Node
    kernel: Kernel
    index_reader: str = ""  # the op, and its module, that uses tensor elements as indices


@dataclass(frozen=True)
class LoweredBody:
    """A graph that a node runs, and what becomes of its nodes. It is a copy: no other node has its values.

    `name` is what its kernels' names begin with.
    """

    name: str
    graph: Graph
    items: tuple[LoweredNode | NestedNode, ...]


@dataclass(frozen=True)
class NestedNode:
    """A node whose graphs run as regions of the program: a branch or a loop called `name`."""

    node: Node
    name: str
    bodies: tuple[LoweredBody, ...]


@dataclass(frozen=True)
class Prefix:
    """What names within a branch or loop begin with: its name, and then modules as far as they go beyond its own."""

    name: str = ""
    module: str = ""

    def label(self, module: str, what: str) -> str:
        """The name, the rest of a module path, and a word, all that there is of them."""
        path, own = module.split("."), self.module.split(".")
        shared = 0
        while shared < min(len(path), len(own)) and path[shared] == own[shared]:
            shared += 1
        return "_".join(part for part in (self.name, *path[shared:], what) if part)


PROGRAM = Prefix()


class Names:
    """Unique, readable identifiers of values and kernels: `fc1_weight`, `fc1_relu`, `fc1_relu_2`."""

    def __init__(self) -> None:
        self._used = set(RESERVED)  # words of the kernel text
        self._kernels = set(RESERVED)
        self._values: dict[Value, str] = {}

    def copy(self) -> Names:
        """The same names, to which others can be added apart."""
        other = Names()
        other._used, other._kernels, other._values = set(self._used), set(self._kernels), dict(self._values)
        return other

    def unique(self, wanted: str) -> str:
        """`wanted` as an identifier, with a number appended if another value has it."""
        return _unique(wanted, self._used)

    def kernel(self, wanted: str) -> str:
        """`wanted` as an identifier, with a number appended if another kernel has it."""
        return _unique(wanted, self._kernels)

    def of(self, value: Value, prefix: Prefix = PROGRAM) -> str:
        """The name of a value, the same at every call. `prefix` goes before it at the first one."""
        if value not in self._values:
            self._values[value] = self.unique(prefix.label(_module(value), value_label(value)))
        return self._values[value]

    def give(self, values: Sequence[Value], names: Sequence[str]) -> None:
        """Let values have these names, which other values have too."""
        self._values |= dict(zip(values, names, strict=True))


def _unique(wanted: str, used: set[str]) -> str:
    base = re.sub(r"\W+", "_", wanted, flags=re.ASCII).strip("_") or "value"
    base = f"v{base}" if base[0].isdigit() else base
    name, count = base, 1
    while name in used:
        count += 1
        name = f"{base}_{count}"
    used.add(name)
    return name


def _module(value: Value) -> str:
    """The module that a value belongs to: in a fusion of several kernels, that of the node which makes it."""
    node = value.producer
    if node is not None and node.op.name == "fusion" and len(node.attributes["anchors"]) > 1:
        return node.attributes["body"].outputs[value.index].origin.module
    return node.origin.module if node else ""


def value_label(value: Value) -> str:
    """A short word for what a value is: the op that makes it (the body's op in a fusion)."""
    node = value.producer
    if node is None:
        return value.name
    if node.op.name == "fusion":
        return value_label(node.attributes["body"].outputs[value.index])
    return node.op.name


def needs_kernel(node: Node) -> bool:
    """False for views that share their operand's memory and for array constants."""
    return not (is_view(node) or is_array_constant(node))


def is_array_constant(node: Node) -> bool:
    """True for a `constant` with a shape: its bytes are part of the program, not computed."""
    return node.op.name == "constant" and node.type.rank > 0


def is_view(node: Node) -> bool:
    """True if the node's result may share its operand's memory: same order, and runtime extents stay leading."""
    if not node.op.view:
        return False
    return all(_runtime_extents_lead(v.type.shape) for v in (*node.inputs, *node.outputs))


def _runtime_extents_lead(shape: tuple[Dim, ...]) -> bool:
    """Row-major data of capacity strides is contiguous for any count if only its first real axis has symbols."""
    real = [d for d in shape if d != 1]
    return all(isinstance(d, int) for d in real[1:])


def lower_graph(
    graph: Graph, capacities: Mapping[str, int], names: Names, prefix: Prefix = PROGRAM
) -> list[LoweredNode | NestedNode]:
    """Kernel forms of all nodes of a fused graph that need one, in the graph's order; nested nodes with their graphs.

    `capacities` bounds every dimension symbol left in the graph; names of kernels and values begin with `prefix`.
    Raises CompileError naming the op and its origin.
    """
    for value in graph.inputs:
        names.of(value, prefix)
    lowered: list[LoweredNode | NestedNode] = []
    for node in graph.nodes:
        for value in node.outputs if prefix != PROGRAM else ():
            names.of(value, prefix)
        if node.op.nested:
            lowered.append(_lower_nested(node, capacities, names, prefix))
        elif needs_kernel(node):
            kernel = replace(_form(node, names), name=_kernel_name(node, names, prefix), origins=_origins(node))
            kernel = separate_names(bind_kernel(kernel, {}, capacities))
            lowered.append(LoweredNode(node, kernel, _index_reader(node)))
    return lowered


def _lower_nested(node: Node, capacities: Mapping[str, int], names: Names, prefix: Prefix) -> NestedNode:
    """A branch or loop and its graphs, in the order of its attributes; a loop's turn is called as the loop itself.

    What a graph captures has the name of the value outside; a loop's test names carried values as the turn does.
    """
    name = _kernel_name(node, names, prefix)
    first = 1 if "carried" not in node.attributes else node.attributes["carried"] + node.attributes.get("sequences", 0)
    captured = node.inputs[first:]
    known: list[str] = []
    bodies = []
    for attribute in (a for a in node.attributes if node.op.attributes[a].kind == "graph"):
        graph: Graph = node.attributes[attribute]
        inputs = tuple(Value(v.type, name=v.name) for v in graph.inputs)
        copy = Graph(graph.name, inputs, inlined(graph, inputs))
        own = len(inputs) - len(captured)
        known = known or [names.of(v, Prefix(name)) for v in inputs[:own]]
        names.give(inputs, [*known, *map(names.of, captured)])
        region = Prefix(name if attribute == "body" else f"{name}_{attribute}", node.origin.module)
        bodies.append(LoweredBody(region.name, copy, tuple(lower_graph(copy, capacities, names, region))))
    return NestedNode(node, name, tuple(bodies))


def _form(node: Node, names: Names) -> Kernel:
    if node.op.lower is None:
        types = [v.type for v in node.inputs]
        reason = "this op has no kernel form; a pass must replace it"
        raise CompileError(explain(node.op.name, types, reason, node.origin))
    form = fused_form if node.op.name == "fusion" else named_form
    return form(node, {v: names.of(v) for v in (*node.inputs, *node.outputs)})


def _kernel_name(node: Node, names: Names, prefix: Prefix) -> str:
    ops = node.attributes["body"].name if node.op.name == "fusion" else node.op.name
    return names.kernel(prefix.label(node.origin.module, ops))


def _origins(node: Node) -> tuple[str, ...]:
    """`op  module  file:line` of every node that the kernel computes, without repeats and without mere fillings."""
    nodes = node.attributes["body"].nodes if node.op.name == "fusion" else (node,)
    lines = [f"{n.op.name}  {n.origin}".rstrip() for n in nodes if n.inputs and n.op.name != "broadcast_to"]
    return tuple(dict.fromkeys(lines))


def _index_reader(node: Node) -> str:
    nodes = node.attributes["body"].nodes if node.op.name == "fusion" else (node,)
    readers = (n for n in nodes if n.op.lower is not None and label_sources(n.op.lower(n)))
    reader = next(readers, None)
    return "" if reader is None else f"{reader.op.name} {reader.origin.module}".rstrip()


def index_readers(lowered: Sequence[LoweredNode | NestedNode]) -> dict[str, str]:
    """What uses tensor elements as indices, by kernel, in nested graphs too."""
    found: dict[str, str] = {}
    for item in lowered:
        if isinstance(item, NestedNode):
            for body in item.bodies:
                found |= index_readers(body.items)
        elif item.index_reader:
            found[item.kernel.name] = item.index_reader
    return found


def copy_kernel(name: str, source: Operand, target: str, capacities: Mapping[str, int]) -> Kernel:
    """A kernel that copies one tensor to another of the same type, whatever the source was filled with when made."""
    axes = tuple(Axis.range(f"i{k}", dim) for k, dim in enumerate(source.shape))
    index = tuple(Affine.axis(a.name) for a in axes)
    stage = Stage(stores=(Store(target, index, Load(source.name, index)),))
    operands = (replace(source, role="in", init=None), replace(source, name=target, role="out", init=None))
    return bind_kernel(Kernel(name, operands, axes, (stage,)), {}, capacities)


def label_sources(kernel: Kernel) -> list[tuple[str, int, Computed]]:
    """Computed indices that are an element of an integer operand plus a constant: (operand, constant, index)."""
    found = []
    for index in _computed_indices(kernel):
        label = _label(index.expr)
        if label is not None:
            found.append((*label, index))
    return found


def clamp_indices(kernel: Kernel, checked: frozenset[str]) -> Kernel:
    """Clamp computed indices into their bounds, except elements of `checked` operands (checked at the call).

    Bounds with runtime extents are known to the kernel alone: such indices are clamped as well as checked.
    """

    def clamped(index: Computed) -> Computed:
        label = _label(index.expr)
        is_checked = label is not None and label[0] in checked and isinstance(index.upper, int)
        if is_checked or not _may_leave_bounds(index.expr):
            return index
        low = Apply("max", (index.expr, Extent(index.lower)))
        return Computed(Apply("min", (low, Extent(index.upper - 1))), index.lower, index.upper)

    def change(expr: Expr) -> Expr:
        def one(e: Expr) -> Expr | None:
            if not isinstance(e, Load):
                return None
            return Load(e.operand, tuple(clamped(i) if isinstance(i, Computed) else i for i in e.index))

        return transform(expr, one)

    stages = []
    for stage in kernel.stages:
        changed = change_expressions(stage, change)
        stores = tuple(
            replace(s, index=tuple(clamped(i) if isinstance(i, Computed) else i for i in s.index))
            for s in changed.stores
        )
        stages.append(replace(changed, stores=stores))
    return replace(kernel, stages=tuple(stages))


def _computed_indices(kernel: Kernel) -> list[Computed]:
    from_stores = [i for s in kernel.stages for t in s.stores for i in t.index if isinstance(i, Computed)]
    found = dict.fromkeys(from_stores)
    for stage in kernel.stages:
        for expr in stage.expressions():
            transform(expr, lambda e: _note(e, found))
    return list(found)


def _note(e: Expr, found: dict[Computed, None]) -> None:
    if isinstance(e, Load):
        found.update(dict.fromkeys(i for i in e.index if isinstance(i, Computed)))


def _label(expr: Expr) -> tuple[str, int] | None:
    """(operand, constant) if the expression is an element of an operand plus a constant, else None."""
    if isinstance(expr, Load):
        return expr.operand, 0
    if isinstance(expr, Cast) and expr.dtype == i64:
        return _label(expr.arg)
    if isinstance(expr, Apply) and expr.primitive in ("add", "sub"):
        left, right = expr.args
        if expr.primitive == "add" and isinstance(left, Const):
            left, right = right, left
        label = _label(left)
        if label is not None and isinstance(right, Const) and right.dtype.is_integer:
            constant = int(right.value)
            return label[0], label[1] + (constant if expr.primitive == "add" else -constant)
    return None


def _may_leave_bounds(expr: Expr) -> bool:
    """True if the index depends on tensor elements, directly or through a let or an accumulator (such as an argmax).

    Index arithmetic on axes alone is the ops' own and right.
    """
    return any(isinstance(e, (Load, Name)) for e in walk(expr))
