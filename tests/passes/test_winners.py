"""Derivatives below a max pooling are computed for the winners only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.dsl.collect import collect
from graphc.ir.graph import Graph
from graphc.passes.manager import run
from graphc.passes.pipeline import default_pipeline
from graphc.passes.winners import Winners

WINDOW = "kernel=[2,2], stride=[2,2], padding=[0,0], dilation=[1,1]"


def test_the_mask_of_a_relu_moves_to_the_pooled_values(rewrites_to: Callable) -> None:
    rewrites_to(
        Winners(),
        f"""graph g(%y: f32[N,4,6], %g: f32[N,2,3]) -> (f32[N,2,3], f32[N,4,6]) {{
          %p, %t = max_pool(%y, shape=[N,2,3], {WINDOW})
          %u = max_unpool(%g, %t, shape=[N,4,6], {WINDOW})
          %0 = constant(value=f32 0.0)
          %z = broadcast_to(%0, shape=[N,4,6])
          %m = le(%y, %z)
          %d = where(%m, %z, %u)
          return %p, %d
        }}""",
        f"""graph g(%y: f32[N,4,6], %g: f32[N,2,3]) -> (f32[N,2,3], f32[N,4,6]) {{
          %p, %t = max_pool(%y, shape=[N,2,3], {WINDOW})
          %0 = constant(value=f32 0.0)
          %1 = broadcast_to(%0, shape=[N,2,3])
          %m = le(%p, %1)
          %2 = constant(value=f32 0.0)
          %z = broadcast_to(%2, shape=[N,2,3])
          %d = where(%m, %z, %g)
          %u = max_unpool(%d, %t, shape=[N,4,6], {WINDOW})
          return %p, %u
        }}""",
    )


def test_sums_over_whole_windows_read_the_winners_alone(rewrites_to: Callable) -> None:
    rewrites_to(
        Winners(),
        f"""graph g(%y: f32[N,4,6], %g: f32[N,2,3]) -> (f32[6], f32[N]) {{
          %p, %t = max_pool(%y, shape=[N,2,3], {WINDOW})
          %u = max_unpool(%g, %t, shape=[N,4,6], {WINDOW})
          %a = sum(%u, axes=[0,1])
          %b = sum(%u, axes=[1,2])
          return %a, %b
        }}""",
        f"""graph g(%y: f32[N,4,6], %g: f32[N,2,3]) -> (f32[6], f32[N]) {{
          %p, %t = max_pool(%y, shape=[N,2,3], {WINDOW})
          %u = max_unpool(%g, %t, shape=[N,4,6], {WINDOW})
          %a = sum(%u, axes=[0,1])
          %b = sum(%g, axes=[1,2])
          return %a, %b
        }}""",
    )


@pytest.mark.parametrize("window", [{"kernel_size": 2}, {"kernel_size": 3, "stride": 2, "padding": 1}])
def test_bias_gradients_below_a_pooling(window: dict[str, Any]) -> None:
    x, b = gc.input("x", (3, 2, 7, 7)), gc.param("b", (2,))
    y = gc.relu(x + gc.reshape(b, (2, 1, 1)))
    wanted = gc.grad(gc.sum(gc.square(gc.max_pool2d(y, **window))), b)
    array = np.random.default_rng(0).integers(-3, 4, (3, 2, 7, 7)).astype("f4") / 2
    found, plain = (gc.compile([x], [wanted], without=w) for w in ((), ("winners",)))
    np.testing.assert_allclose(found(array)[0], plain(array)[0], rtol=1e-6)
    assert not any("unpool" in name for name in found.kernels) and any("unpool" in name for name in plain.kernels)


def gradient_of(activation: Callable[[Any], Any], **window: Any) -> tuple[Any, Graph]:
    """The gradient by x of a loss of pooled activations, and the graph that computes it."""
    x = gc.input("x", (3, 2, 7, 7))
    loss = gc.sum(gc.square(gc.max_pool2d(activation(x), **window)))
    wanted = gc.grad(loss, x)
    graph, stages = run(collect([x], [wanted], {}).graph, default_pipeline({}), verify=True)
    moved = next(stage for stage in stages if stage.name == "winners")
    return (x, wanted, bool(moved.rewrites)), graph


@pytest.mark.parametrize("window", [{"kernel_size": 2}, {"kernel_size": 3, "stride": 2, "padding": 1}])
@pytest.mark.parametrize(
    ("activation", "moves"), [(gc.relu, True), (gc.tanh, True), (gc.sigmoid, True), (gc.exp, False), (gc.elu, False)]
)
def test_gradients_stay(activation: Callable[[Any], Any], moves: bool, window: dict[str, Any]) -> None:
    (x, wanted, moved), _ = gradient_of(activation, **window)
    assert moved == moves
    array = np.random.default_rng(0).integers(-3, 4, (3, 2, 7, 7)).astype("f4") / 2  # with ties and zeros
    found, plain = (gc.compile([x], [wanted], without=w)(array)[0] for w in ((), ("winners",)))
    np.testing.assert_allclose(found, plain, rtol=1e-6, atol=1e-7)


def test_the_unpooled_gradient_that_is_a_result_stays() -> None:
    x = gc.input("x", (2, 4))
    y = gc.relu(x)
    loss = gc.sum(gc.square(gc.max_pool1d(y, 2)))
    graph, stages = run(collect([x], list(gc.grad(loss, [y, x])), {}).graph, default_pipeline({}), verify=True)
    assert not next(stage for stage in stages if stage.name == "winners").rewrites
