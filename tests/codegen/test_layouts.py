"""Layouts: what is chosen for convolutional networks and for others, and that results do not depend on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import models, nn, optim
from graphc.codegen.host import Host
from graphc.codegen.relayout import ascending, conversion, innermost, laid_out
from graphc.inspect.oracle import check_step
from graphc.inspect.record import record_step
from graphc.kernel import interpret
from graphc.kernel.form import Kernel, Operand
from graphc.kernel.parser import parse_kernel
from graphc.kernel.text import print_kernel
from graphc.kernel.verify import verify

AVX512 = Host("test", "", 16, 32)


def network() -> nn.Module:
    first, second = nn.Conv2d(2, 5, 3, padding=1), nn.Conv2d(5, 6, 3)
    return nn.Sequential(first, nn.ReLU(), nn.MaxPool2d(2), second, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(24, 4))


def training(model: nn.Module, shape: tuple[int, ...], batch: int, **options: Any) -> gc.Program:
    x, t = gc.input("x", ("N", *shape)), gc.input("t", ("N",), dtype="int64")
    optimizer = optim.SGD(lr=0.1, momentum=0.9)
    with nn.trace(model, train=True):
        loss = gc.cross_entropy(model(x), t)
    updates = optimizer.updates(loss, model.parameters())
    return gc.compile([x, t], [loss], updates=updates, dims={"N": batch}, seed=0, **options)


def batch_of(shape: tuple[int, ...], count: int, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(count)
    return rng.random((count, *shape), dtype=np.float32), rng.integers(0, classes, count)


@pytest.mark.parametrize("batch", [64, 100])
def test_a_step_of_a_convolutional_network(batch: int) -> None:
    """The batch is innermost, padded to whole vectors; garbage behind a shorter batch reaches no result."""
    program = training(network(), (2, 12, 12), batch)
    inner = [b for b in program.plan.buffers if b.layout]
    padding = "" if batch == 64 else "+12"
    assert len(inner) >= 6 and all(b.layout.endswith(f"[N]{padding}") for b in inner if len(b.shape) == 4)
    assert any("layout: axis 0 (N) innermost" in remark for remark in program.remarks)
    assert f"laid [5][12][12][N]{padding}" in program.memory
    for count in (batch, 1, batch - 1, batch):
        record, _ = record_step(program, batch_of((2, 12, 12), count))
        check_step(program, record, tolerance=2e-5)


def test_layouts_can_be_switched_off() -> None:
    model = network()
    plain, chosen = (training(model, (2, 12, 12), 64, without=w) for w in (["layouts", "split"], []))
    assert not any(b.layout for b in plain.plan.buffers) and any(b.layout for b in chosen.plan.buffers)
    arrays, before = batch_of((2, 12, 12), 64), {name: p.value for name, p in model.named_parameters()}
    (loss,) = plain(*arrays)
    after = {name: p.value for name, p in model.named_parameters()}
    for name, parameter in model.named_parameters():
        parameter.value = before[name]
    np.testing.assert_allclose(chosen(*arrays)[0], loss, rtol=1e-5)
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(parameter.value, after[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sizes", [(784, 512, 10), (784, 64, 10), (500, 300, 50)])
def test_perceptrons_stay_row_major(sizes: tuple[int, ...]) -> None:
    layers = [layer for i, o in zip(sizes, sizes[1:], strict=False) for layer in (nn.Linear(i, o), nn.ReLU())]
    program = training(nn.Sequential(*layers[:-1]), sizes[:1], 64)
    assert all(b.layout.startswith("[N]") for b in program.plan.buffers if b.layout)  # padding aside


def inference(model: nn.Module, shape: tuple[int, ...], batch: int, **options: Any) -> gc.Program:
    x = gc.input("x", ("N", *shape))
    with nn.trace(model, train=False):
        return gc.compile([x], [model(x)], dims={"N": batch}, **options)


@pytest.mark.parametrize("batch", [1, 37])
def test_weights_that_a_program_does_not_write_are_laid_out_once(batch: int) -> None:
    """The second convolution of LeNet has 16 channels for 10 columns of an image: channels fill a vector."""
    model = models.lenet()
    program = inference(model, (1, 28, 28), batch)
    assert ("v3_weight",) in [p.variables for p in program.plan.preparations]
    copies = [call for call, least, _ in program.plan.call_counts() if least and call.operands[0].endswith("weight")]
    assert not copies
    assert any(b.name == "v3_relu" and b.layout.endswith("[16]") for b in program.plan.buffers)
    for turn in range(3):
        for _ in range(2):
            record, _ = record_step(program, (batch_of((1, 28, 28), batch)[0],))
            check_step(program, record, tolerance=2e-5)
        model.load_state_dict({name: value * (0.5 + turn) for name, value in model.state_dict().items()})


@pytest.mark.parametrize("batch", [1, 128])
def test_weights_that_come_from_memory_stay_where_they_are(batch: int) -> None:
    """One image's product with 1.6 MB of weights takes as long as reading them does, in any layout."""
    layers = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
    program = inference(layers, (784,), batch)
    assert not program.plan.preparations and not any(b.layout for b in program.plan.buffers)


@pytest.mark.parametrize(("count", "copied"), [(2048, True), (32, False)])
def test_short_sums_have_their_columns_copied(count: int, copied: bool) -> None:
    """g @ V^T sums 65 products along the rows of both: with V^T beside V its columns are lanes."""
    g, V = gc.input("g", ("N", 65)), gc.param("V", (128, 65), init=gc.init.normal(0.0, 1.0))
    program = gc.compile([g], [g @ V.T], dims={"N": count}, cache=False)
    buffers = {buffer.name for buffer in program.plan.buffers}
    assert ("V_laid" in buffers) == copied
    values = np.random.default_rng(0).standard_normal((count, 65)).astype(np.float32)
    for n in (count, 7):
        np.testing.assert_allclose(program(values[:n])[0], values[:n] @ V.value.T, rtol=1e-4, atol=1e-4)


def test_a_copy_is_made_before_its_original_is_updated() -> None:
    g, V = gc.input("g", ("N", 65)), gc.param("V", (128, 65), init=gc.init.normal(0.0, 1.0))
    h = g @ V.T
    program = gc.compile([g], [h], {V: V + 1.0}, dims={"N": 2048}, cache=False)
    assert "V_laid" in {buffer.name for buffer in program.plan.buffers}
    values = np.random.default_rng(0).standard_normal((2048, 65)).astype(np.float32)
    for _ in range(2):
        before = V.value.copy()
        np.testing.assert_allclose(program(values)[0], values @ before.T, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(V.value, before + 1.0)


def test_results_and_updated_state_are_row_major() -> None:
    """Values that are returned, or kept between steps, lie as users see them, whatever their kernels want."""
    x, w = gc.input("x", ("N", 3, 8, 8)), gc.param("w", (8, 3, 3, 3), init=gc.init.glorot_uniform())
    kept = gc.state("kept", (8, 8, 8))
    hidden = gc.relu(gc.conv2d(x, w, padding=1))
    again = gc.conv2d(hidden, gc.transpose(w, (1, 0, 2, 3)), padding=1)
    program = gc.compile([x], [hidden, gc.sum(again * again)], updates={kept: gc.sum(hidden, axis=0)}, dims={"N": 32})
    rng = np.random.default_rng(0)
    record, _ = record_step(program, [rng.standard_normal((32, 3, 8, 8)).astype("float32")])
    check_step(program, record, tolerance=2e-5)


# ---- rewriting ------------------------------------------------------------------------------------------------------

FORMS = {
    "convolution": "(x: f32[N,3,6,6], w: f32[4,3,3,3]) -> (y: f32[N,4,6,6]) where N <= 5 {"
    " space n < N, o < 4, i < 6, j < 6"
    " stage { reduce c < 3, ky in max(0, 1-i) .. min(3, 7-i), kx in max(0, 1-j) .. min(3, 7-j)"
    " a: f32 = sum(x[n, c, i+ky-1, j+kx-1] * w[o, c, ky, kx]) y[n, o, i, j] = max(a, 0.0) } }",
    "pooling": "(x: f32[N,2,6,6]) -> (y: f32[N,2,3,3], k: i64[N,2,3,3]) where N <= 5 { space n < N, c < 2, i < 3, j < 3"
    " stage { reduce a < 2, b < 2 m: f32, t: i64 = argmax(x[n, c, 2*i+a, 2*j+b], 2*a + b)"
    " y[n, c, i, j] = m k[n, c, i, j] = t } }",
    "picking": "(x: f32[N,7], t: i32[N]) -> (y: f32[N,7]) where N <= 5 { space n < N, i < 7 stage {"
    " y[n, i] = where(i64(t[n]) == i, x[n, i64(t[n]) in 0 .. 7], 0.0) } }",
    "sums": "(x: f32[N,3,4,5], inout b: f32[3]) -> () where N <= 5 { space c < 3 stage { reduce n < N, i < 4, j < 5"
    " s: f32 = sum(x[n, c, i, j]) b[c] = b[c] - s } }",
}  # fmt: skip


def arrays_of(kernel: Kernel, count: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    found = {}
    for operand in kernel.inputs:
        shape = tuple(count if str(d) == "N" else int(str(d)) for d in operand.shape)
        floats = operand.dtype.is_float
        values = rng.standard_normal(shape) if floats else rng.integers(0, 7, shape)
        found[operand.name] = values.astype(operand.dtype.numpy)
    return found


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("axis", [0, 1])
def test_kernels_in_other_layouts(build: Callable[..., Any], name: str, axis: int) -> None:
    """Whatever the layouts of the operands, the same numbers, in other places."""
    kernel, count = parse_kernel(f"kernel k {FORMS[name]}"), 5
    given = arrays_of(kernel, count)
    wanted = interpret.run(kernel, given, {"N": count})
    moved = [o for o in kernel.operands if len(o.shape) > 1 and axis < len(o.shape) - 1]
    for chosen in (moved, moved[:1], moved[1:]):
        layouts = {o.name: innermost(o.shape, axis, kernel.capacities, 16) for o in chosen}
        laid = laid_out(kernel, layouts)
        verify(laid)
        turned = {n: a.transpose(layouts[n].permutation) if n in layouts else a for n, a in given.items()}
        found = build(laid).check(turned, {"N": count})
        for n, value in wanted.items():
            expected = value.transpose(layouts[n].permutation) if n in layouts else value
            np.testing.assert_allclose(found[n], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(40, 33), (64, 3, 5, 7), (17, 16), (13, 200)])
@pytest.mark.parametrize("dtype", ["f32", "u8"])
def test_conversions_transpose_square_tiles(build: Callable[..., Any], shape: tuple[int, ...], dtype: str) -> None:
    dims = ",".join(["N", *map(str, shape[1:])])
    source = parse_kernel(f"kernel k(x: {dtype}[{dims}]) -> () where N <= {shape[0]} {{ }}").operands[0]
    layout = innermost(source.shape, 0, {"N": shape[0]}, 16)
    there = conversion("there", source, "y", {"y": layout}, {"N": shape[0]})
    back = conversion("back", Operand("y", source.dtype, source.shape), "x", {"y": layout}, {"N": shape[0]})
    there, back = build(there), build(back)
    assert {there.schedule.kind, back.schedule.kind} == {"transposed"}
    rng = np.random.default_rng(0)
    for count in (1, shape[0] - 1, shape[0]):
        x = rng.integers(0, 200, (count, *shape[1:])).astype(source.dtype.numpy)
        y = there.check({"x": x}, {"N": count})["y"]
        np.testing.assert_array_equal(y, x.transpose((*range(1, x.ndim), 0)))
        np.testing.assert_array_equal(back.check({"y": y}, {"N": count})["x"], x)


def test_a_conversion_reads_a_filled_value_without_filling_it_again() -> None:
    """A padded value is made in memory that is filled first; its copies only read it."""
    padded = Operand("p", parse_kernel("kernel k(x: f32[1]) -> () { }").operands[0].dtype, (40, 33), "out", init=0.0)
    kernel = conversion("copy", padded, "y", {"y": innermost(padded.shape, 0, {}, 16)}, {})
    verify(kernel)
    assert [(o.role, o.init) for o in kernel.operands] == [("in", None), ("out", None)]


def test_reductions_walk_forwards(build: Callable[..., Any]) -> None:
    """An input gradient reads its window backwards; turned round it adds the same products, and only it is turned."""
    text = (
        "kernel k(w: f32[4,3,3,5], g: f32[4,6,7,N]) -> (d: f32[3,6,9,N]) where N <= 16 {"
        " space c < 3, y < 6, x < 9, n < N"
        " stage { reduce o < 4, ky in max(0, y-4) .. min(3, y+2), kx in max([0, 0, 0, 0, 0, 0, 0, 1, 2][x], 0)"
        " .. min(5, x+1) a: f32 = sum(w[o, c, ky, kx] * g[o, y-ky+1, x-kx, n]) d[c, y, x, n] = a } }"
    )
    kernel = parse_kernel(text)
    verify(kernel)
    turned = ascending(kernel)
    verify(turned)
    assert "y+ky-1, x+kx-4" in print_kernel(turned) and "w[o, c, 2-ky, 4-kx]" in print_kernel(turned)
    assert ascending(turned) == turned
    rng = np.random.default_rng(0)
    given = {"w": rng.standard_normal((4, 3, 3, 5)), "g": rng.standard_normal((4, 6, 7, 16))}
    given = {name: array.astype("float32") for name, array in given.items()}
    found = build(turned).check(given, {"N": 16})
    np.testing.assert_allclose(found["d"], interpret.run(kernel, given, {"N": 16})["d"], rtol=1e-4, atol=1e-5)
    pooling = parse_kernel(f"kernel k {FORMS['pooling']}")
    assert ascending(pooling) == pooling


def test_loads_that_are_one_element_in_memory() -> None:
    """Where an axis has one point, x[i] and x[0] are the same: a product of a 1x1 matrix with itself."""
    x = gc.input("x", (1, 1, 1, 1))
    y = gc.matmul(x, x, transpose_b=True)
    loss = gc.mean(-y)
    program = gc.compile([x], [gc.grad(loss, y), gc.grad(loss, x)], cache=False)
    by_y, by_x = program(np.full((1, 1, 1, 1), 3, np.float32))
    assert by_y.item() == -1 and by_x.item() == -6
