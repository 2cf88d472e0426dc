"""Properties of kernel forms."""

from __future__ import annotations

import pytest

from graphc.kernel.form import Kernel, partial_axis
from graphc.kernel.text import parse_kernel


def kernel(signature: str, body: str) -> Kernel:
    return parse_kernel(f"kernel k{signature} {{ {body} }}")


def test_runtime_extents_are_found_everywhere() -> None:
    everywhere = kernel(
        "(x: f32[A]) -> (y: f32[9] init 0)",
        "space i < B, j in C .. 9 stage { reduce k < D s = sum(x[k+E]) let t = x[i64(s) in F .. G] + f32(extent(H*I))"
        " y[i+J] = t if extent(K) < 3 y[extent(L) in 0 .. M] = t }",
    )
    assert everywhere.runtime_extents == tuple("ABCDEFGHIJKLM")
    assert kernel("(x: f32[3]) -> ()", "").runtime_extents == ()


@pytest.mark.parametrize(
    ("body", "axis"),
    [
        ("space i < 3, j < 3 stage { y[j] += 1.0 }", "i"),
        ("space i < 3, j < 3 stage { space c < 3 y[i+j] += 1.0 }", "c"),
        ("space i < 3 stage { y[i] += 1.0 }", None),
        ("space i < 3 stage { y[t[i] in 0 .. 3] += 1.0 }", "i"),
    ],
)
def test_the_axis_that_partials_cut(body: str, axis: str | None) -> None:
    k = kernel("(t: i64[3]) -> (y: f32[3])", body)
    (stage,) = k.stages
    found = partial_axis(k, stage, stage.stores[0])
    assert (found and found.name) == axis


def test_maps() -> None:
    assert kernel("(x: f32[3]) -> (y: f32[3])", "space i < 3 stage { let a = x[2-i] y[i] = a }").is_map
    for body in (
        "space i < 3 stage { y[2-i] = x[i] }",
        "space i < 3 stage { y[i] = x[i] if i < 2 }",
        "space i < 3 stage { y[i] += x[i] }",
        "space i < 3 stage { reduce j < 1 s = sum(x[i]) y[i] = s }",
        "stage { space i < 3 y[i] = x[i] }",
        "space i < 3 stage { y[i] = x[i] } stage { }",
    ):
        assert not kernel("(x: f32[3]) -> (y: f32[3])", body).is_map
    assert not kernel("(x: f32[3]) -> (y: f32[5] init 0)", "space i < 3 stage { y[i] = x[i] }").is_map  # rows stay 0


def test_operands_by_role() -> None:
    k = kernel("(x: f32[3], inout w: f32[3]) -> (y: f32[3])", "space i < 3 stage { y[i] = x[i] + x[0] w[i] = w[i] }")
    assert [o.name for o in k.inputs] == ["x", "w"] and [o.name for o in k.outputs] == ["w", "y"]
    with pytest.raises(KeyError):
        k.operand("z")
