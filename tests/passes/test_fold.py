"""Constant folding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graphc.ir.text import parse
from graphc.passes.fold import Fold


def constants(lines: str, result: str) -> str:
    return f"graph g(%x: f32[N]) -> {result} {{\n{lines}\n}}"


def test_constants_are_computed_in_their_own_dtype() -> None:
    before = constants(
        """%a = constant(value=f32 16777216.0)
           %b = constant(value=f32 1.0)
           %c = add(%a, %b)
           %i = constant(value=i32[2] [2147483647, 1])
           %j = constant(value=i32[2] [1, 2])
           %k = add(%i, %j)
           return %c, %k""",
        "(f32[], i32[2])",
    )
    graph = parse(before)
    result = Fold()(graph)
    float_node, integer_node = result.graph.nodes
    assert float_node.attributes["value"].array == np.float32(16777216.0)  # 16777217 in float64
    np.testing.assert_array_equal(integer_node.attributes["value"].array, np.array([-(2**31), 3], np.int32))
    assert [r.rule for r in result.rewrites] == ["fold", "fold"]
    assert result.rewrites[0].before == "add(1.6777216e+07, 1.0)"


def test_chains_fold_to_one_constant(rewrites_to: Callable) -> None:
    rewrites_to(
        Fold(),
        constants(
            """%a = constant(value=f32[3] [1, 2, 3])
               %b = exp(%a)
               %c = reshape(%b, shape=[3,1])
               %d = matmul(%c, %c, transpose_b=true)
               %e = sum(%d, axes=[0,1])
               %f = sub(%e, %e)
               %n = broadcast_to(%f, shape=[N])
               %r = add(%x, %n)
               return %r""",
            "f32[N]",
        ),
        constants(
            "%f = constant(value=f32 0.0)\n%n = broadcast_to(%f, shape=[N])\n%r = add(%x, %n)\nreturn %r", "f32[N]"
        ),
    )


def test_repeated_numbers_fold_at_any_size() -> None:
    graph = parse(
        constants(
            """%a = constant(value=i32 3)
               %b = broadcast_to(%a, shape=[N,1000,1000])
               %c = mul(%b, %b)
               %d = lt(%c, %b)
               return %c, %d""",
            "(i32[N,1000,1000], bool[N,1000,1000])",
        )
    )
    after = Fold()(graph).graph
    assert [n.op.name for n in after.nodes] == ["constant", "broadcast_to"] * 2
    assert [n.attributes["value"].array.item() for n in after.nodes[::2]] == [9, False]


def test_bound_sizes_fold_and_runtime_sizes_stay(rewrites_to: Callable) -> None:
    symbolic = constants("%s = size(dim=N)\n%f = cast(%s, dtype=f32)\nreturn %f", "f32[]")
    rewrites_to(Fold(), symbolic, symbolic)
    rewrites_to(
        Fold(), symbolic.replace("dim=N", "dim=12"), constants("%f = constant(value=f32 12)\nreturn %f", "f32[]")
    )


@pytest.mark.parametrize(("limit", "folds"), [(8, False), (9, True)])
def test_large_results_stay(limit: int, folds: bool) -> None:
    graph = parse(
        constants(
            "%a = constant(value=f32[3,1] [[1], [2], [3]])\n%b = matmul(%a, %a, transpose_b=true)\nreturn %b",
            "f32[3,3]",
        )
    )
    assert bool(Fold(limit)(graph).rewrites) == folds


def test_what_is_no_constant_stays(rewrites_to: Callable) -> None:
    for text in (
        constants("%b = exp(%x)\nreturn %b", "f32[N]"),
        constants("%a = constant(value=f32 3)\n%b = broadcast_to(%a, shape=[4])\nreturn %b", "f32[4]"),
        """graph g(%rng: i64[2]) -> f32[3] {
          %u = uniform(%rng, shape=[3], stream=1)
          return %u
        }""",
    ):
        rewrites_to(Fold(), text, text)


def test_special_values() -> None:
    graph = parse(
        constants(
            """%a = constant(value=f32[3] [0, -1, inf])
               %b = log(%a)
               %c = constant(value=f32 0)
               %d = div(%c, %c)
               return %b, %d""",
            "(f32[3], f32[])",
        )
    )
    first, second = (n.attributes["value"].array for n in Fold()(graph).graph.nodes)
    np.testing.assert_array_equal(first, np.array([-np.inf, np.nan, np.inf], np.float32))
    assert np.isnan(second)


def test_a_graph_with_gradients_to_come_is_left_alone() -> None:
    graph = parse(
        constants(
            "%a = constant(value=f32 3)\n%b = mul(%a, %a)\n%d = grad(%b, %a)\nreturn %d",
            "f32[]",
        )
    )
    assert Fold()(graph).graph is graph
