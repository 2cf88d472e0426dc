"""Tokens of the kernel text, and the cursor that the parser reads them with."""

from __future__ import annotations

import re
from dataclasses import dataclass

from graphc.errors import ParseError

_PATTERN = re.compile(
    r"""(?P<space>\s+|\#[^\n]*)
      | (?P<number>(?:\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\d+)(?:f32|f64|i32|i64|u8)?\b)
      | (?P<name>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)
      | (?P<symbol>->|\.\.|<=|>=|==|!=|//|\+=|[-+*/%<>=()\[\]{},:])""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Token:
    """A token: its kind (number, name, symbol, end), text and offset in the source."""

    kind: str
    text: str
    offset: int


class Cursor:
    """Reads tokens one after the other. Raises ParseError with line, column and the line itself."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.tokens = self._tokens()
        self.position = 0

    def _tokens(self) -> list[Token]:
        found, offset = [], 0
        while offset < len(self.source):
            match = _PATTERN.match(self.source, offset)
            if match is None:
                raise self.error(f"{self.source[offset]!r} begins no token", offset)
            if match.lastgroup != "space":
                found.append(Token(str(match.lastgroup), match.group(), offset))
            offset = match.end()
        return [*found, Token("end", "", len(self.source))]

    @property
    def token(self) -> Token:
        """The token that is read next."""
        return self.tokens[self.position]

    def next(self) -> Token:
        """Read a token."""
        token = self.token
        self.position += token.kind != "end"
        return token

    def at(self, *texts: str) -> bool:
        """True if the next token is one of `texts`."""
        return self.token.kind in ("symbol", "name") and self.token.text in texts

    def follows(self, text: str) -> bool:
        """True if the token after the next one is `text`."""
        return self.position + 1 < len(self.tokens) and self.tokens[self.position + 1].text == text

    def accept(self, text: str) -> bool:
        """Read `text` if it is next."""
        found = self.at(text)
        self.position += found
        return found

    def expect(self, text: str) -> Token:
        """Read `text`."""
        if not self.at(text):
            raise self.expected(repr(text))
        return self.next()

    def name(self, what: str) -> str:
        """Read a name."""
        if self.token.kind != "name":
            raise self.expected(what)
        return self.next().text

    def integer(self) -> int:
        """Read an integer with its sign."""
        sign = -1 if self.accept("-") else 1
        if not self.token.text.isdigit():
            raise self.expected("an integer")
        return sign * int(self.next().text)

    def expected(self, what: str) -> ParseError:
        """The error that something else stands here."""
        found = repr(self.token.text) if self.token.kind != "end" else "the end of the text"
        return self.error(f"expected {what}, found {found}")

    def error(self, reason: str, offset: int | None = None) -> ParseError:
        """A ParseError at an offset (default: at the next token)."""
        where = self.token.offset if offset is None else offset
        start = self.source.rfind("\n", 0, where) + 1
        line, column = self.source.count("\n", 0, where) + 1, where - start + 1
        text = self.source[start:].split("\n", 1)[0]
        return ParseError(f"line {line}, column {column}: {reason}\n  {text}\n  {' ' * (column - 1)}^")
