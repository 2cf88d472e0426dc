"""Convolutions against PyTorch: values and gradients of a grid of geometries, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.autodiff.expand import expand_derivatives
from graphc.dsl.symbol import unwrap
from graphc.errors import AttributeValueError, GraphcError, ShapeError
from graphc.interpret import evaluate
from graphc.ir.graph import Graph
from graphc.kernel.interpret import run
from graphc.kernel.verify import verify

torch: Any = pytest.importorskip("torch", reason="parity with PyTorch needs torch")

FUNCTIONS = {1: "conv1d", 2: "conv2d", 3: "conv3d"}
SPACE = {1: (9,), 2: (9, 7), 3: (5, 4, 6)}
KERNEL = {1: (3,), 2: (3, 2), 3: (2, 3, 1)}


def wave(shape: tuple[int, ...], step: float) -> np.ndarray:
    return np.sin(np.arange(float(np.prod(shape))) * step).reshape(shape)


def check(name: str, arrays: list[np.ndarray], options: dict[str, Any]) -> None:
    """Value, gradients of sum(w sin y), and every contraction's kernel against its reference."""
    inputs = [gc.input(f"x{k}", a.shape, dtype="float64") for k, a in enumerate(arrays)]
    y = getattr(gc, name)(*inputs, **options)
    weights = wave(tuple(map(int, y.shape)), 0.3)
    gradients = gc.grad(gc.sum(gc.sin(y) * weights), inputs)
    graph = expand_derivatives(Graph("g", tuple(i.ir for i in inputs), tuple(unwrap(v) for v in (y, *gradients))))
    found = evaluate(graph, {f"x{k}": a for k, a in enumerate(arrays)})

    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    expected = getattr(torch.nn.functional, name)(*tensors, **options)
    (torch.sin(expected) * torch.tensor(weights)).sum().backward()
    for mine, theirs in zip(found, (expected.detach(), *(t.grad for t in tensors)), strict=True):
        np.testing.assert_allclose(mine, theirs.numpy(), rtol=1e-10, atol=1e-12)

    for node in graph.nodes:
        if node.op.name == "contract":
            kernel = node.op.lower(node)
            verify(kernel)
            operands = {f"in{k}": wave(tuple(map(int, v.type.shape)), 1.1) for k, v in enumerate(node.inputs)}
            (reference,) = node.op.reference(list(operands.values()), node.attributes)
            np.testing.assert_allclose(run(kernel, operands)["out0"], reference, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_convolution_is_that_of_torch(stride: int, dilation: int, groups: int) -> None:
    for rank, padding, batch in ((1, 1, 2), (2, 0, 2), (2, 2, 1)):
        x = wave((batch, 4, *SPACE[rank]), 1.7)
        w, b = wave((4, 4 // groups, *KERNEL[rank]), 0.9), wave((4,), 0.5)
        options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        check(FUNCTIONS[rank], [x, w, b], options)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")  # of torch
@pytest.mark.parametrize(
    "options",
    [
        {"padding": "same"},
        {"padding": "same", "dilation": 2},
        {"padding": "valid", "stride": 2},
        {"padding": (2, 0), "stride": (1, 3), "dilation": (3, 1)},
        {"padding": (0, 3), "stride": (3, 2), "dilation": (2, 3)},
        {"padding": 4, "stride": 4},
        {"stride": 5, "groups": 4},
    ],
    ids=str,
)
def test_each_axis_has_its_own_window(options: dict[str, Any]) -> None:
    groups = options.get("groups", 1)
    w = wave((8, 4 // groups, *KERNEL[2]), 0.9)
    if options.get("padding") == "same":
        w = wave((8, 4, 4, 3), 0.9)  # an even window pads one more behind
    check("conv2d", [wave((2, 4, *SPACE[2]), 1.7), w], options)


@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1}, {"dilation": 2, "padding": (1, 2, 0)}], ids=str)
def test_convolution_of_volumes(options: dict[str, Any]) -> None:
    check("conv3d", [wave((2, 2, *SPACE[3]), 1.7), wave((3, 2, *KERNEL[3]), 0.9)], options)


def test_an_image_without_a_batch() -> None:
    check("conv2d", [wave((4, 6, 5), 1.7), wave((3, 4, 3, 3), 0.9), wave((3,), 0.2)], {"padding": 1})
    check("conv1d", [wave((4, 6), 1.7), wave((3, 4, 1), 0.9)], {})


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (3, 1), (1, 2), (2, 3), (2, 2)])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_transposed_convolution_is_that_of_torch(stride: int, dilation: int, groups: int) -> None:
    for padding, made, more in ((0, 1, 0), (1, 2, 0), (1, 1, max(stride, dilation) - 1)):
        w, b = wave((4, made, *KERNEL[2]), 0.9), wave((groups * made,), 0.5)
        options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        check("conv_transpose2d", [wave((2, 4, 4, 3), 1.7), w, b], {**options, "output_padding": more})


def test_transposed_convolution_of_lines_and_volumes() -> None:
    options = {"stride": 2, "padding": 1, "output_padding": 1}
    check("conv_transpose1d", [wave((2, 3, 5), 1.7), wave((3, 2, 4), 0.9)], options)
    check("conv_transpose3d", [wave((1, 3, 2, 3, 2), 1.7), wave((3, 2, 3, 2, 3), 0.9)], options)
    check("conv_transpose2d", [wave((3, 4, 3), 1.7), wave((3, 2, 2, 2), 0.9)], {"stride": 2})


def test_arrays_take_the_dtype_of_the_symbol_beside_them() -> None:
    image, window = np.ones((1, 1, 4, 4)), np.ones((1, 1, 2, 2))
    for dtype in (gc.float32, gc.float64):
        assert gc.conv2d(image, gc.input("w", window.shape, dtype=dtype)).dtype == dtype
        assert gc.conv2d(gc.input("x", image.shape, dtype=dtype), window).dtype == dtype
    assert gc.conv_transpose2d(image, window).dtype == gc.float64


def test_no_images() -> None:
    x, w = gc.input("x", (0, 2, 5, 5)), gc.input("w", (3, 2, 3, 3))
    y = gc.max_pool2d(gc.conv2d(x, w, padding=1), 2)
    program = gc.compile([x, w], [y, *gc.grad(gc.sum(y * y), [x, w])], cache=False)
    found = program(np.zeros(x.ir.type.shape, np.float32), np.ones((3, 2, 3, 3), np.float32))
    assert [a.shape for a in found] == [(0, 3, 2, 2), (0, 2, 5, 5), (3, 2, 3, 3)] and not found[2].any()


def test_a_batch_may_be_a_symbol() -> None:
    x, w = gc.input("x", ("N", 2, 6, 6)), gc.param("w", (3, 2, 3, 3), init=gc.init.uniform(-1, 1))
    y = gc.conv2d(x, w, padding=1)
    assert str(y.shape) == "(N, 3, 6, 6)"
    gx, gw = gc.grad(gc.sum(y * y), [x, w])
    program = gc.compile([x], [y, gx, gw], dims={"N": 5}, cache=False)
    for batch in (5, 2):
        array = wave((batch, 2, 6, 6), 0.7).astype(np.float32)
        image, weight = torch.tensor(array, requires_grad=True), torch.tensor(w.value, requires_grad=True)
        expected = torch.nn.functional.conv2d(image, weight, padding=1)
        (expected * expected).sum().backward()
        for mine, theirs in zip(program(array), (expected.detach(), image.grad, weight.grad), strict=True):
            np.testing.assert_allclose(mine, theirs.numpy(), rtol=1e-4, atol=1e-4)


def test_sizes_may_be_symbols_where_the_result_is_one_polynomial() -> None:
    x, w = gc.input("x", (1, 1, "H")), np.ones((1, 1, 3), np.float32)
    assert str(gc.conv1d(x, w, padding=1).shape) == "(1, 1, H)"
    assert str(gc.conv1d(gc.input("x", (1, 1, "2*H")), w, stride=2, padding=1).shape) == "(1, 1, H)"
    with pytest.raises(ShapeError, match=r"no whole number for every size; give H as a number"):
        gc.conv1d(x, w, stride=2)


def f32(*shape: int) -> gc.Input:
    return gc.input(f"x{len(shape)}", shape)


BAD: list[tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any], type[GraphcError], str]] = [
    ("conv2d", (2, 3, 4, 4), (5, 3, 5, 5), {}, ShapeError, r"\(4 \+ 0 \+ 0 - 1\*\(5 - 1\) - 1\) / 1 \+ 1 = 0"),
    ("conv2d", (2, 3, 4, 4), (5, 3, 3, 3), {"dilation": 4}, ShapeError, r"- 4\*\(3 - 1\) - 1\) / 1 \+ 1 = -4"),
    ("conv2d", (2, 3, 0, 4), (5, 3, 1, 1), {}, ShapeError, r"axis of size 0 in \[0,4\]"),
    ("conv2d", (2, 0, 4, 4), (5, 0, 1, 1), {}, ShapeError, "no input channels"),
    ("conv2d", (2, 3, 4, 4), (0, 3, 1, 1), {}, ShapeError, "no output channels"),
    ("conv2d", (2, 3, 4, 4), (5, 3, 0, 1), {}, ShapeError, r"window \[0,1\] must have fixed sizes"),
    ("conv2d", (2, 3, 4, 4), (5, 2, 1, 1), {}, ShapeError, r"\[5,2,1,1\] takes 2 input channels; it must take 3"),
    ("conv2d", (2, 4, 4, 3), (5, 3, 1, 1), {}, ShapeError, r"images are \[N, C, H, W\], .* gc.moveaxis\(x, -1, 1\)"),
    ("conv2d", (2, 4, 4), (5, 1, 1, 1), {}, ShapeError, r"3 axes are one image, \[C, H, W\]: .* x\[:, None\]"),
    ("conv2d", (2, 4, 4, 4), (4, 4, 1, 1), {"groups": 2}, ShapeError, "it must take 2, for 4 in 2 groups"),
    ("conv2d", (2, 3, 4, 4), (4, 1, 1, 1), {"groups": 2}, ShapeError, "3 input channels do not divide into 2 groups"),
    ("conv2d", (2, 4, 4, 4), (3, 2, 1, 1), {"groups": 2}, ShapeError, "3 output channels do not divide into 2 groups"),
    ("conv2d", (2, 4, 4, 4), (3, 4, 1, 1), {"groups": 0}, AttributeValueError, "groups=0 must be"),
    ("conv2d", (2, 3, 4), (5, 3, 1), {}, ShapeError, "the weight has 3 axes; it must have 4"),
    ("conv2d", (3, 4), (5, 3, 1, 1), {}, ShapeError, r"must be \[N, C, H, W\], or \[C, H, W\] without a batch"),
    ("conv1d", (2, 3, 4, 4), (5, 3, 1), {}, ShapeError, r"input has 4 axes; it must be \[N, C, W\]"),
    ("conv2d", (2, 3, 4, 4), (5, 3, 1, 1), {"padding": "full"}, AttributeValueError, "padding='full' is not 'same'"),
    ("conv2d", (2, 3, 4, 4), (5, 3, 1, 1), {"padding": "same", "stride": 2}, AttributeValueError, "needs stride 1"),
    ("conv2d", (2, 3, 4, 4), (5, 3, 1, 1), {"padding": -1}, AttributeValueError, "padding=-1 must be at least 0"),
    ("conv2d", (2, 3, 4, 4), (5, 3, 1, 1), {"stride": 0}, AttributeValueError, "stride=0 must be at least 1"),
    ("conv2d", (2, 3, 4, 4), (5, 3, 1, 1), {"stride": (1, 1, 1)}, AttributeValueError, "3 entries, .* 2 axes"),
    ("conv2d", (2, 3, 4, 4), (5, 3, 1, 1), {"dilation": 1.5}, AttributeValueError, "dilation=1.5 is neither an int"),
    ("conv2d", (2, 3, 4, 4), (5, 3, 1, 1), {"bias": np.ones(4)}, ShapeError, r"bias has shape \[4\]; it must be \[5\]"),
    ("conv_transpose2d", (2, 3, 4, 4), (4, 3, 1, 1), {}, ShapeError, r"takes 4 input channels \(its first axis\)"),
    ("conv_transpose2d", (2, 3, 4, 4), (3, 2, 2, 2), {"output_padding": 1}, AttributeValueError, "less than the"),
    ("conv_transpose1d", (2, 3, 2), (3, 2, 2), {"padding": 2}, ShapeError, r"\(2 - 1\)\*1 - 2\*2 \+ 1 \+ 0 \+ 1 = -1"),
    ("conv_transpose1d", (2, 3, 2), (3, 2, 2), {"padding": "same"}, AttributeValueError, "takes numbers"),
    ("conv1d", (1 << 31, 1, 1 << 31), (4, 1, 1), {}, ShapeError, "18446744073709551616 elements, more than a 64-bit"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "x", "w", "options", "error", "reason"), BAD)
def test_bad_input_is_refused_with_the_numbers(
    name: str, x: tuple[int, ...], w: tuple[int, ...], options: dict[str, Any], error: type[GraphcError], reason: str
) -> None:
    with pytest.raises(error, match=reason) as caught:
        getattr(gc, name)(gc.input("x", x), gc.input("w", w), **options)
    assert str(caught.value).startswith(f"{name}(f32[") and "test_convolution.py" in str(caught.value)


def test_third_derivatives() -> None:
    """d/dx of d/dw of d/dx: each is a contraction again."""
    x, w = wave((1, 2, 5, 5), 1.7), wave((2, 2, 3, 3), 0.9)
    inputs = [gc.input("x", x.shape, dtype="float64"), gc.input("w", w.shape, dtype="float64")]
    value = gc.sum(gc.sin(gc.conv2d(*inputs, stride=2, padding=1)))
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, w)]
    peer = torch.sin(torch.nn.functional.conv2d(*tensors, stride=2, padding=1)).sum()
    for order, by in enumerate((0, 1, 0)):
        (gradient,) = gc.grad(value, [inputs[by]])
        (expected,) = torch.autograd.grad(peer, [tensors[by]], create_graph=True)
        weights = wave(tuple(expected.shape), 0.3 + order)
        value, peer = gc.sum(gradient * weights), (expected * torch.tensor(weights)).sum()
    graph = expand_derivatives(Graph("g", tuple(i.ir for i in inputs), (unwrap(gradient),)))
    np.testing.assert_allclose(evaluate(graph, {"x": x, "w": w})[0], expected.detach().numpy(), rtol=1e-9, atol=1e-11)


def test_compiled_gradients_of_a_strided_grouped_convolution() -> None:
    x, w = wave((3, 4, 9, 8), 1.7).astype(np.float32), wave((6, 2, 3, 3), 0.9).astype(np.float32)
    inputs = [gc.input("x", x.shape), gc.input("w", w.shape)]
    results = []
    for options in ({"stride": 2, "padding": 1, "groups": 2}, {"stride": 2, "dilation": 3, "padding": 3, "groups": 2}):
        y = gc.conv2d(*inputs, **options)
        results += [y, *gc.grad(gc.sum(gc.sin(y)), inputs)]
    program = gc.compile(inputs, results, cache=False)
    for mine, oracle in zip(program(x, w), evaluate(expand_derivatives(program.graph), {"x": x, "w": w}), strict=True):
        np.testing.assert_allclose(mine, oracle, rtol=1e-4, atol=1e-5)
