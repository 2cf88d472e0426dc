"""Graph nodes to kernel forms and a plan: composed kernels verify and compute what the graph means."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.codegen.lower import LoweredNode, Names, clamp_indices, lower_graph
from graphc.codegen.memory import PlannedProgram, Signature, plan_program
from graphc.dsl.collect import Declared, collect
from graphc.ir.types import f32, i64
from graphc.kernel.expr import Affine, Cast, Computed, Load
from graphc.kernel.form import Axis, Kernel, Operand, Stage, Store
from graphc.kernel.interpret import run as run_kernel
from graphc.kernel.text import parse_kernel, print_kernel
from graphc.kernel.verify import verify
from graphc.passes.manager import run
from graphc.passes.pipeline import default_pipeline


def planned(declared: Declared, capacity: int = 8) -> tuple[list[LoweredNode], PlannedProgram]:
    graph, _ = run(declared.graph, default_pipeline({}), verify=True)
    names = Names()
    lowered = lower_graph(graph, {"N": capacity}, names)
    updated = {variable: name for name, variable in declared.named_variables.items()}
    signature = Signature(
        frozenset(declared.named_variables),
        tuple(updated[v] for v in declared.updated),
        "rng" if declared.uses_rng else None,
    )
    return lowered, plan_program(graph, lowered, names, signature, {"N": capacity})


def classifier() -> Declared:
    x, t = gc.input("x", ("N", 6)), gc.input("t", ("N",), dtype="int32")
    W, b, V = gc.param("W", (6, 5)), gc.param("b", (5,)), gc.param("V", (5, 3))
    loss = gc.cross_entropy(gc.relu(x @ W + b) @ V, t)
    gradients = gc.grad(loss, [W, b, V])
    return collect([x, t], [loss], {p: p - 0.1 * g for p, g in zip([W, b, V], gradients, strict=True)})


def test_all_kernels_of_a_training_step_verify() -> None:
    _, program = planned(classifier())
    for kernel in program.kernels:
        verify(kernel)


def test_kernels_run_one_after_the_other_make_the_training_step() -> None:
    """The plan's order, executed by the kernel interpreter on named buffers, equals NumPy's step."""
    _, program = planned(classifier())
    rng = np.random.default_rng(4)
    buffers: dict[str, Any] = {
        "x": rng.standard_normal((7, 6)), "t": rng.integers(0, 3, 7).astype(np.int32), "W": rng.standard_normal((6, 5)),
        "b": rng.standard_normal(5), "V": rng.standard_normal((5, 3)),
    }  # fmt: skip
    x, t, W, b, V = (np.array(buffers[k]) for k in ("x", "t", "W", "b", "V"))
    for kernel in program.kernels:
        inputs = {o.name: buffers[o.name] for o in kernel.inputs}
        extents = {"N": 7} if kernel.runtime_extents else {}
        buffers.update(run_kernel(kernel, inputs, extents, float64=True))
    hidden = np.maximum(x @ W + b, 0)
    z = hidden @ V
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    dz = (p - np.eye(3)[t]) / 7
    dh = np.where(hidden > 0, dz @ V.T, 0)
    np.testing.assert_allclose(buffers[program.plan.results[0]], -np.log(p[np.arange(7), t]).mean(), rtol=1e-12)
    for name, gradient in (("W", x.T @ dh), ("b", dh.sum(0)), ("V", hidden.T @ dz)):
        old = {"W": W, "b": b, "V": V}[name]
        np.testing.assert_allclose(buffers[name], old - 0.1 * gradient, rtol=1e-6)


def test_writer_of_a_variable_comes_after_its_readers() -> None:
    _, program = planned(classifier())
    order = list(program.kernels)
    for variable in ("W", "b", "V"):
        writer = next(i for i, k in enumerate(order) if any(o.name == variable for o in k.outputs))
        readers = [i for i, k in enumerate(order) if any(o.name == variable for o in k.inputs) and i != writer]
        assert all(i < writer for i in readers), variable
    assert set(program.plan.written) == {"W", "b", "V"} and not program.plan.updates


def test_labels_are_checked_at_the_call() -> None:
    _, program = planned(classifier())
    (check,) = program.plan.checks
    assert (check.input, check.lower, check.upper) == ("t", 0, 3)


def test_arena_is_smaller_than_the_sum_of_its_values() -> None:
    x = gc.input("x", ("N", 64))
    y: Any = x
    for k in range(6):
        y = gc.tanh(y @ gc.param(f"W{k}", (64, 64)))
    _, program = planned(collect([x], [y]), capacity=32)
    scratch = [b for b in program.plan.buffers if b.region == "scratch"]
    assert program.plan.arena_bytes <= 3 * 32 * 64 * 4 < sum(b.nbytes for b in scratch)


def test_a_view_shares_memory_and_needs_no_kernel() -> None:
    x = gc.input("x", ("N", 2, 3))
    W = gc.param("W", (6, 4))
    _, program = planned(collect([x], [gc.reshape(x, ("N", 6)) @ W]))
    assert len(program.kernels) == 1
    assert len({(b.region, b.offset) for b in program.plan.buffers if b.region == "input"}) == 1


def test_operand_names_never_clash_with_axes_and_lets() -> None:
    x = gc.input("i0", ("N", 4))
    acc, r0 = gc.param("acc", (4, 3)), gc.param("r0", (3,))
    lowered, _ = planned(collect([x], [gc.relu(x @ acc + r0)]))
    for item in lowered:
        verify(item.kernel)
    assert "acc: f32[4,3]" in print_kernel(lowered[0].kernel)


def label_kernel() -> Kernel:
    index = Computed(Cast(Load("t", (Affine.axis("n"),)), i64), 0, 3)
    stage = Stage(stores=(Store("y", (Affine.axis("n"),), Load("z", (Affine.axis("n"), index))),))
    operands = (Operand("z", f32, (4, 3)), Operand("t", i64, (4,)), Operand("y", f32, (4,), "out"))
    return Kernel("pick", operands, (Axis.range("n", 4),), (stage,))


@pytest.mark.parametrize("checked", [True, False])
def test_indices_that_are_not_checked_are_clamped(checked: bool) -> None:
    kernel = clamp_indices(label_kernel(), frozenset({"t"} if checked else ()))
    assert ("min" in print_kernel(kernel)) is not checked
    verify(kernel)
    z = np.arange(12, dtype=np.float32).reshape(4, 3)
    labels = np.array([0, 2, 1, 0]) if checked else np.array([-5, 2, 99, 0])
    expected = z[np.arange(4), np.clip(labels, 0, 2)]
    np.testing.assert_array_equal(run_kernel(kernel, {"z": z, "t": labels})["y"], expected)


@pytest.mark.parametrize("count", [4, 0])
def test_indices_computed_in_the_same_kernel_are_clamped(count: int) -> None:
    """An accumulator is an index here; over no rows it is the greatest int64."""
    x, w = gc.input("x", ("N", 3)), gc.input("w", (5,))
    index = gc.argmax(x, 0)
    program = gc.compile([x, w], [gc.take(w, index, 0), gc.take(w, index * 1000 + 2, 0)], dims={"N": 4}, cache=False)
    rows, table = np.eye(4, 3, dtype=np.float32)[:count], np.arange(5, dtype=np.float32)
    near, far = program(rows, table)
    expected = np.array([0, 1, 2] if count else [2**63 - 1] * 3)
    np.testing.assert_array_equal(near, table[np.clip(expected, 0, 4)])
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(far, table[np.clip(expected * 1000 + 2, 0, 4)])


def test_names_are_unique_identifiers() -> None:
    names = Names()
    assert names.unique("0.weight") == "v0_weight"
    assert names.unique("0.weight") == "v0_weight_2"
    assert names.unique("") == "value"
    assert names.kernel("0.weight") == "v0_weight"


def test_kernels_that_differ_in_names_only_share_machine_code() -> None:
    x = gc.input("x", ("N", 16))
    y: Any = x
    for k in range(4):
        y = gc.tanh(y @ gc.param(f"W{k}", (16, 16)) + gc.param(f"b{k}", (16,), init=gc.init.normal()))
    program = gc.compile([x], [y], dims={"N": 4}, cache=False)
    kernels = list(program.kernels.values())
    assert len(kernels) == 4 and len({k.symbol for k in kernels}) == 1
    assert len({k.source for k in kernels}) == 4 and "W2" in kernels[2].source
    h = np.random.default_rng(0).standard_normal((4, 16))
    expected = h
    for k in range(4):
        values = program.declared.named_variables
        expected = np.tanh(expected @ values[f"W{k}"].value + values[f"b{k}"].value)
    np.testing.assert_allclose(program(h)[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["where", "sum", "kernel", "stage", "f32", "in", "größe"])
def test_any_name_of_a_tensor_gives_kernels_that_verify_and_run(name: str) -> None:
    x = gc.input("x", ("N", 3))
    W = gc.param(name, (3,), init=2.0)
    program = gc.compile([x], [x * W], dims={"N": 2}, cache=False)
    for kernel in program.kernels.values():
        verify(parse_kernel(kernel.form))
    np.testing.assert_array_equal(program(np.ones((1, 3)))[0], np.full((1, 3), 2.0))
