"""Tokens and the places of errors."""

from __future__ import annotations

import pytest

from graphc.errors import ParseError
from graphc.kernel.lexer import Cursor


def test_tokens() -> None:
    cursor = Cursor("a.b += -0.5f64 .. 3i32 # comment\n 1e-05->//")
    texts = [token.text for token in cursor.tokens]
    assert texts == ["a.b", "+=", "-", "0.5f64", "..", "3i32", "1e-05", "->", "//", ""]
    assert [token.kind for token in cursor.tokens][:4] == ["name", "symbol", "symbol", "number"]


def test_bounds_need_no_spaces() -> None:
    assert [token.text for token in Cursor("0..5 N..M").tokens] == ["0", "..", "5", "N", "..", "M", ""]


def test_numbers_end_at_their_suffix() -> None:
    with pytest.raises(ParseError, match="line 1, column 1"):
        Cursor("3f16")


def test_errors_show_the_line() -> None:
    with pytest.raises(ParseError) as caught:
        Cursor("first\n  second ?")
    assert str(caught.value) == "line 2, column 10: '?' begins no token\n    second ?\n           ^"


def test_reading() -> None:
    cursor = Cursor("space n < -3")
    assert cursor.at("space") and cursor.follows("n") and cursor.accept("space") and not cursor.accept("space")
    assert cursor.name("an axis") == "n"
    with pytest.raises(ParseError, match="expected '<=', found '<'"):
        cursor.expect("<=")
    cursor.expect("<")
    assert cursor.integer() == -3
    with pytest.raises(ParseError, match="column 13: expected an integer, found the end of the text"):
        cursor.integer()
