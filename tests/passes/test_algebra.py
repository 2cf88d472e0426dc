"""Products in a better order."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from graphc.ir.text import parse
from graphc.passes.algebra import RULES, Algebra
from graphc.passes.manager import PassResult

Check = Callable[..., PassResult]


def text(inputs: str, result: str, *lines: str) -> str:
    return f"graph g({inputs}) -> {result} {{\n" + "\n".join(f"  {line}" for line in lines) + "\n}"


def test_a_table_is_multiplied_before_its_rows_are_taken(rewrites_to: Check) -> None:
    inputs = "%table: f32[3,4], %words: i32[5,7], %w: f32[4,2]"
    rewrites_to(
        Algebra(),
        text(inputs, "f32[5,7,2]", "%0 = take(%table, %words, axis=0)", "%1 = broadcast_to(%w, shape=[5,4,2])",
             "%2 = matmul(%0, %1)", "return %2"),
        text(inputs, "f32[5,7,2]", "%0 = matmul(%table, %w)", "%1 = take(%0, %words, axis=0)", "return %1"),
    )  # fmt: skip


@pytest.mark.parametrize("flag", ["", ", transpose_b=true"])
def test_with_a_runtime_count_of_words(rewrites_to: Check, flag: str) -> None:
    inputs = "%table: f32[3,4], %words: i32[N], %w: f32[4,4]"
    result = rewrites_to(
        Algebra(),
        text(inputs, "f32[N,4]", "%0 = take(%table, %words, axis=0)", f"%1 = matmul(%0, %w{flag})", "return %1"),
        text(inputs, "f32[N,4]", f"%0 = matmul(%table, %w{flag})", "%1 = take(%0, %words, axis=0)", "return %1"),
    )
    assert [rewrite.rule for rewrite in result.rewrites] == ["product_before_rows"]


def test_rows_that_are_moved_are_taken_in_that_order(rewrites_to: Check) -> None:
    inputs = "%table: f32[3,4], %words: i32[N,7]"
    rewrites_to(
        Algebra(),
        text(inputs, "f32[7,N,4]", "%0 = take(%table, %words, axis=0)", "%1 = transpose(%0, permutation=[1,0,2])",
             "return %1"),
        text(inputs, "f32[7,N,4]", "%0 = transpose(%words, permutation=[1,0])", "%1 = take(%table, %0, axis=0)",
             "return %1"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("inputs", "result", "lines"),
    [
        # fewer words than rows, or as many
        ("%t: f32[3,4], %i: i32[3], %w: f32[4,2]", "f32[3,2]", "%0 = take(%t, %i, axis=0); %1 = matmul(%0, %w)"),
        ("%t: f32[M,4], %i: i32[2], %w: f32[4,2]", "f32[2,2]", "%0 = take(%t, %i, axis=0); %1 = matmul(%0, %w)"),
        # columns, a table of more axes, the rows on the other side, and a factor for each of the batch
        ("%t: f32[3,4], %i: i32[9], %w: f32[9,2]", "f32[3,2]", "%0 = take(%t, %i, axis=1); %1 = matmul(%0, %w)"),
        ("%t: f32[3,4,5], %i: i32[9], %w: f32[9,5,2]", "f32[9,4,2]",
         "%0 = take(%t, %i, axis=0); %1 = matmul(%0, %w)"),
        ("%t: f32[3,4], %i: i32[9], %w: f32[9,2]", "f32[4,2]",
         "%0 = take(%t, %i, axis=0); %1 = matmul(%0, %w, transpose_a=true)"),
        ("%t: f32[3,4], %i: i32[2,9], %w: f32[2,4,5]", "f32[2,9,5]",
         "%0 = take(%t, %i, axis=0); %1 = matmul(%0, %w)"),
        # the last axis moves
        ("%t: f32[3,4], %i: i32[9]", "f32[4,9]", "%0 = take(%t, %i, axis=0); %1 = transpose(%0, permutation=[1,0])"),
    ],
)  # fmt: skip
def test_where_nothing_is_won(inputs: str, result: str, lines: str) -> None:
    graph = parse(text(inputs, result, *(line.strip() for line in lines.split(";")), "return %1"))
    assert Algebra()(graph).graph is graph


def test_every_rule_says_why() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES) and all(rule.why for rule in RULES)
