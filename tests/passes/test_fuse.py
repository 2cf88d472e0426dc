"""The fuse pass: which nodes share a kernel, and that values stay."""

from __future__ import annotations

from typing import Any

import numpy as np

import graphc as gc
from graphc.dsl.collect import Declared, collect
from graphc.interpret import evaluate
from graphc.ir.graph import Graph
from graphc.ir.text import parse, print_graph
from graphc.ir.verify import verify
from graphc.passes.fuse import Fuse
from graphc.passes.manager import run
from graphc.passes.pipeline import default_pipeline

N = 5


def fused(inputs: list[Any], outputs: list[Any], updates: dict[Any, Any] | None = None) -> tuple[Declared, Graph]:
    """The declared graph after the whole pipeline, verified, and checked to compute the same values."""
    declared = collect(inputs, outputs, updates or {})
    graph, _ = run(declared.graph, default_pipeline({}), verify=True)
    steps = default_pipeline({})
    count = [step.name for step in steps].index("differentiate") + 1
    plain, _ = run(declared.graph, steps[:count], verify=True)
    rng = np.random.default_rng(0)
    arrays = {}
    for value in declared.graph.inputs:
        shape = tuple(d if isinstance(d, int) else N for d in value.type.shape)
        integers = value.type.dtype.is_integer
        arrays[value.name] = rng.integers(0, 3, shape) if integers else rng.standard_normal(shape)
    for mine, oracle in zip(evaluate(graph, arrays), evaluate(plain, arrays), strict=True):
        np.testing.assert_allclose(mine, oracle, rtol=1e-9, atol=1e-12)
    return declared, graph


def kernels(graph: Graph) -> list[str]:
    """Ops of each node of a fused graph: a fusion as its body's name."""
    return [n.attributes["body"].name if n.op.name == "fusion" else n.op.name for n in graph.nodes]


def test_bias_and_activation_are_epilogues_of_the_contraction() -> None:
    x, W, b = gc.input("x", ("N", 4)), gc.param("W", (4, 3)), gc.param("b", (3,))
    _, graph = fused([x], [gc.relu(x @ W + b)])
    assert kernels(graph) == ["matmul_add_relu"]


def test_a_residual_sum_and_a_given_mask_are_epilogues_of_the_contraction() -> None:
    x, W, b, mask = gc.input("x", ("N", 4)), gc.param("W", (4, 4)), gc.param("b", (4,)), gc.input("mask", ("N", 4))
    _, graph = fused([x, mask], [gc.relu(x + x @ W + b) * mask * 2.0])
    assert len(graph.nodes) == 1


def test_the_mask_below_a_pooling_is_in_the_kernel_of_the_pooled_values() -> None:
    x, W, b = gc.input("x", ("N", 1, 6, 6)), gc.param("W", (2, 1, 3, 3)), gc.param("b", (2,))
    loss = gc.sum(gc.square(gc.max_pool2d(gc.relu(gc.conv2d(x, W, b)), 2)))
    _, graph = fused([x], gc.grad(loss, [W, b]))
    assert kernels(graph) == ["contract_add_relu", "max_pool_le_mul_where", "max_unpool", "contract", "sum"]


def test_a_product_is_stored_transposed_where_its_rows_stay() -> None:
    x, W = gc.input("x", ("N", 3, 4)), gc.param("W", (4, 5))
    y = gc.relu(x @ W)
    _, graph = fused([x], [gc.transpose(y, (1, 0, 2))])
    assert kernels(graph) == ["matmul_relu_transpose"]
    _, graph = fused([x], [gc.transpose(y, (1, 0, 2)), y])
    assert kernels(graph) == ["matmul_relu_transpose"] and len(graph.nodes[0].outputs) == 2
    _, graph = fused([x], [gc.transpose(y, (0, 2, 1))])
    assert kernels(graph) == ["matmul_relu", "transpose"]
    turned = gc.transpose(y, (1, 0, 2))
    _, graph = fused([x], [turned, gc.exp(turned)])
    assert kernels(graph) == ["matmul_relu_transpose", "exp"]


def test_elementwise_chain_is_one_kernel() -> None:
    x, y = gc.input("x", ("N", 4)), gc.input("y", ("N", 4))
    _, graph = fused([x, y], [gc.tanh(x * y + 1.0) / (2.0 + gc.exp(x))])
    assert len(graph.nodes) == 1


def test_producer_of_a_reduction_is_inlined() -> None:
    x = gc.input("x", ("N", 4))
    _, graph = fused([x], [gc.sum(gc.square(x - 1.0))])
    assert len(graph.nodes) == 1


def test_a_contraction_does_not_compute_its_operand_again() -> None:
    x, W = gc.input("x", ("N", 4)), gc.param("W", (4, 3))
    _, graph = fused([x], [gc.tanh(x) @ W])
    assert kernels(graph) == ["tanh", "matmul"]


def test_mask_of_a_relu_is_computed_where_it_is_used() -> None:
    x, W, V = gc.input("x", ("N", 4)), gc.param("W", (4, 6)), gc.param("V", (6, 2))
    loss = gc.sum(gc.relu(x @ W) @ V)
    _, graph = fused([x], gc.grad(loss, [W, V]))
    assert not any(v.type.dtype.name == "bool" for n in graph.nodes for v in n.outputs)


def test_updates_are_epilogues_of_weight_gradients() -> None:
    x, W = gc.input("x", ("N", 4)), gc.param("W", (4, 3))
    velocity = gc.state("velocity", (4, 3))
    new = 0.9 * velocity + gc.grad(gc.sum(gc.square(x @ W)), W)
    declared, graph = fused([x], [], {velocity: new, W: W - 0.1 * new})
    last = graph.nodes[-1]
    assert len(last.outputs) == 2 and len(declared.updated) == 2
    assert set(graph.outputs) == set(last.outputs)


def test_softmax_with_its_loss_gradient_is_one_kernel() -> None:
    z, t = gc.input("z", ("N", 7)), gc.input("t", ("N",), dtype="int32")
    _, graph = fused([z, t], [gc.grad(gc.cross_entropy(z, t), z)])
    assert len(graph.nodes) == 1


def test_two_readers_of_a_dear_map_make_it_stored_and_remarked() -> None:
    x, W, V = gc.input("x", ("N", 4)), gc.param("W", (4, 3)), gc.param("V", (4, 2))
    y = gc.exp(gc.tanh(x))
    declared = collect([x], [y @ W, y @ V, gc.sum(y, axis=1)], {})
    result = Fuse()(declared.graph)
    assert "exp" in " ".join(kernels(result.graph))
    assert any("readers" in remark for remark in result.remarks)


def test_random_numbers_are_drawn_in_a_map_of_their_own() -> None:
    x, W = gc.input("x", ("N", 4)), gc.param("W", (4, 3))
    declared = collect([x], [gc.random.bernoulli(gc.sigmoid(x @ W))], {})
    graph, stages = run(declared.graph, default_pipeline({}))
    assert kernels(graph) == ["matmul_sigmoid", "cast"]
    remarks = next(stage.remarks for stage in stages if stage.name == "fuse")
    assert [r for r in remarks if r.startswith("lt") and "drawn by whole blocks" in r]


def test_single_numbers_are_computed_in_every_reader() -> None:
    x, W, step = gc.input("x", ("N", 4)), gc.param("W", (4, 3)), gc.state("step", ())
    rate = 0.1 / gc.sqrt(step + 1.0)
    declared, graph = fused([x], [gc.sum(x * rate, axis=0)], {W: W * gc.exp(rate), step: step + 1.0})
    assert kernels(graph) == ["add", "sum", "mul"] and len(declared.updated) == 2


def test_a_value_that_depends_on_the_kernel_elsewhere_does_not_join() -> None:
    x = gc.input("x", ("N", 4))
    y = gc.sum(x, axis=1)
    z = gc.max(x * gc.reshape(y, (*y.shape, 1)), axis=1)
    _, graph = fused([x], [y * z])
    assert len(graph.nodes) == 2


def test_fused_graph_round_trips_as_text_and_verifies() -> None:
    x, W, b = gc.input("x", ("N", 4)), gc.param("W", (4, 3)), gc.param("b", (3,))
    _, graph = fused([x], [gc.log_softmax(gc.tanh(x @ W + b))])
    verify(graph)
    assert parse(print_graph(graph)) == graph


def test_every_fusion_is_recorded() -> None:
    x, W, b = gc.input("x", ("N", 4)), gc.param("W", (4, 3)), gc.param("b", (3,))
    declared = collect([x], [gc.relu(x @ W + b)], {})
    (rewrite,) = Fuse()(declared.graph).rewrites
    assert rewrite.rule == "fuse" and "matmul" in rewrite.before and "around matmul" in rewrite.why


def test_the_first_columns_of_a_product_are_no_epilogue() -> None:
    """The kernel of the product has more points than they: it would store beyond their end."""
    x, w = gc.input("x", (2, 4)), gc.input("w", (4, 12))
    product = x @ w
    program = gc.compile([x, w], [gc.sigmoid(product[:, :3]), product * 2], cache=False)
    at = [np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4), np.cos(np.arange(48, dtype=np.float32)).reshape(4, 12)]
    first, doubled = program(*at)
    np.testing.assert_allclose(doubled, 2 * at[0] @ at[1], rtol=1e-5)
    np.testing.assert_allclose(first, 1 / (1 + np.exp(-(at[0] @ at[1])[:, :3])), rtol=1e-5)
    forms = [kernel.form for kernel in program.kernels.values()]
    assert not any("sigmoid" in form and "i1 < 12" in form for form in forms)
