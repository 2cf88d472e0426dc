"""The shrinker, by faults that are put in on purpose: it ends at the few nodes that show the fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from graphc.autodiff.expand import expand_derivatives
from graphc.ir.graph import Graph
from graphc.ir.text import parse
from graphc.passes.manager import run
from graphc.passes.pipeline import default_pipeline
from graphc.passes.rewrite import Rule, rewrite

from .case import Case
from .check import Compiled, Failure, check, check_graph, compare
from .generator import draw
from .noise import COUNT
from .shrinker import shrink

# Each is wrong: what it says, and the largest graph that the shrinker may end with.
BROKEN = [
    (Rule("takes the lesser", "maximum(x, y)", "minimum(x, y)", "wrong"), 1),
    (Rule("forgets a sign", "sub(x, neg(y))", "sub(x, y)", "wrong"), 2),
    (Rule("sums twice", "sum(x)", lambda m, b: b.elementwise("add", b.sum(m["x"], **m.root.attributes),
                                                            b.sum(m["x"], **m.root.attributes)), "wrong",
          lambda m: m.root.attributes["keepdims"]), 1),
    (Rule("transposes the wrong side", "matmul(t@transpose(x), y)",
          lambda m, b: b.matmul(m["x"], m["y"], **m.root.attributes)
          if m["x"].type == m["t"].type and len(m["x"].type.shape) == 2 else None, "wrong"), 2),
]  # fmt: skip


def with_fault(rule: Rule) -> Callable[[Case], Failure | None]:
    """Checks the passes with a broken rule applied once before them."""

    def broken(graph: Graph) -> Graph:
        return run(rewrite_once(graph, rule), default_pipeline({}), verify=True)[0]

    return lambda case: check_graph(case, broken)


def rewrite_once(graph: Graph, rule: Rule) -> Graph:
    """One application of a rule for each place, for rules whose result matches them again."""
    seen: set[str] = set()

    def condition(match: object) -> bool:
        root = match.root  # type: ignore[attr-defined]
        key = f"{id(root.op)} {root.origin} {[id(v) for v in root.inputs]}"
        fresh = key not in seen and (rule.condition is None or rule.condition(match))  # type: ignore[arg-type]
        seen.add(key)
        return fresh

    return rewrite(graph, [Rule(rule.name, rule.pattern, rule.replacement, rule.why, condition)]).graph


def first_failure(failing: Callable[[Case], Failure | None], least_nodes: int, holding: Rule) -> Case:
    """The first seed's case that fails and is no small one."""
    for seed in range(400):
        case = draw(seed, holding)
        if len(case.graph.nodes) >= least_nodes and failing(case) is not None:
            return case
    raise AssertionError("no random graph shows the fault")


@pytest.mark.parametrize(("rule", "most"), BROKEN, ids=[rule.name for rule, _ in BROKEN])
def test_a_broken_rule_is_found_and_shrunk(rule: Rule, most: int) -> None:
    failing = with_fault(rule)
    case = first_failure(failing, 10, rule)

    smallest = shrink(case, failing)

    failure = failing(smallest)
    assert failure is not None and failure.kind == "values"
    assert len(smallest.graph.nodes) <= most, str(smallest)
    assert len(smallest.graph.outputs) == 1
    assert COUNT not in str(smallest) and all(array.size <= 9 for array in smallest.arrays.values()), str(smallest)


def test_the_printed_graph_reproduces_the_failure() -> None:
    rule, _ = BROKEN[0]
    failing = with_fault(rule)
    smallest = shrink(first_failure(failing, 10, rule), failing)
    text, _, arrays = str(smallest).partition("\n\n")
    read: dict[str, np.ndarray] = {}
    exec(arrays, {"np": np}, read)  # what a reader would paste
    again = Case(parse(text), {name: read[name] for name in smallest.arrays}, smallest.counts, smallest.capacity)
    assert failing(again) is not None


def test_an_exception_of_the_compiler_shrinks_too() -> None:
    def refuses(graph: Graph) -> Graph:
        if any(node.op.name == "matmul" for node in graph.nodes):
            raise RuntimeError("no products today")
        return graph

    def failing(case: Case) -> Failure | None:
        return check_graph(case, lambda graph: expand_derivatives(refuses(graph)))

    case = next(c for c in map(draw, range(100)) if len(c.graph.nodes) > 8 and failing(c) is not None)
    smallest = shrink(case, failing)
    assert [node.op.name for node in smallest.graph.nodes] == ["matmul"]
    assert str(failing(smallest)) == "RuntimeError: no products today"


def test_a_wrong_kernel_is_found_and_shrunk() -> None:
    """A fault behind the passes: the machine code of a program whose tanh is an atan."""
    swap = Rule("swap", "tanh(x)", "atan(x)", "wrong")

    def failing(case: Case) -> Failure | None:
        program = Compiled(replace(case, graph=rewrite(case.graph, [swap]).graph))
        found = (compare(case, case.trials, k, program(n)) for k, n in enumerate(case.counts))
        return next((failure for failure in found if failure is not None), None)

    case = first_failure(failing, 8, swap)
    smallest = shrink(case, failing, most=200)
    assert [node.op.name for node in smallest.graph.nodes] == ["tanh"]


def test_nothing_to_shrink() -> None:
    case = draw(3)
    assert check(case) is None
    with pytest.raises(AssertionError, match="nothing to shrink"):
        shrink(case, lambda c: check_graph(c, lambda graph: case.expanded))
