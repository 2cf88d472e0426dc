"""Work that leaves loops: what is moved, what stays, and equal values."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from graphc.autodiff.reverse import gradients
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.types import TensorType, tensor
from graphc.ir.verify import verify
from graphc.ops.scan import Scan
from graphc.passes.hoist import TURNS_TO_TRANSPOSE, Hoist
from graphc.passes.manager import PassResult

b = Builder()
T = 4
H, XS = Value(tensor("f32", ("N", 3)), name="h"), Value(tensor("f32", (T, "N", 2)), name="xs")
W, U = Value(tensor("f32", (3, 3)), name="W"), Value(tensor("f32", (2, 3)), name="U")
S = Value(tensor("f32", (2, 3)), name="s")

Turn = Callable[..., Sequence[Value]]


def scanned(
    make: Turn, init: Sequence[Value], sequences: Sequence[Value], captured: Sequence[Value], reverse: bool = False
) -> tuple[Value, ...]:
    slices = [TensorType(v.type.dtype, v.type.shape[1:]) for v in sequences]
    types = [*(v.type for v in init), *slices, *(v.type for v in captured)]
    inputs = tuple(Value(t, name=f"a{k}") for k, t in enumerate(types))
    body = Graph("turn", inputs, tuple(make(*inputs)))
    return Scan(tuple(init), tuple(sequences), tuple(captured), body, T, reverse).apply(b)


def hoisted(outputs: Sequence[Value], equal_values: Callable[..., None], *inputs: Value) -> PassResult:
    graph = Graph("g", tuple(inputs), tuple(outputs))
    verify(graph)
    result = Hoist()(graph)
    verify(result.graph)
    equal_values(graph, result.graph)
    again = Hoist()(result.graph)
    assert again.graph is result.graph and not again.rewrites
    return result


def ops(graph: Graph) -> list[str]:
    return [node.op.name for node in graph.nodes]


def loop(graph: Graph) -> Node:
    (node,) = (node for node in graph.nodes if node.op.name == "scan")
    return node


def rules(result: PassResult) -> list[str]:
    return [rewrite.rule for rewrite in result.rewrites]


def test_the_input_projection_of_a_cell_is_one_product_before_the_loop(equal_values: Callable[..., None]) -> None:
    def cell(h: Value, x: Value, w: Value, u: Value) -> list[Value]:
        new = b.tanh(b.add(b.matmul(h, w), b.matmul(b.tanh(x), u)))
        return [new, new]

    result = hoisted(scanned(cell, [H], [XS], [W, U]), equal_values, H, XS, W, U)
    assert ops(result.graph) == ["tanh", "broadcast_to", "matmul", "scan"]
    body = loop(result.graph).attributes["body"]
    assert ops(body) == ["matmul", "add", "tanh"]
    assert [v.name for v in body.inputs] == ["a0", "matmul", "a2"]
    assert rules(result) == ["sequence_first"]


def test_what_depends_on_carried_values_stays(equal_values: Callable[..., None]) -> None:
    def cell(h: Value, x: Value, w: Value) -> list[Value]:
        return [b.matmul(b.mul(h, b.tanh(h)), w), b.tanh(x)]

    outputs = scanned(cell, [H], [XS], [W])
    graph = Graph("g", (H, XS, W), outputs)
    assert Hoist()(graph).graph is graph


def test_products_of_captured_values_are_computed_once(equal_values: Callable[..., None]) -> None:
    def cell(h: Value, x: Value, w: Value, u: Value) -> list[Value]:
        both = b.matmul(x, b.matmul(u, w))
        return [b.mul(h, both), b.sum(b.tanh(w), axes=(0,))]

    result = hoisted(scanned(cell, [H], [XS], [W, U]), equal_values, H, XS, W, U)
    assert sorted(ops(result.graph)) == ["broadcast_to", "matmul", "matmul", "scan", "sum", "tanh"]
    assert ops(loop(result.graph).attributes["body"]) == ["mul"]
    assert sorted(rules(result)) == ["same_in_all_turns", "sequence_first"]


def test_sums_of_products_over_any_axes_go_along(equal_values: Callable[..., None]) -> None:
    def cell(h: Value, x: Value, u: Value) -> list[Value]:
        both = b.einsum(b.einsum(x, u, equation="nk,km->mn"), b.tanh(x), equation="mn,nk->nmk")
        return [b.mul(h, b.sum(both, axes=(2,)))]

    result = hoisted(scanned(cell, [H], [XS], [U]), equal_values, H, XS, U)
    assert ops(loop(result.graph).attributes["body"]) == ["sum", "mul"]
    assert sorted(ops(result.graph)) == ["einsum", "einsum", "scan", "tanh"]


def test_a_loop_that_only_adds_up_products_is_no_loop(equal_values: Callable[..., None]) -> None:
    result = hoisted(scanned(lambda h, x, u: [b.add(h, b.matmul(x, u))], [H], [XS], [U]), equal_values, H, XS, U)
    assert "scan" not in ops(result.graph)
    assert sorted(rules(result)) == ["sequence_first", "sum_after_loop"]


@pytest.mark.parametrize("reverse", [False, True])
def test_rows_of_a_table_go_along(reverse: bool, equal_values: Callable[..., None]) -> None:
    words, table = Value(tensor("i32", (T, "N")), name="words"), Value(tensor("f32", (5, 2)), name="table")

    def cell(h: Value, word: Value, table: Value, u: Value) -> list[Value]:
        x = b.take(table, word, axis=0)
        moved = b.transpose(b.reshape(b.slice(x, start=(0, 0), shape=x.type.shape, step=(1, 1)), shape=x.type.shape),
                            permutation=(0, 1))  # fmt: skip
        return [b.mul(h, b.matmul(moved, u))]

    result = hoisted(scanned(cell, [H], [words], [table, U], reverse), equal_values, H, words, table, U)
    assert ops(loop(result.graph).attributes["body"]) == ["mul"]
    assert "take" in ops(result.graph)


def test_reductions_and_broadcasts_of_slices_go_along(equal_values: Callable[..., None]) -> None:
    def cell(h: Value, x: Value, u: Value) -> list[Value]:
        centred = b.sub(x, b.broadcast(b.mean(x, axes=(-1,), keepdims=True), x.type.shape))
        wide = b.broadcast(b.sum(centred, axes=(0,)), x.type.shape)
        return [b.mul(h, b.matmul(b.add(centred, wide), u))]

    result = hoisted(scanned(cell, [H], [XS], [U]), equal_values, H, XS, U)
    assert ops(loop(result.graph).attributes["body"]) == ["mul"]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", ["matmul", "transposed", "einsum"])
def test_a_carried_sum_of_products_is_one_contraction_after_the_loop(
    kind: str, reverse: bool, equal_values: Callable[..., None]
) -> None:
    def turn(s: Value, h: Value, x: Value) -> list[Value]:
        left = b.tanh(x)
        if kind == "einsum":
            return [b.add(s, b.einsum(left, h, equation="ni,nj->ij")), b.sin(h)]
        if kind == "transposed":
            return [b.add(b.matmul(b.transpose(left, permutation=(1, 0)), h), s), b.sin(h)]
        return [b.add(s, b.matmul(left, h, transpose_a=True)), b.sin(h)]

    result = hoisted(scanned(turn, [S, H], [XS], [], reverse), equal_values, S, H, XS)
    assert "sum_after_loop" in rules(result)
    node = loop(result.graph)
    assert node.attributes["carried"] == 1 and "matmul" not in ops(node.attributes["body"])
    assert ops(result.graph)[-2:] == ["einsum", "add"]


def test_the_sum_of_a_factor_goes_with_the_product(equal_values: Callable[..., None]) -> None:
    bias = Value(tensor("f32", (3,)), name="bias")

    def turn(s: Value, c: Value, h: Value, x: Value) -> list[Value]:
        new = b.tanh(h)
        return [b.add(s, b.matmul(x, new, transpose_a=True)), b.add(c, b.sum(new, axes=(0,))), new]

    result = hoisted(scanned(turn, [S, bias, H], [XS], []), equal_values, S, bias, H, XS)
    assert ops(loop(result.graph).attributes["body"]) == ["tanh"]
    assert rules(result) == ["sum_after_loop"] * 2


def test_two_sums_of_one_term_are_one_sum_after_the_loop(equal_values: Callable[..., None]) -> None:
    """Such as the gradients of two biases that are added to one value."""
    first, second = (Value(tensor("f32", (3,)), name=name) for name in ("first", "second"))

    def turn(s: Value, c: Value, d: Value, h: Value, x: Value) -> list[Value]:
        new = b.tanh(h)
        total = b.sum(new, axes=(0,))
        return [b.add(s, b.matmul(x, new, transpose_a=True)), b.add(c, total), b.add(d, total), new]

    result = hoisted(scanned(turn, [S, first, second, H], [XS], []), equal_values, S, first, second, H, XS)
    assert ops(loop(result.graph).attributes["body"]) == ["tanh"]
    assert ops(result.graph).count("sum") == 1


def test_sums_of_several_terms_and_of_other_values(equal_values: Callable[..., None]) -> None:
    def turn(s: Value, h: Value, x: Value) -> list[Value]:
        first, second = b.matmul(x, h, transpose_a=True), b.matmul(b.sin(x), b.cos(h), transpose_a=True)
        rest = b.mul(s_like(x, h), first_row(x, h))
        return [b.add(b.add(first, s), b.add(second, rest)), b.sin(h)]

    def s_like(x: Value, h: Value) -> Value:
        return b.matmul(b.cos(x), b.sin(h), transpose_a=True)

    def first_row(x: Value, h: Value) -> Value:
        return b.broadcast(b.sum(h, axes=(0,), keepdims=True), S.type.shape)

    result = hoisted(scanned(turn, [S, H], [XS], []), equal_values, S, H, XS)
    assert rules(result) == ["sum_after_loop"] * 2
    assert loop(result.graph).attributes["carried"] == 2


def test_sums_that_are_read_in_the_loop_stay(equal_values: Callable[..., None]) -> None:
    def read(s: Value, x: Value) -> list[Value]:
        new = b.add(s, b.matmul(x, b.matmul(x, s), transpose_a=True))
        return [new]

    def stacked(s: Value, h: Value, x: Value) -> list[Value]:
        new = b.add(s, b.matmul(x, h, transpose_a=True))
        return [new, b.sin(h), new]

    def cheap(s: Value, x: Value) -> list[Value]:
        return [b.add(s, b.broadcast(b.sum(b.mul(x, x), axes=(0, 1)), S.type.shape))]

    def running(s: Value, h: Value, x: Value) -> list[Value]:
        new = b.add(s, b.matmul(x, h, transpose_a=True))
        return [new, b.sin(h), b.sin(new)]

    for make, init in ((read, [S]), (stacked, [S, H]), (cheap, [S]), (running, [S, H])):
        graph = Graph("g", (S, H, XS), scanned(make, init, [XS], []))
        assert Hoist()(graph).graph is graph


def test_stacks_of_slices_are_sequences(equal_values: Callable[..., None]) -> None:
    result = hoisted(scanned(lambda h, x: [b.sin(h), x, h, x], [H], [XS], []), equal_values, H, XS)
    assert result.graph.outputs[1] is XS and result.graph.outputs[3] is XS
    assert rules(result) == ["stack_of_slices"] * 2


def test_back_propagation_through_time_sums_nothing_in_its_turns(equal_values: Callable[..., None]) -> None:
    def cell(h: Value, x: Value, w: Value, u: Value) -> list[Value]:
        new = b.tanh(b.add(b.matmul(h, w), b.matmul(x, u)))
        return [new, new]

    last, stack = scanned(cell, [H], [XS], [W, U])
    loss = b.add(b.sum(last, axes=(0, 1)), b.sum(b.mul(stack, stack), axes=(0, 1, 2)))
    one = b.constant(1.0, loss.type.dtype)
    found = [v for v in gradients([loss], [one], [W, U, H], b) if v is not None]
    graph = Graph("g", (H, XS, W, U), (loss, *found))
    result = Hoist()(graph)
    verify(result.graph)
    equal_values(graph, result.graph)
    backward = [n for n in result.graph.nodes if n.op.name == "scan" and n.attributes["body"].name.endswith("backward")]
    assert [n.attributes["carried"] for n in backward] == [1]
    assert ops(result.graph).count("einsum") == 2


@pytest.mark.parametrize("length", [T, 8])
def test_matrices_that_are_read_across_their_rows_are_transposed_once(
    length: int, equal_values: Callable[..., None]
) -> None:
    """Two products with one matrix, one within the other; a product with the matrix as it is reads the matrix."""
    xs = Value(tensor("f32", (length, "N", 3)), name="xs")

    def cell(h: Value, x: Value, w: Value) -> list[Value]:
        first = b.tanh(b.matmul(h, w, transpose_b=True))
        return [b.add(b.matmul(first, w, transpose_b=True), x), b.matmul(h, w)]

    types = [H.type, H.type, W.type]
    inputs = tuple(Value(t, name=f"a{k}") for k, t in enumerate(types))
    outputs = Scan((H,), (xs,), (W,), Graph("turn", inputs, tuple(cell(*inputs))), length, False).apply(b)
    graph = Graph("g", (H, xs, W), outputs)
    assert Hoist()(graph).graph is graph
    result = Hoist(layouts=True)(graph)
    verify(result.graph)
    equal_values(graph, result.graph)
    assert Hoist(layouts=True)(result.graph).graph is result.graph
    if length < TURNS_TO_TRANSPOSE:
        assert result.graph is graph
        return
    assert ops(result.graph) == ["transpose", "scan"] and rules(result) == ["transposed_once"] * 2
    body = loop(result.graph).attributes["body"]
    assert [v.name for v in body.inputs] == ["a0", "a1", "a2", "a2.transposed"]
    assert not any(node.attributes.get("transpose_b") for node in body.nodes)
