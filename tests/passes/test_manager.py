"""Running passes and the history that they leave."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

import pytest

from graphc.errors import VerifyError
from graphc.ir.graph import Graph, Node, Origin, Value, rebuild
from graphc.ir.text import parse, print_graph
from graphc.ir.types import tensor
from graphc.passes.bind import Bind
from graphc.passes.canonicalise import Canonicalise
from graphc.passes.cse import CSE
from graphc.passes.manager import PassResult, Rewrite, Stage, label, run

TEXT = """\
graph g(%x: f32[N,3], %w: f32[3,3]) -> f32[N,3] {
  %0 = neg(%x) : f32[N,3]         # a  net.py:1
  %1 = neg(%0) : f32[N,3]         # a  net.py:1
  %2 = matmul(%1, %w) : f32[N,3]  # fc  net.py:2
  %3 = exp(%2) : f32[N,3]         # fc  net.py:3
  %4 = exp(%2) : f32[N,3]         # fc  net.py:3
  %5 = mul(%3, %4) : f32[N,3]     # fc  net.py:4
  return %5
}"""


@dataclass(frozen=True)
class Broken:
    """Gives every node the type f64."""

    name: str = "broken"

    def __call__(self, graph: Graph) -> PassResult:
        def widen(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...]:
            types = tuple(tensor("f64", t.shape) for t in node.output_types)
            return Node(node.op, inputs, MappingProxyType(dict(node.attributes)), types, node.origin).outputs

        return PassResult(rebuild(graph, widen))


def test_run_gives_a_stage_for_each_pass() -> None:
    graph = parse(TEXT)
    after, stages = run(graph, (Canonicalise(), CSE(), CSE()), verify=True)
    assert [s.name for s in stages] == ["canonicalise", "cse", "cse-2"]
    assert [s.changed for s in stages] == [True, True, False]
    assert stages[0].before is graph and stages[-1].after is after
    assert all(a.after is b.before for a, b in zip(stages, stages[1:], strict=False))
    assert stages[0].before_text == print_graph(graph) and stages[0].after_text == print_graph(stages[1].before)
    assert [r.rule for r in stages[0].rewrites] == ["double_negation"]
    assert run(graph, ()) == (graph, ())


def test_the_verifier_names_the_pass() -> None:
    graph = parse(TEXT)
    with pytest.raises(VerifyError, match="after the pass 'broken': graph 'g': neg gives") as error:
        run(graph, (CSE(), Broken()), verify=True)
    assert "--> " in str(error.value)
    with pytest.raises(VerifyError, match="graph 'g'"):
        run(Broken()(graph).graph, (), verify=True)
    assert run(graph, (Broken(),))[0] is not graph  # not asked to verify


def test_the_diff_shows_what_changed_and_no_renumbering() -> None:
    _, (first, second) = run(parse(TEXT), (Canonicalise(), CSE()))
    assert first.diff.split("\n") == [
        "--- before",
        "+++ after",
        "@@ -1,6 +1,4 @@",
        " graph g(%x: f32[N,3], %w: f32[3,3]) -> f32[N,3] {",
        "-  %0 = neg(%x) : f32[N,3]   # a  net.py:1",
        "-  %1 = neg(%0) : f32[N,3]   # a  net.py:1",
        "-  %2 = matmul(%1, %w) : f32[N,3]   # fc  net.py:2",
        "+  %2 = matmul(%x, %w) : f32[N,3]   # fc  net.py:2",
        "   %3 = exp(%2) : f32[N,3]   # fc  net.py:3",
        "   %4 = exp(%2) : f32[N,3]   # fc  net.py:3",
    ]
    assert [line for line in second.diff.split("\n")[2:] if line[0] in "+-"] == [
        "-  %2 = exp(%0) : f32[N,3]   # fc  net.py:3",
        "-  %3 = mul(%1, %2) : f32[N,3]   # fc  net.py:4",
        "+  %3 = mul(%1, %1) : f32[N,3]   # fc  net.py:4",
    ]


def test_new_values_get_new_numbers_in_the_diff() -> None:
    graph = parse("graph g(%x: f32[N]) -> f32[N] {\n%0 = exp(%x)\n%1 = neg(%0)\nreturn %1 }")
    other = parse("graph g(%x: f32[N]) -> f32[N] {\n%0 = exp(%x)\n%1 = tanh(%0)\n%2 = neg(%1)\nreturn %2 }")
    lines = Stage("probe", graph, other).diff.split("\n")
    assert "+  %2 = tanh(%0) : f32[N]" in lines and "+  %1 = neg(%2) : f32[N]" in lines


def test_no_change_is_an_empty_diff() -> None:
    graph = parse(TEXT)
    stage = Stage("cse", graph, graph)
    assert stage.diff == "" and not stage.changed and stage.rewrites == () and stage.remarks == ()
    assert not Stage("copy", graph, parse(TEXT)).changed


def test_diffs_of_nested_graphs_have_their_lines() -> None:
    text = """graph g(%x: f32[N]) -> f32[N] {
      %0 = fusion(%x, body=graph body(%p: f32[N]) -> f32[N] {
        %0 = exp(%p)
        return %0
      })
      return %0
    }"""
    _, (stage,) = run(parse(text), (Bind((("N", 3),)),))
    assert "+    %0 = exp(%p) : f32[3]" in stage.diff.split("\n")
    assert "     return %0" in stage.diff.split("\n")


def test_records_and_labels() -> None:
    record = Rewrite("r", "a", "b", "because", Origin("fc", "net.py", 3))
    assert str(record) == "r: a  ->  b   # fc  net.py:3" and str(Rewrite("r", "a", "b", "")) == "r: a  ->  b"
    graph = parse(TEXT)
    assert label(graph.inputs[0]) == "%x" and label(graph.outputs[0]) == "%mul"
