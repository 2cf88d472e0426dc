"""Canonical forms: what each rule puts in place, and where it must not apply."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graphc.interpret import evaluate
from graphc.ir.graph import Origin
from graphc.ir.text import parse, print_graph
from graphc.passes.canonicalise import RULES, Canonicalise

CASES: list[tuple[str, str, str, str]] = []  # rule, inputs, before, after: lines of which the last names the output


def case(rule: str, inputs: str, before: str, after: str) -> None:
    CASES.append((rule, inputs, before, after))


def graph_text(inputs: str, lines: str) -> str:
    """A graph of lines `name = op(...)`, separated by `;`, and the name of the output at the end."""
    *statements, output = [line.strip() for line in lines.split(";")]
    body = "\n".join(f"  {line}" for line in statements)
    text = f"graph g({inputs}) -> TYPE {{\n{body}\n  return {output}\n}}"
    return text.replace("TYPE", output_type(text, inputs, output))


def output_type(text: str, inputs: str, output: str) -> str:
    """The output's type, as the parser's own error message says it."""
    try:
        parse(text.replace("TYPE", "bool[9,9,9]"))
    except ValueError as error:
        return str(error).split("returned are ")[1].split("\n")[0]
    raise AssertionError("unreachable")


XY = "%x: f32[N,3], %y: f32[N,3]"
X = "%x: f32[N,3]"
ONE = "%c = constant(value=f32 {}); %k = broadcast_to(%c, shape=[N,3]); "

case("positive_axes", "%x: f32[N,3,2]", "%0 = sum(%x, axes=[-1,0]); %0", "%0 = sum(%x, axes=[0,2]); %0")
case("positive_axes", X, "%0 = argmax(%x, axis=-1); %0", "%0 = argmax(%x, axis=1); %0")
case(
    "positive_axes",
    "%x: f32[2,3,4]",
    "%0 = transpose(%x, permutation=[-1,0,1]); %0",
    "%0 = transpose(%x, permutation=[2,0,1]); %0",
)
case("constant_right", X, ONE.format(3) + "%0 = mul(%k, %x); %0", ONE.format(3) + "%0 = mul(%x, %k); %0")
case("constant_right", X, ONE.format(3) + "%0 = maximum(%k, %x); %0", ONE.format(3) + "%0 = maximum(%x, %k); %0")
for zero in (0, "-0.0"):
    case("add_zero", X, ONE.format(zero) + "%0 = add(%k, %x); %0", "%x")
    case("add_zero", X, ONE.format(zero) + "%0 = sub(%x, %k); %0", "%x")
case("mul_by_one", X, ONE.format(1) + "%0 = mul(%k, %x); %0", "%x")
case("mul_by_one", X, ONE.format(1) + "%0 = div(%x, %k); %0", "%x")
case("mul_by_minus_one", X, ONE.format(-1) + "%0 = mul(%x, %k); %0", "%0 = neg(%x); %0")
case("mul_by_minus_one", X, ONE.format(0) + "%0 = sub(%k, %x); %0", "%0 = neg(%x); %0")
case(
    "mul_by_zero",
    "%x: i32[N]",
    "%c = constant(value=i32 0); %k = broadcast_to(%c, shape=[N]); %0 = mul(%x, %k); %0",
    "%c = constant(value=i32 0); %k = broadcast_to(%c, shape=[N]); %k",
)
case("exact_reciprocal", X, ONE.format(8) + "%0 = div(%x, %k); %0", ONE.format(0.125) + "%0 = mul(%x, %k); %0")
case("exact_reciprocal", X, ONE.format(-0.5) + "%0 = div(%x, %k); %0", ONE.format(-2) + "%0 = mul(%x, %k); %0")
case("same_choice", XY + ", %t: bool[N,3]", "%0 = where(%t, %x, %x); %0", "%x")
case("relu_of_relu", X, "%0 = relu(%x); %1 = relu(%0); %1", "%0 = relu(%x); %0")
case("double_negation", X, "%0 = neg(%x); %1 = neg(%0); %2 = exp(%1); %2", "%0 = exp(%x); %0")
case("sub_of_negation", XY, "%0 = neg(%y); %1 = sub(%x, %0); %1", "%0 = add(%x, %y); %0")
case("add_of_negation", XY, "%0 = neg(%x); %1 = add(%0, %y); %1", "%0 = sub(%y, %x); %0")
case("mul_of_negations", XY, "%0 = neg(%x); %1 = neg(%y); %2 = mul(%0, %1); %2", "%0 = mul(%x, %y); %0")
case("div_of_negations", XY, "%0 = neg(%x); %1 = neg(%y); %2 = div(%0, %1); %2", "%0 = div(%x, %y); %0")
case("abs_of_negation", X, "%0 = neg(%x); %1 = abs(%0); %1", "%0 = abs(%x); %0")
case(
    "negated_constant", X, ONE.format(3) + "%0 = neg(%x); %1 = mul(%0, %k); %1", ONE.format(-3) + "%0 = mul(%x, %k); %0"
)
case("negated_difference", XY, "%0 = sub(%x, %y); %1 = neg(%0); %1", "%0 = sub(%y, %x); %0")
case("negated_product", XY, "%0 = neg(%x); %1 = mul(%y, %0); %2 = neg(%1); %2", "%0 = mul(%x, %y); %0")
case("negated_reduction", X, "%0 = neg(%x); %1 = mean(%0, axes=[1]); %1", "%0 = mean(%x, axes=[1]); %1 = neg(%0); %1")
case("stop_gradient", X, "%0 = stop_gradient(%x); %1 = exp(%0); %1", "%0 = exp(%x); %0")
case("identity_reshape", X, "%0 = reshape(%x, shape=[N,3]); %1 = exp(%0); %1", "%0 = exp(%x); %0")
case("identity_reshape", X, "%0 = broadcast_to(%x, shape=[N,3]); %1 = cast(%0, dtype=f32); %1", "%x")
case("identity_transpose", X, "%0 = transpose(%x, permutation=[0,1]); %0", "%x")
case(
    "reshape_of_reshape",
    X,
    "%0 = reshape(%x, shape=[3*N]); %1 = reshape(%0, shape=[3,N]); %1",
    "%0 = reshape(%x, shape=[3,N]); %0",
)
case("reshape_of_reshape", X, "%0 = reshape(%x, shape=[3*N]); %1 = reshape(%0, shape=[N,3]); %1", "%x")
case(
    "transpose_of_transpose",
    "%x: f32[2,3,4]",
    "%0 = transpose(%x, permutation=[2,0,1]); %1 = transpose(%0, permutation=[2,0,1]); %1",
    "%0 = transpose(%x, permutation=[1,2,0]); %0",
)
case(
    "transpose_of_transpose",
    X,
    "%0 = transpose(%x, permutation=[1,0]); %1 = transpose(%0, permutation=[1,0]); %1",
    "%x",
)
case(
    "transpose_of_ones",
    "%x: f32[1,N,3]",
    "%0 = transpose(%x, permutation=[1,0,2]); %0",
    "%0 = reshape(%x, shape=[N,1,3]); %0",
)
case(
    "broadcast_of_broadcast",
    "%x: f32[3]",
    "%0 = broadcast_to(%x, shape=[1,3]); %1 = broadcast_to(%0, shape=[N,3]); %1",
    "%0 = broadcast_to(%x, shape=[N,3]); %0",
)
case(
    "broadcast_of_reshape",
    "%x: f32[3]",
    "%0 = reshape(%x, shape=[1,3]); %1 = broadcast_to(%0, shape=[N,3]); %1",
    "%0 = broadcast_to(%x, shape=[N,3]); %0",
)
case(
    "shape_of_scalar",
    "%x: f32[]",
    "%0 = broadcast_to(%x, shape=[N,3]); %1 = reshape(%0, shape=[3*N]); %1",
    "%0 = broadcast_to(%x, shape=[3*N]); %0",
)
case(
    "shape_of_scalar",
    "%x: f32[1]",
    "%0 = broadcast_to(%x, shape=[2,3]); %1 = transpose(%0, permutation=[1,0]); %1",
    "%0 = reshape(%x, shape=[]); %1 = broadcast_to(%0, shape=[3,2]); %1",
)
case(
    "cast_of_cast",
    "%x: u8[N]",
    "%0 = cast(%x, dtype=i32); %1 = cast(%0, dtype=f32); %1",
    "%0 = cast(%x, dtype=f32); %0",
)
case("cast_of_cast", X, "%0 = cast(%x, dtype=f64); %1 = cast(%0, dtype=f32); %1", "%x")
case(
    "transposed_left",
    "%x: f32[4,4], %y: f32[4,4]",
    "%0 = transpose(%x, permutation=[1,0]); %1 = matmul(%0, %y, transpose_b=true); %1",
    "%0 = matmul(%x, %y, transpose_a=true, transpose_b=true); %0",
)
case(
    "transposed_right",
    "%x: f32[4,4], %y: f32[4,4]",
    "%0 = transpose(%y, permutation=[1,0]); %1 = matmul(%x, %0, transpose_b=true); %1",
    "%0 = matmul(%x, %y); %0",
)
case(
    "transposed_right",
    "%x: f32[2,N,3], %y: f32[2,4,3]",
    "%0 = transpose(%y, permutation=[0,2,1]); %1 = matmul(%x, %0); %1",
    "%0 = matmul(%x, %y, transpose_b=true); %0",
)
case(
    "transposed_product",
    "%x: f32[N,3], %y: f32[N,4]",
    "%0 = matmul(%x, %y, transpose_a=true); %1 = transpose(%0, permutation=[1,0]); %1",
    "%0 = matmul(%y, %x, transpose_a=true); %0",
)
case("reduction_of_ones", "%x: f32[N,1]", "%0 = max(%x, axes=[1]); %0", "%0 = reshape(%x, shape=[N]); %0")
case("reduction_of_ones", X, "%0 = sum(%x, axes=[]); %1 = exp(%0); %1", "%0 = exp(%x); %0")
case(
    "reduction_of_transpose",
    "%x: f32[2,N,3]",
    "%0 = transpose(%x, permutation=[1,0,2]); %1 = sum(%0, axes=[0,1]); %1",
    "%0 = sum(%x, axes=[0,1]); %0",
)
case(
    "reduction_of_transpose",
    "%x: f32[2,N,3]",
    "%0 = transpose(%x, permutation=[2,0,1]); %1 = mean(%0, axes=[0], keepdims=true); %1",
    "%0 = mean(%x, axes=[2]); %1 = reshape(%0, shape=[1,2,N]); %1",
)
case("reduction_of_broadcast", "%x: f32[3]", "%0 = broadcast_to(%x, shape=[N,3]); %1 = max(%0, axes=[0]); %1", "%x")
case(
    "reduction_of_broadcast",
    "%x: f32[3]",
    "%0 = broadcast_to(%x, shape=[8,3]); %1 = sum(%0, axes=[0], keepdims=true); %1",
    "%0 = reshape(%x, shape=[1,3]); %c = constant(value=f32 8); %k = broadcast_to(%c, shape=[1,3]); "
    "%1 = mul(%0, %k); %1",
)
case(
    "reduction_of_broadcast",
    "%x: f32[N,1]",
    "%0 = broadcast_to(%x, shape=[N,3]); %1 = mean(%0, axes=[0,1]); %1",
    "%0 = mean(%x, axes=[0], keepdims=true); %1 = reshape(%0, shape=[]); %1",
)
case(
    "reduction_of_reduction",
    "%x: f32[2,N,3]",
    "%0 = sum(%x, axes=[1]); %1 = sum(%0, axes=[1]); %1",
    "%0 = sum(%x, axes=[1,2]); %0",
)
case(
    "reduction_of_reduction",
    "%x: f32[2,N,3]",
    "%0 = max(%x, axes=[2], keepdims=true); %1 = max(%0, axes=[0]); %1",
    "%0 = max(%x, axes=[0,2]); %1 = reshape(%0, shape=[N,1]); %1",
)
case(
    "sum_of_products",
    "%x: f32[5,N,3], %y: f32[5,N,2]",
    "%0 = matmul(%x, %y, transpose_a=true); %1 = sum(%0, axes=[0]); %1",
    '%0 = einsum(%x, %y, equation="aYX,aYZ->XZ"); %0',
)
case(
    "sum_of_products",
    "%x: f32[5,N,3], %y: f32[5,N,2]",
    '%0 = einsum(%x, %y, equation="tni,tnj->tij"); %1 = sum(%0, axes=[0], keepdims=true); %1',
    '%0 = einsum(%x, %y, equation="tni,tnj->ij"); %1 = reshape(%0, shape=[1,3,2]); %1',
)
case(
    "sum_of_pads",
    "%x: f32[N,2], %y: f32[N,3], %z: f32[N,1]",
    "%0 = pad(%x, start=[0,4], shape=[N,6], step=[1,1]); %1 = pad(%y, start=[0,1], shape=[N,6], step=[1,1]);"
    "%2 = pad(%z, start=[0,0], shape=[N,6], step=[1,1]); %3 = add(%0, %1); %4 = add(%2, %3); %4",
    "%0 = concatenate(%z, %y, %x, axis=1); %0",
)
case(
    "broadcast_last",
    "%x: f32[3], %y: f32[3]",
    "%0 = broadcast_to(%x, shape=[N,3]); %1 = broadcast_to(%y, shape=[N,3]); %2 = mul(%0, %1); %3 = exp(%2); %3",
    "%0 = mul(%x, %y); %1 = exp(%0); %2 = broadcast_to(%1, shape=[N,3]); %2",
)
case(
    "broadcast_last",
    "%x: f32[]",
    "%0 = broadcast_to(%x, shape=[N,3]); " + ONE.format(3) + "%1 = mul(%0, %k); %1",
    "%c = constant(value=f32 3); %0 = mul(%x, %c); %1 = broadcast_to(%0, shape=[N,3]); %1",
)


@pytest.mark.parametrize(("rule", "inputs", "before", "after"), CASES, ids=[f"{c[0]}-{k}" for k, c in enumerate(CASES)])
def test_rule(rule: str, inputs: str, before: str, after: str, rewrites_to: Callable) -> None:
    result = rewrites_to(Canonicalise(), graph_text(inputs, before), graph_text(inputs, after))
    assert rule in {r.rule for r in result.rewrites}


def test_every_rule_has_a_case() -> None:
    assert {rule.name for rule in RULES} == {c[0] for c in CASES}


UNCHANGED = [
    (X, ONE.format(0) + "%0 = mul(%x, %k); %0", "0 * x is NaN where x is not finite"),
    (X, ONE.format(3) + "%0 = div(%x, %k); %0", "1/3 is not exact"),
    (X, ONE.format("1e-40") + "%0 = div(%x, %k); %0", "no power of two"),
    (
        "%x: f32[N]",
        "%c = constant(value=f32 1.1754944e-38); %k = broadcast_to(%c, shape=[N]); %0 = mul(%x, %k); %0",
        "a product",
    ),
    ("%x: i64[N]", "%0 = cast(%x, dtype=f64); %1 = cast(%0, dtype=i64); %1", "f64 does not hold every i64"),
    ("%x: f64[N]", "%0 = cast(%x, dtype=f32); %1 = cast(%0, dtype=f64); %1", "f32 rounds"),
    ("%x: f32[N,3]", "%0 = transpose(%x, permutation=[1,0]); %0", "a transpose is no reshape"),
    ("%x: f32[2,3,4]", "%0 = transpose(%x, permutation=[1,0,2]); %1 = reshape(%0, shape=[6,4]); %1", "order changes"),
    (
        "%x: f32[2,3,4], %y: f32[2,3,4]",
        "%0 = transpose(%x, permutation=[2,1,0]); %1 = sum(%0, axes=[0]); %1",
        "the kept axes change places",
    ),
    (
        "%x: f32[3,4,5], %y: f32[4,5,2]",
        "%0 = transpose(%x, permutation=[1,0,2]); %1 = matmul(%0, %y); %1",
        "a batch axis moves",
    ),
    (
        "%x: f32[2,N,3], %y: f32[2,3,4]",
        "%0 = matmul(%x, %y); %1 = sum(%0, axes=[0,1]); %1",
        "rows are an axis of one factor",
    ),
    (
        "%x: f32[N,2], %y: f32[N,3]",
        "%0 = pad(%x, start=[0,0], shape=[N,5], step=[1,1]); %1 = pad(%y, start=[0,1], shape=[N,5], step=[1,1]);"
        "%2 = add(%0, %1); %2",
        "pieces that overlap",
    ),
    (
        "%x: f32[N,2], %y: f32[N,2]",
        "%0 = pad(%x, start=[0,0], shape=[N,5], step=[1,1]); %1 = pad(%y, start=[0,3], shape=[N,5], step=[1,1]);"
        "%2 = add(%0, %1); %2",
        "a gap between pieces",
    ),
    (
        "%x: f32[N,2], %y: f32[N,2]",
        "%0 = pad(%x, start=[0,0], shape=[N,4], step=[1,1]); %1 = pad(%y, start=[0,2], shape=[N,4], step=[1,1],"
        " value=1.0); %2 = add(%0, %1); %2",
        "ones around a piece",
    ),
    (
        "%x: f32[N,2], %y: f32[N,2]",
        "%0 = pad(%x, start=[0,0], shape=[N,4], step=[1,2]); %1 = pad(%y, start=[0,1], shape=[N,4], step=[1,2]);"
        "%2 = add(%0, %1); %2",
        "pieces that alternate",
    ),
    (
        "%x: f32[1,2], %y: f32[1,2]",
        "%0 = pad(%x, start=[0,0], shape=[2,4], step=[1,1]); %1 = pad(%y, start=[1,2], shape=[2,4], step=[1,1]);"
        "%2 = add(%0, %1); %2",
        "pieces in two corners",
    ),
    ("%x: f32[N,3]", "%0 = sum(%x, axes=[1]); %1 = mean(%0, axes=[0]); %1", "two kinds of reduction"),
    ("%x: f32[3]", "%0 = broadcast_to(%x, shape=[N,3]); %1 = sum(%0, axes=[1]); %1", "the axis does not repeat"),
    ("%x: f32[3], %y: f32[N,3]", "%0 = broadcast_to(%x, shape=[N,3]); %1 = mul(%y, %0); %1", "one operand repeats"),
]


@pytest.mark.parametrize(("inputs", "lines", "why"), UNCHANGED, ids=[u[2] for u in UNCHANGED])
def test_what_stays(inputs: str, lines: str, why: str, rewrites_to: Callable) -> None:
    text = graph_text(inputs, lines)
    assert rewrites_to(Canonicalise(), text, text).rewrites == ()


def test_a_shared_value_is_not_computed_twice(rewrites_to: Callable) -> None:
    text = """graph g(%x: f32[N], %y: f32[N]) -> (f32[N], f32[N]) {
      %0 = sub(%x, %y)
      %1 = neg(%0)
      return %0, %1
    }"""
    rewrites_to(Canonicalise(), text, text)
    text = """graph g(%x: f32[N,3]) -> (f32[N], f32[]) {
      %0 = sum(%x, axes=[1])
      %1 = sum(%0, axes=[0])
      return %0, %1
    }"""
    rewrites_to(Canonicalise(), text, text)


def test_a_symbolic_count_is_read_at_run_time(rewrites_to: Callable) -> None:
    before = graph_text("%x: f32[], %n: f32[N]", "%0 = broadcast_to(%x, shape=[N]); %1 = sum(%0, axes=[0]); %1")
    after = graph_text("%x: f32[], %n: f32[N]", "%0 = size(dim=N); %1 = cast(%0, dtype=f32); %2 = mul(%x, %1); %2")
    rewrites_to(Canonicalise(), before, after)


def test_powers_of_two_at_the_edge_of_the_range(rewrites_to: Callable) -> None:
    for value, applies in ((2.0**126, True), (2.0**127, False), (2.0**-127, True), (2.0**-128, False)):
        text = graph_text(
            "%x: f32[N]", f"%c = constant(value=f32 {value!r}); %k = broadcast_to(%c, shape=[N]); %0 = div(%x, %k); %0"
        )
        assert bool(Canonicalise()(parse(text)).rewrites) == applies, value
    x = np.array([1e-30, 3.0, -1e30], np.float32)
    graph = parse(text.replace(repr(value), repr(2.0**-127)))
    with np.errstate(over="ignore"):
        exact = evaluate(graph, {"x": x}, dtype64=False)
        np.testing.assert_array_equal(evaluate(Canonicalise()(graph).graph, {"x": x}, dtype64=False), exact)


def test_stop_gradient_stays_while_gradients_are_to_come() -> None:
    graph = parse("""graph g(%x: f32[N]) -> f32[N] {
      %0 = stop_gradient(%x)
      %1 = mul(%0, %x)
      %2 = sum(%1, axes=[0])
      %3 = grad(%2, %x)
      return %3
    }""")
    assert Canonicalise()(graph).graph is graph


def test_a_value_that_a_gradient_is_taken_by_stays(rewrites_to: Callable) -> None:
    """y = 1 * x is another variable than x: dL/dy does not count the uses of x beside y."""
    text = """graph g(%x: f32[N]) -> f32[N] {
      %c = constant(value=f32 1.0)
      %k = broadcast_to(%c, shape=[N])
      %y = mul(%x, %k)
      %z = mul(%y, %x)
      %loss = sum(%z, axes=[0])
      %d = grad(%loss, %y)
      return %d
    }"""
    rewrites_to(Canonicalise(), text, text)
    constant = text.replace("%d = grad(%loss, %y)", "%d = grad(%loss, %k)")
    assert Canonicalise()(parse(constant)).rewrites == ()


def test_new_nodes_keep_the_place_of_what_they_replace() -> None:
    graph = parse("""graph g(%x: f32[N,3]) -> f32[N] {
      %0 = neg(%x)   # a  net.py:1
      %1 = mean(%0, axes=[1])   # block.b  net.py:2
      return %1
    }""")
    result = Canonicalise()(graph)
    assert [node.origin for node in result.graph.nodes] == [Origin("block.b", "net.py", 2)] * 2
    (rewrite,) = result.rewrites
    assert rewrite.origin == Origin("block.b", "net.py", 2)
    assert str(rewrite) == "negated_reduction: mean(neg(x), axes=[1])  ->  neg(mean(x, axes=[1]))   # block.b  net.py:2"
    assert "#" not in print_graph(result.graph, origins=False)
