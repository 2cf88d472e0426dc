"""Common subexpressions."""

from __future__ import annotations

from collections.abc import Callable

from graphc.ir.graph import Graph, Node, Origin
from graphc.ir.op import OPS, Attribute, Op
from graphc.ir.text import parse
from graphc.ir.types import tensor
from graphc.passes.cse import CSE

HEAD = "graph g(%x: f32[N], %y: f32[N]) -> f32[N] {\n"


def test_equal_nodes_merge_whole_trees(rewrites_to: Callable) -> None:
    result = rewrites_to(
        CSE(),
        HEAD
        + """%a = exp(%x)   # first  a.py:1
        %b = mul(%a, %y)   # first  a.py:2
        %c = exp(%x)   # second  a.py:3
        %d = mul(%y, %c)   # second  a.py:4
        %e = sub(%b, %d)
        return %e }""",
        HEAD + "%a = exp(%x)\n%b = mul(%a, %y)\n%e = sub(%b, %b)\nreturn %e }",
    )
    assert [n.origin for n in result.graph.nodes][:2] == [Origin("first", "a.py", 1), Origin("first", "a.py", 2)]
    assert [(r.before, r.origin.module) for r in result.rewrites] == [
        ("exp(%x)", "second"),
        ("mul(%y, %exp)", "second"),
    ]
    assert "computed at first  a.py:1 already" in result.rewrites[0].why


def test_order_matters_unless_the_op_commutes(rewrites_to: Callable) -> None:
    text = HEAD + "%a = sub(%x, %y)\n%b = sub(%y, %x)\n%c = add(%a, %b)\nreturn %c }"
    rewrites_to(CSE(), text, text)


def test_attributes_and_constants_must_be_equal(rewrites_to: Callable) -> None:
    text = """graph g(%x: f32[3,3]) -> (f32[3], f32[3], f32[3], f32[], f32[], f64[], i32[]) {
      %a = sum(%x, axes=[0])
      %b = sum(%x, axes=[1])
      %c = max(%x, axes=[0])
      %d = constant(value=f32 0.0)
      %e = constant(value=f32 -0.0)
      %f = constant(value=f64 0.0)
      %h = constant(value=i32 0)
      return %a, %b, %c, %d, %e, %f, %h
    }"""
    rewrites_to(CSE(), text, text)


def test_equal_constants_merge() -> None:
    one = "constant(value=f32[2] [1, nan])"
    graph = parse(f"graph g() -> (f32[2], f32[2]) {{ %a = {one} %b = {one} return %a, %b }}")
    assert len(CSE()(graph).graph.nodes) == 1


def test_two_samples_are_never_one() -> None:
    for first, second, count in ((1, 2, 2), (-1, -1, 2), (1, 1, 1)):
        graph = parse(f"""graph g(%rng: i64[2]) -> (f32[3], f32[3]) {{
          %a = uniform(%rng, shape=[3], stream={first})
          %b = uniform(%rng, shape=[3], stream={second})
          return %a, %b
        }}""")
        assert len(CSE()(graph).graph.nodes) == count


def test_float_attributes_are_compared_by_their_digits() -> None:
    op = Op(
        "probe",
        "d",
        "l",
        infer=lambda types, attributes: (tensor("f32"),),
        attributes={"a": Attribute("float", "an a")},
    )
    OPS["probe"] = op
    try:
        for first, second, count in ((0.0, -0.0, 2), (0.5, 0.5, 1), (float("nan"), float("nan"), 1)):
            nodes = [Node(op, (), {"a": value}, (tensor("f32"),)) for value in (first, second)]
            assert len(CSE()(Graph("g", (), tuple(n.output for n in nodes))).graph.nodes) == count
    finally:
        del OPS["probe"]


def test_nodes_of_several_outputs_merge(rewrites_to: Callable) -> None:
    fusion = (
        "fusion(%x, body=graph body(%p: f32[N]) -> (f32[N], f32[N]) {\n%0 = exp(%p)\n%1 = neg(%0)\nreturn %0, %1\n})"
    )
    rewrites_to(
        CSE(),
        HEAD + f"%a, %b = {fusion}\n%c, %d = {fusion}\n%e = mul(%a, %d)\n%f = add(%b, %e)\nreturn %f }}",
        HEAD + f"%a, %b = {fusion}\n%e = mul(%a, %b)\n%f = add(%b, %e)\nreturn %f }}",
    )


def test_a_value_that_a_gradient_is_taken_by_stays() -> None:
    graph = parse("""graph g(%x: f32[N]) -> f32[N] {
      %a = exp(%x)
      %b = exp(%x)
      %c = mul(%a, %b)
      %l = sum(%c, axes=[0])
      %d = grad(%l, %a)
      return %d
    }""")
    assert [n.op.name for n in CSE()(graph).graph.nodes].count("exp") == 2


def test_values_do_not_change_on_a_wide_graph(equal_values: Callable) -> None:
    lines = [
        f"%a{k} = {op}(%{name})" for k, (op, name) in enumerate((o, n) for o in ("exp", "neg", "tanh") for n in "xyxy")
    ]
    total = "\n".join(f"%s{k + 1} = add(%s{k}, %a{k})" for k in range(12))
    graph = parse(HEAD + "\n".join(lines) + f"\n%s0 = neg(%x)\n{total}\nreturn %s12 }}")
    after = CSE()(graph).graph
    assert sum(n.op.name in ("exp", "neg", "tanh") for n in after.nodes) == 6
    equal_values(graph, after)
