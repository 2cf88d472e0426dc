"""Symbolic dimensions against plain integer arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc.errors import ShapeError
from graphc.ir.dims import Dim, as_dim, divide, evaluate, format_shape, parse_dim, product, substitute, symbol, symbols

N, M = symbol("N"), symbol("M")
SIZES = {"N": 7, "M": 3}


@st.composite
def dims(draw: st.DrawFn) -> Dim:
    total: Dim = draw(st.integers(-5, 5))
    for _ in range(draw(st.integers(0, 3))):
        term: Dim = draw(st.integers(-4, 4))
        for name in draw(st.lists(st.sampled_from("NM"), max_size=3)):
            term = term * symbol(name)
        total = total + term
    return total


@given(dims(), dims())
def test_arithmetic_is_that_of_integers(a: Dim, b: Dim) -> None:
    x, y = evaluate(a, SIZES), evaluate(b, SIZES)
    assert evaluate(a + b, SIZES) == x + y
    assert evaluate(a - b, SIZES) == x - y
    assert evaluate(a * b, SIZES) == x * y
    assert evaluate(-a, SIZES) == -x


@given(dims(), dims())
def test_equal_polynomials_are_equal_values(a: Dim, b: Dim) -> None:
    assert (a + b) * 2 == b * 2 + 2 * a
    assert a - a == 0 and isinstance(a - a, int)
    assert hash(a + b) == hash(b + a)


@given(dims())
def test_text_reads_back(a: Dim) -> None:
    assert parse_dim(str(a)) == a


@given(dims(), dims())
def test_divide_undoes_a_product_with_a_monomial(a: Dim, b: Dim) -> None:
    for monomial in (N, 3 * M, N * M, 2):
        assert divide(a * monomial, monomial) == a
    quotient = divide(a, b)
    assert quotient is None or quotient * b == a


def test_divide_refuses_what_does_not_divide() -> None:
    assert divide(N + 1, N) is None
    assert divide(3 * N, 2) is None
    assert divide(N + M, N + M) == 1
    assert divide(N, 0) is None
    assert divide(0, N) == 0


@given(dims())
def test_substitute_binds_named_symbols_only(a: Dim) -> None:
    bound = substitute(a, {"N": 7})
    assert symbols(bound) <= {"M"}
    assert evaluate(bound, {"M": 3}) == evaluate(a, SIZES)
    assert substitute(a, {"N": M, "M": N}) == substitute(
        substitute(substitute(a, {"N": symbol("t")}), {"M": N}), {"t": M}
    )


def test_text_is_readable() -> None:
    assert str(2 * N * M - N + 1) == "2*M*N-N+1"
    assert str(-1 * N) == "-N"
    assert format_shape((N, 784, 2 * M + 1)) == "[N,784,2*M+1]"
    assert format_shape(()) == "[]"
    assert product([N, 3, N]) == 3 * N * N and product([]) == 1


@pytest.mark.parametrize("text", ["", "N+", "2*", "N//2", "a b+*", "--N", "1.5", "²"])
def test_wrong_text_is_an_error(text: str) -> None:
    with pytest.raises(ShapeError):
        parse_dim(text)


def test_as_dim() -> None:
    assert as_dim("2*N + 1") == 2 * N + 1
    assert as_dim(N) is N
    assert as_dim(5) == 5
    with pytest.raises(ShapeError, match="negative"):
        as_dim(-1)
    with pytest.raises(ShapeError, match="not a dimension"):
        as_dim(2.5)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="not an identifier"):
        symbol("2N")


def test_an_unbound_symbol_is_named() -> None:
    with pytest.raises(ShapeError, match="'M' of 2\\*M\\+N has no size"):
        evaluate(2 * M + N, {"N": 2})
