"""Passes and the graphs that ops run: dead code of loops and branches, loops merged, turns saved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

import graphc as gc
from graphc.dsl.collect import collect
from graphc.interpret import evaluate
from graphc.ir.graph import Graph, Node
from graphc.ir.text import parse
from graphc.ir.verify import verify
from graphc.passes.canonicalise import Canonicalise
from graphc.passes.cse import CSE
from graphc.passes.dce import DCE
from graphc.passes.differentiate import Differentiate
from graphc.passes.everywhere import Everywhere
from graphc.passes.loops import Loops


def loops(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if node.op.nested]


def ops(node: Node, body: str = "body") -> Counter[str]:
    return Counter(n.op.name for n in node.attributes[body].nodes)


# ------------------------------------------------------------------------------------------- dead code


def test_a_scan_loses_what_nobody_reads(rewrites_to: Callable) -> None:
    """An output, a carried value that only it needs, a sequence and an operand; one operand is given twice."""
    result = rewrites_to(
        DCE(),
        """graph g(%h: f32[2], %c: f32[2], %xs: f32[5,2], %ys: f32[5,2], %w: f32[2], %v: f32[2]) -> f32[5,2] {
          %0, %1, %2, %3 = scan(%h, %c, %xs, %ys, %w, %v, %w, carried=2, sequences=2, length=5, body=graph cell(
            %h: f32[2], %c: f32[2], %x: f32[2], %y: f32[2], %w: f32[2], %v: f32[2], %again: f32[2]
          ) -> (f32[2], f32[2], f32[2], f32[2]) {
            %0 = mul(%h, %w)
            %1 = add(%0, %x)
            %2 = mul(%1, %again)
            %3 = add(%c, %y)
            %4 = sub(%3, %v)
            return %1, %4, %2, %4
          })
          return %2
        }""",
        """graph g(%h: f32[2], %c: f32[2], %xs: f32[5,2], %ys: f32[5,2], %w: f32[2], %v: f32[2]) -> f32[5,2] {
          %0, %1 = scan(%h, %xs, %w, carried=1, sequences=1, length=5, body=graph cell(
            %h: f32[2], %x: f32[2], %w: f32[2]
          ) -> (f32[2], f32[2]) {
            %0 = mul(%h, %w)
            %1 = add(%0, %x)
            %2 = mul(%1, %w)
            return %1, %2
          })
          return %1
        }""",
    )
    assert [(r.rule, r.before, r.after) for r in result.rewrites] == [
        ("dead_output", "scan of 7 operands with 4 outputs", "scan of 3 operands with 2 outputs")
    ]
    assert result.rewrites[0].why == "nothing reads the others; gone from its body: add, sub"


def test_a_carried_value_that_a_later_turn_needs_stays(rewrites_to: Callable) -> None:
    """The second value reaches the result through the first one, a turn later; the third reaches only itself."""
    rewrites_to(
        DCE(),
        """graph g(%a: f32[], %b: f32[], %c: f32[]) -> f32[] {
          %0, %1, %2 = scan(%a, %b, %c, carried=3, sequences=0, length=5, body=graph cell(
            %a: f32[], %b: f32[], %c: f32[]
          ) -> (f32[], f32[], f32[]) {
            %0 = add(%a, %b)
            %1 = sin(%b)
            %2 = mul(%c, %a)
            return %0, %1, %2
          })
          return %0
        }""",
        """graph g(%a: f32[], %b: f32[], %c: f32[]) -> f32[] {
          %0, %1 = scan(%a, %b, carried=2, sequences=0, length=5, body=graph cell(
            %a: f32[], %b: f32[]
          ) -> (f32[], f32[]) {
            %0 = add(%a, %b)
            %1 = sin(%b)
            return %0, %1
          })
          return %0
        }""",
    )


def test_what_never_changes_is_no_carried_value(rewrites_to: Callable) -> None:
    rewrites_to(
        DCE(),
        """graph g(%a: f32[], %w: f32[]) -> (f32[], f32[]) {
          %0, %1 = scan(%a, %w, carried=2, sequences=0, length=5, body=graph cell(
            %a: f32[], %w: f32[]
          ) -> (f32[], f32[]) {
            %0 = mul(%a, %w)
            return %0, %w
          })
          return %0, %1
        }""",
        """graph g(%a: f32[], %w: f32[]) -> (f32[], f32[]) {
          %0 = scan(%a, %w, carried=1, sequences=0, length=5, body=graph cell(%a: f32[], %w: f32[]) -> f32[] {
            %0 = mul(%a, %w)
            return %0
          })
          return %0, %w
        }""",
    )


def test_a_while_loop_keeps_what_its_test_needs(rewrites_to: Callable) -> None:
    rewrites_to(
        DCE(),
        """graph g(%a: f32[], %n: i64[], %w: f32[], %u: f32[]) -> f32[] {
          %0, %1, %2 = while_loop(%a, %n, %w, %u, carried=3, test=graph more(
            %a: f32[], %n: i64[], %w: f32[], %u: f32[]
          ) -> bool[] {
            %0 = constant(value=i64 5)
            %1 = lt(%n, %0)
            return %1
          }, body=graph turn(%a: f32[], %n: i64[], %w: f32[], %u: f32[]) -> (f32[], i64[], f32[]) {
            %0 = mul(%a, %a)
            %1 = constant(value=i64 1)
            %2 = add(%n, %1)
            %3 = mul(%w, %u)
            return %0, %2, %3
          })
          return %0
        }""",
        """graph g(%a: f32[], %n: i64[], %w: f32[], %u: f32[]) -> f32[] {
          %0, %1 = while_loop(%a, %n, carried=2, test=graph more(%a: f32[], %n: i64[]) -> bool[] {
            %0 = constant(value=i64 5)
            %1 = lt(%n, %0)
            return %1
          }, body=graph turn(%a: f32[], %n: i64[]) -> (f32[], i64[]) {
            %0 = mul(%a, %a)
            %1 = constant(value=i64 1)
            %2 = add(%n, %1)
            return %0, %2
          })
          return %0
        }""",
    )


def test_branches_lose_results_and_operands(rewrites_to: Callable) -> None:
    result = rewrites_to(
        DCE(),
        """graph g(%p: bool[], %x: f32[3], %y: f32[3]) -> f32[3] {
          %unread = exp(%y)
          %0, %1 = cond(%p, %x, %unread, %x, then=graph t(%a: f32[3], %b: f32[3], %c: f32[3]) -> (f32[3], f32[3]) {
            %0 = mul(%a, %c)
            return %0, %b
          }, orelse=graph e(%a: f32[3], %b: f32[3], %c: f32[3]) -> (f32[3], f32[3]) {
            %0 = sub(%c, %b)
            return %c, %0
          })
          return %0
        }""",
        """graph g(%p: bool[], %x: f32[3], %y: f32[3]) -> f32[3] {
          %0 = cond(%p, %x, then=graph t(%a: f32[3]) -> f32[3] {
            %0 = mul(%a, %a)
            return %0
          }, orelse=graph e(%a: f32[3]) -> f32[3] {
            return %a
          })
          return %0
        }""",
    )
    assert result.rewrites[0].why == "nothing reads the others; gone from its bodies: sub"
    assert [r.rule for r in result.rewrites] == ["dead_output", "dead_node"]


def test_dead_code_in_bodies_of_bodies(rewrites_to: Callable) -> None:
    """The inner loop's output, and with it the operand of the outer one."""
    rewrites_to(
        DCE(),
        """graph g(%a: f32[], %w: f32[]) -> f32[] {
          %0 = scan(%a, %w, carried=1, sequences=0, length=5, body=graph outer(%a: f32[], %w: f32[]) -> f32[] {
            %0, %1 = scan(%a, %w, carried=1, sequences=0, length=2, body=graph inner(
              %a: f32[], %w: f32[]
            ) -> (f32[], f32[]) {
              %0 = sin(%a)
              return %0, %w
            })
            return %0
          })
          return %0
        }""",
        """graph g(%a: f32[], %w: f32[]) -> f32[] {
          %0 = scan(%a, carried=1, sequences=0, length=5, body=graph outer(%a: f32[]) -> f32[] {
            %0 = scan(%a, carried=1, sequences=0, length=2, body=graph inner(%a: f32[]) -> f32[] {
              %0 = sin(%a)
              return %0
            })
            return %0
          })
          return %0
        }""",
    )


# ---------------------------------------------------------------------------------------- everywhere


def test_rules_apply_in_bodies_and_are_recorded(rewrites_to: Callable) -> None:
    text = """graph g(%a: f32[], %xs: f32[5]) -> f32[] {{
      %0 = scan(%a, %xs, carried=1, sequences=1, length=5, body=graph cell(%a: f32[], %x: f32[]) -> f32[] {{
        {}
        return %0
      }})
      return %0
    }}"""
    doubled = "%n = neg(%x)\n %nn = neg(%n)\n %0 = mul(%a, %nn)"
    result = rewrites_to(Everywhere(Canonicalise()), text.format(doubled), text.format("%0 = mul(%a, %x)"))
    assert [r.rule for r in result.rewrites] == ["double_negation"]
    twice = "%s = sin(%x)\n %t = sin(%x)\n %0 = add(%s, %t)"
    assert CSE()(parse(text.format(twice))).rewrites == ()
    rewrites_to(Everywhere(CSE()), text.format(twice), text.format("%s = sin(%x)\n %0 = add(%s, %s)"))
    graph = parse(text.format("%0 = mul(%a, %x)"))
    assert Everywhere(Canonicalise())(graph).graph is graph


# ------------------------------------------------------------------------------------- loops as a whole


def test_a_loop_that_another_contains_is_merged_into_it(rewrites_to: Callable) -> None:
    """The second loop carries the first one's value under another name, beside a further one, and adds an operand."""
    result = rewrites_to(
        Loops(),
        """graph g(%a: f32[], %xs: f32[5], %w: f32[]) -> (f32[], f32[5], f32[]) {
          %0, %1 = scan(%a, %xs, %w, carried=1, sequences=1, length=5, body=graph cell(
            %h: f32[], %x: f32[], %w: f32[]
          ) -> (f32[], f32[]) {
            %0 = mul(%h, %x)
            %1 = sin(%0)
            %2 = add(%1, %w)
            return %1, %2
          })
          %2, %3 = scan(%a, %a, %xs, carried=2, sequences=1, length=5, body=graph other(
            %t: f32[], %k: f32[], %x: f32[]
          ) -> (f32[], f32[]) {
            %0 = add(%t, %k)
            %1 = mul(%k, %x)
            %2 = sin(%1)
            return %0, %2
          })
          return %0, %1, %2
        }""",
        """graph g(%a: f32[], %xs: f32[5], %w: f32[]) -> (f32[], f32[5], f32[]) {
          %0, %1, %2 = scan(%a, %a, %xs, %w, carried=2, sequences=1, length=5, body=graph other(
            %t: f32[], %k: f32[], %x: f32[], %w: f32[]
          ) -> (f32[], f32[], f32[]) {
            %0 = add(%t, %k)
            %1 = mul(%k, %x)
            %2 = sin(%1)
            %3 = add(%2, %w)
            return %0, %2, %3
          })
          return %1, %2, %0
        }""",
    )
    assert [r.rule for r in result.rewrites] == ["merged_loops"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("%1 = cos(%0)", "another function"), ("reverse=true", "another direction"), ("%b, %xs", "another start"),
        ("%a, %ys", "another sequence"),
    ],
)  # fmt: skip
def test_loops_that_differ_stay_apart(change: str, what: str) -> None:
    text = """graph g(%a: f32[], %b: f32[], %xs: f32[5], %ys: f32[5]) -> (f32[], f32[]) {{
      %0 = scan(%a, %xs, carried=1, sequences=1, length=5, body=graph c(%h: f32[], %x: f32[]) -> f32[] {{
        %0 = mul(%h, %x)
        %1 = sin(%0)
        return %1
      }})
      %2 = scan({}, carried=1, sequences=1, length=5{}, body=graph c(%h: f32[], %x: f32[]) -> f32[] {{
        %0 = mul(%h, %x)
        {}
        return %1
      }})
      return %0, %2
    }}"""
    plain = ["%a, %xs", "", "%1 = sin(%0)"]
    place = {"%1": 2, "re": 1}.get(change[:2], 0)
    same, other = parse(text.format(*plain)), list(plain)
    other[place] = f", {change}" if place == 1 else change
    assert len(loops(Loops()(same).graph)) == 1
    assert len(loops(Loops()(parse(text.format(*other))).graph)) == 2, what


def test_a_loop_that_reads_the_other_is_not_merged() -> None:
    text = """graph g(%a: f32[], %xs: f32[5]) -> f32[5] {
      %0, %1 = scan(%a, %xs, carried=1, sequences=1, length=5, body=graph c(%h: f32[], %x: f32[]) -> (f32[], f32[]) {
        %0 = mul(%h, %x)
        return %0, %0
      })
      %2, %3 = scan(%a, %xs, %1, carried=1, sequences=2, length=5, body=graph c(
        %h: f32[], %x: f32[], %y: f32[]
      ) -> (f32[], f32[]) {
        %0 = mul(%h, %x)
        %1 = add(%0, %y)
        return %0, %1
      })
      return %3
    }"""
    after = Loops()(parse(text)).graph
    assert len(loops(after)) == 2


def rnn() -> tuple[Graph, dict[str, np.ndarray]]:
    xs, w, u, b = (gc.input(n, s) for n, s in (("xs", (5, 2, 4)), ("w", (4, 3)), ("u", (3, 3)), ("b", (3,))))

    def cell(h: gc.Symbol, x: gc.Symbol) -> tuple[gc.Symbol, gc.Symbol]:
        h = gc.tanh(x @ w + h @ u + b)
        return h, h

    last, hs = gc.scan(cell, [xs], [gc.zeros((2, 3))])
    loss = gc.sum(last**2) + gc.sum(hs)
    rng = np.random.default_rng(0)
    inputs = [xs, w, u, b]
    arrays = {i.name: rng.normal(size=tuple(map(int, i.shape))) for i in inputs}
    graph = Differentiate()(collect(inputs, [loss, *gc.grad(loss, [w, u, b])]).graph).graph
    return graph, arrays


def test_the_backward_loop_reads_what_the_forward_loop_saves() -> None:
    """One forward loop, and backward neither its products nor its tanh again: 1 - h^2 and three products."""
    graph, arrays = rnn()
    assert [ops(node)["tanh"] for node in loops(graph)] == [1, 1, 1]
    result = Loops()(graph)
    verify(result.graph)
    forward, backward = loops(result.graph)
    assert ops(forward)["tanh"] == 1 and ops(backward)["tanh"] == 0
    assert ops(forward)["matmul"] == 2 and ops(backward)["matmul"] == 3
    assert backward.attributes["reverse"] and backward.attributes["sequences"] == 4  # h, tanh, x and the cotangent
    saved = [r for r in result.rewrites if r.rule == "saved_turns"]
    assert [(r.before, r.after) for r in saved] == [("tanh in cell_backward", "a stack of cell")]
    assert saved[0].origin.place.startswith("test_loops.py")
    for mine, expected in zip(evaluate(result.graph, arrays), evaluate(graph, arrays), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-12)


def test_cheap_maps_are_computed_again() -> None:
    """The backward loop of h' = (h + x)^2 needs h + x: one addition is cheaper than memory."""
    xs = gc.input("xs", (5, 3))
    last = gc.scan(lambda h, x: gc.square(h + x) * 0.5, [xs], [gc.zeros(3)])
    graph = Differentiate()(collect([xs], [gc.grad(gc.sum(last), xs)]).graph).graph
    _, backward = loops(Loops()(graph).graph)
    assert ops(backward)["add"] == 1 and backward.attributes["sequences"] == 2


def test_random_numbers_are_saved_rather_than_drawn_again() -> None:
    xs = gc.input("xs", (5, 3))
    last = gc.scan(lambda h, x: h * gc.random.bernoulli(0.5, (3,)) + x * h, [xs], [gc.ones(3)])
    graph = Differentiate()(collect([xs], [gc.grad(gc.sum(last), xs)]).graph).graph
    forward, backward = loops(Loops()(graph).graph)
    assert ops(forward)["uniform"] == 1 and ops(backward)["uniform"] == 0


def test_third_derivatives_come_to_an_end() -> None:
    """A loop and its derivative share values until they are told apart."""
    x = gc.input("x")
    y = gc.while_loop(lambda v: v < 9, lambda v: v * v + x, x, bound=6)
    third = gc.grad(gc.grad(gc.grad(y, x), x), x)
    graph = Differentiate()(collect([x], [y, third]).graph).graph
    after = Loops()(graph).graph
    assert len(loops(after)) < len(loops(graph))
    for mine, expected in zip(evaluate(after, {"x": 1.2}), evaluate(graph, {"x": 1.2}), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-9)


def test_graphs_without_loops_are_left_alone() -> None:
    graph = parse("graph g(%x: f32[3]) -> f32[3] {\n %0 = sin(%x)\n return %0\n}")
    assert Loops()(graph).graph is graph
