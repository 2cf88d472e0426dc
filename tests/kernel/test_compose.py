"""Fusion on kernel forms: a composed kernel stores what its parts store when they run one after the other."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.errors import CompileError
from graphc.kernel.compose import (
    append_consumer,
    bind_kernel,
    inline_producer,
    keep_stores,
    reads_each_element_once,
    rename_axes,
    rename_operands,
    stage_of_value,
)
from graphc.kernel.interpret import run
from graphc.kernel.text import parse_kernel, print_kernel
from graphc.kernel.verify import verify

MATMUL = """kernel matmul(x: f32[N,4], w: f32[4,3]) -> (y: f32[N,3]) where N <= 8 {
  space i0 < N, i1 < 3
  stage {
    reduce r0 < 4
    acc: f32 = sum(x[i0, r0] * w[r0, i1])
    y[i0, i1] = acc
  }
}"""
ADD = """kernel add(y: f32[N,3], bb: f32[N,3]) -> (z: f32[N,3]) where N <= 8 {
  space i0 < N, i1 < 3
  stage {
    z[i0, i1] = y[i0, i1] + bb[i0, i1]
  }
}"""
BROADCAST = """kernel broadcast(b: f32[3]) -> (bb: f32[N,3]) where N <= 8 {
  space i0 < N, i1 < 3
  stage {
    bb[i0, i1] = b[i1]
  }
}"""
RELU = """kernel relu(z: f32[N,3]) -> (h: f32[N,3]) where N <= 8 {
  space i0 < N, i1 < 3
  stage {
    h[i0, i1] = max(z[i0, i1], 0.0f32)
  }
}"""
TRANSPOSE = """kernel transpose(v: f32[3,4]) -> (w: f32[4,3]) {
  space i0 < 4, i1 < 3
  stage {
    w[i0, i1] = v[i1, i0]
  }
}"""
FLIP = """kernel shifted(y: f32[N,3]) -> (z: f32[N,3]) where N <= 8 {
  space i0 < N, i1 < 3
  stage {
    z[i0, i1] = y[i0, 2-i1]
  }
}"""
SOFTMAX = """kernel softmax(z: f32[N,5]) -> (p: f32[N,5]) where N <= 8 {
  space n < N
  stage {
    reduce r < 5
    m: f32, s: f32 = logsumexp(z[n, r], 1.0f32)
  }
  stage {
    space c < 5
    p[n, c] = exp(z[n, c] - m) / s
  }
}"""


def data(rng: np.random.Generator, n: int = 5) -> dict[str, np.ndarray]:
    shapes = {"x": (n, 4), "w": (4, 3), "b": (3,), "v": (3, 4), "z": (n, 5)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def dense_layer() -> object:
    bias = inline_producer(parse_kernel(ADD), "bb", parse_kernel(BROADCAST))
    return append_consumer(append_consumer(parse_kernel(MATMUL), bias), parse_kernel(RELU))


def test_epilogues_of_a_contraction_equal_the_separate_kernels() -> None:
    arrays = data(np.random.default_rng(0))
    kernel = keep_stores(dense_layer(), ["h", "y"])  # type: ignore[arg-type]
    verify(kernel)
    got = run(kernel, {k: arrays[k] for k in ("x", "w", "b")}, {"N": 5})
    y = arrays["x"] @ arrays["w"]
    np.testing.assert_allclose(got["y"], y, rtol=1e-5)
    np.testing.assert_allclose(got["h"], np.maximum(y + arrays["b"], 0), rtol=1e-5, atol=1e-6)


def test_dropped_stores_leave_no_operand_and_no_let() -> None:
    kernel = keep_stores(dense_layer(), ["h"])  # type: ignore[arg-type]
    assert [o.name for o in kernel.operands] == ["x", "w", "b", "h"]
    (stage,) = kernel.stages
    assert not stage.lets and not stage.results and [s.operand for s in stage.stores] == ["h"]
    assert "max(acc + b[i1], 0.0)" in print_kernel(kernel)


ARGMAX = """kernel pool(x: f32[N,6]) -> (best: f32[N], tap: i64[N]) where N <= 8 {
  space n < N
  stage {
    reduce r < 6
    value: f32, index: i64 = argmax(x[n, r], r)
    best[n] = value
    tap[n] = index
  }
}"""


def test_an_index_that_nothing_uses_is_not_accumulated() -> None:
    pool = parse_kernel(ARGMAX)
    assert "value: f32, index: i64 = argmax(x[n, r], r)" in print_kernel(keep_stores(pool, ["best", "tap"]))
    assert "value: f32, index: i64 = argmax(x[n, r], r)" in print_kernel(keep_stores(pool, ["tap"]))
    kernel = keep_stores(pool, ["best"])
    verify(kernel)
    assert "value: f32 = max(x[n, r])" in print_kernel(kernel)
    x = np.array([[1, np.nan, 3, 0, 0, 0], [-np.inf] * 6], np.float32)
    np.testing.assert_array_equal(run(kernel, {"x": x})["best"], run(pool, {"x": x})["best"])


def test_producer_is_inlined_into_a_contraction() -> None:
    arrays = data(np.random.default_rng(1))
    kernel = inline_producer(parse_kernel(MATMUL), "w", parse_kernel(TRANSPOSE))
    verify(kernel)
    got = run(kernel, {"x": arrays["x"], "v": arrays["v"]}, {"N": 5})["y"]
    np.testing.assert_allclose(got, arrays["x"] @ arrays["v"].T, rtol=1e-5)


def test_consumer_joins_the_stage_that_stores_its_operand() -> None:
    double = parse_kernel(
        "kernel double(p: f32[N,5]) -> (q: f32[N,5]) where N <= 8 {\n  space i0 < N, i1 < 5\n"
        "  stage {\n    q[i0, i1] = p[i0, i1] + p[i0, i1]\n  }\n}"
    )
    arrays = data(np.random.default_rng(2))
    softmax = parse_kernel(SOFTMAX)
    assert stage_of_value(softmax, "p") == 1
    kernel = keep_stores(append_consumer(softmax, double), ["q"])
    verify(kernel)
    got = run(kernel, {"z": arrays["z"]}, {"N": 5})["q"]
    e = np.exp(arrays["z"] - arrays["z"].max(1, keepdims=True))
    np.testing.assert_allclose(got, 2 * e / e.sum(1, keepdims=True), rtol=1e-5)


def test_consumer_at_other_points_is_refused() -> None:
    with pytest.raises(CompileError, match="away from its own point"):
        append_consumer(parse_kernel(MATMUL), parse_kernel(FLIP))


def test_only_maps_are_inlined() -> None:
    with pytest.raises(CompileError, match="no plain map"):
        inline_producer(parse_kernel(ADD), "y", parse_kernel(MATMUL))


def test_renaming_an_output_to_an_input_makes_it_inout() -> None:
    kernel = rename_operands(parse_kernel(RELU), {"h": "z"})
    assert [(o.name, o.role) for o in kernel.operands] == [("z", "inout")]


def test_renamed_axes_mean_the_same() -> None:
    arrays = data(np.random.default_rng(3))
    kernel = rename_axes(parse_kernel(MATMUL), {"i0": "n", "i1": "o", "r0": "k"})
    verify(kernel)
    inputs = {k: arrays[k] for k in ("x", "w")}
    np.testing.assert_array_equal(run(kernel, inputs, {"N": 5})["y"], run(parse_kernel(MATMUL), inputs, {"N": 5})["y"])


def test_binding_extents_makes_a_kernel_static() -> None:
    kernel = bind_kernel(parse_kernel(MATMUL), {"N": 6}, {})
    verify(kernel)
    assert kernel.runtime_extents == () and kernel.operand("y").shape == (6, 3)


def test_reads_each_element_once() -> None:
    assert reads_each_element_once(parse_kernel(ADD), "bb")
    assert not reads_each_element_once(parse_kernel(MATMUL), "x")
    assert not reads_each_element_once(parse_kernel(SOFTMAX), "z")


TURN = """kernel turn(y: f32[2,N,3]) -> (t: f32[N,2,3]) where N <= 8 {
  space i0 < N, i1 < 2, i2 < 3
  stage {
    t[i0, i1, i2] = y[i1, i0, i2]
  }
}"""
BATCHED = """kernel product(x: f32[2,N,4], w: f32[4,3]) -> (y: f32[2,N,3]) where N <= 8 {
  space i0 < 2, i1 < N, i2 < 3
  stage {
    reduce r0 < 4
    acc: f32 = sum(x[i0, i1, r0] * w[r0, i2])
    y[i0, i1, i2] = acc
  }
}"""


def test_a_transposing_consumer_stores_in_its_own_order() -> None:
    kernel = append_consumer(parse_kernel(BATCHED), parse_kernel(TURN))
    verify(kernel)
    assert "t[i1, i0, i2] = acc" in print_kernel(kernel)
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 5, 4)).astype("f4"), rng.standard_normal((4, 3)).astype("f4")
    found = run(kernel, {"x": x, "w": w}, float64=True)
    np.testing.assert_array_equal(found["t"], found["y"].transpose(1, 0, 2))
    both = TURN.replace("y[i1, i0, i2]", "y[i1, i0, i2] + y[i1, i0, 2-i2]")
    with pytest.raises(CompileError, match="away from its own point"):
        append_consumer(parse_kernel(BATCHED), parse_kernel(both))
