"""Whether derivatives exist, said at declaration: paths from outputs to what they are differentiated by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphc.errors import GradientError
from graphc.ir.graph import Graph, Node, Value, reached_from, topological
from graphc.ir.op import NotDifferentiable, Op
from graphc.ops.nested import closure
from graphc.ops.while_loop import NO_REVERSE_MODE, UNBOUNDED


def check_paths(op: str, outputs: Sequence[Value], sources: Sequence[Value], unused: str = "") -> None:
    """Raise GradientError unless every source reaches an output through ops that have gradients.

    `unused` is the advice about a source that no output depends on.
    """
    what = "loss" if op in ("grad", "hessian", "hvp") else "output"
    nodes = topological(outputs)
    live = _differentiably_read(outputs, nodes)
    for source in sources:
        if source not in live and not _blocked_between([source], live, nodes):
            raise GradientError(f"{op}: the {what}{_unreached(outputs, what, source, nodes, unused)}")
    for node in _blocked_between(sources, live, nodes):
        assert isinstance(node.op.gradient, NotDifferentiable)
        raise GradientError(
            f"{op}: {node.op.name} has no gradient ({node.op.gradient.reason}), and the {what} depends on "
            f"{_names(sources)} through it{_place(node)}; use gc.stop_gradient(operand) to hold it constant"
        )
    if op != "jvp":
        _check_bounds(op, sources, live, nodes)


def _check_bounds(op: str, sources: Iterable[Value], live: set[Value], nodes: Sequence[Node]) -> None:
    """Raise GradientError for a loop without bound that reverse mode would have to walk back."""
    active = reached_from(sources, nodes)
    for node in nodes:
        if node.op.name == "while_loop" and node.attributes["bound"] == UNBOUNDED:
            through = [v for v in node.outputs if v in active and v in live and v.type.dtype.is_float]
            if through and any(v in active and v.type.dtype.is_float for v in node.inputs):
                raise GradientError(f"{op}: gc.while_loop{_place(node)}: {NO_REVERSE_MODE}")


def _differentiably_read(outputs: Sequence[Value], nodes: Sequence[Node]) -> set[Value]:
    """The floating values that the outputs depend on through ops that have gradients."""
    live = set(outputs)
    for node in reversed(nodes):
        if _passes(node) and any(v in live for v in node.outputs):
            live.update(v for v in _operands_read(node, live) if v.type.dtype.is_float)
    return live


def _operands_read(node: Node, live: set[Value]) -> Sequence[Value]:
    """The operands on which the live outputs of a node may depend differentiably; of a loop in any turn."""
    if not node.op.nested:
        return node.inputs
    wanted = [k for k, v in enumerate(node.outputs) if v in live]
    if node.op.name == "cond":
        read = {k + 1 for name in ("then", "orelse") for k in _inputs_read(node.attributes[name], wanted)}
    else:
        body, carried = node.attributes["body"], range(node.attributes["carried"])
        wanted = closure(wanted, lambda known: (k for k in _inputs_read(body, known) if k in carried))
        read = _inputs_read(body, wanted) | set(wanted).intersection(carried)
    return [v for k, v in enumerate(node.inputs) if k in read]


def _inputs_read(body: Graph, wanted: Sequence[int]) -> set[int]:
    outputs = [body.outputs[k] for k in wanted]
    live = _differentiably_read(outputs, topological(outputs))
    return {k for k, v in enumerate(body.inputs) if v in live}


def _blocked_between(sources: Iterable[Value], live: set[Value], nodes: Sequence[Node]) -> list[Node]:
    """Ops without a gradient that lie on a path of floating values from `sources` to an output."""
    active, blocked = set(sources), []
    for node in nodes:
        if node.op.name == "stop_gradient" or not any(v in active for v in node.inputs):
            continue
        outputs = [v for v in node.outputs if v.type.dtype.is_float and v not in active]
        if isinstance(node.op.gradient, NotDifferentiable):
            if any(v in live for v in outputs):
                blocked.append(node)
        else:
            active.update(outputs)
    return blocked


def _passes(node: Node) -> bool:
    return node.op.name != "stop_gradient" and not isinstance(node.op.gradient, NotDifferentiable)


def _unreached(outputs: Sequence[Value], what: str, source: Value, nodes: Sequence[Node], unused: str) -> str:
    place = _place(outputs[0])
    reached = reached_from([source], nodes)
    if not reached.intersection(outputs):
        advice = unused or f"leave it out of wrt, or use it in the {what}"
        return f"{place} does not depend on {_names([source])}; {advice}"
    cuts = {
        _cut(n.op)
        for n in nodes
        if n.inputs
        and any(v in reached for v in n.inputs)
        and (not _passes(n) or n.op.nested or not any(v.type.dtype.is_float for v in n.outputs))
    }
    verb = "passes" if len(cuts) == 1 else "pass"
    advice = ("compute that part by other ops, or, if it is meant to be constant, leave it out of wrt and say so with "
              "gc.stop_gradient")
    through = f"depends on {_names([source])} only through {', '.join(sorted(cuts))}, which {verb} no gradient"
    return f"{place} {through}; {advice}"


def _cut(op: Op) -> str:
    """The op, and why no gradient passes it: `argmax (its result is an index)`."""
    return f"{op.name} ({op.gradient.reason})" if isinstance(op.gradient, NotDifferentiable) else op.name


def _names(values: Sequence[Value]) -> str:
    """Names as the user knows them: a variable's path in its module, which its owner has, comes first."""
    owners = [getattr(getattr(v, "owner", None), "name", "") for v in values]
    return ", ".join(o or v.name or f"the {v.type}{_place(v)}" for o, v in zip(owners, values, strict=True))


def _place(item: Node | Value) -> str:
    origin = item.origin
    module = f" in module {origin.module}" if origin.module else ""
    return module + (f" (declared at {origin.place})" if origin.place else "")
