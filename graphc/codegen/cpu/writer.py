"""Indented Python source, and the identifiers in it."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Iterator
from contextlib import contextmanager

RESERVED = re.compile(r"^(tile|scalar|operand|load|store)_|^(f32|f64|i32|i64|extent|offset_ptr|inf|nan|args|threads?)$")


class Source:
    """Lines of Python source, written block by block."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._depth = 0

    def line(self, text: str) -> None:
        """Add one line at the current indentation."""
        self._lines.append("    " * self._depth + text if text else "")

    @contextmanager
    def block(self, header: str | None) -> Iterator[None]:
        """Indent what is written inside under `header`; None stands for no block at all."""
        if header is None:
            yield
            return
        self.line(header)
        self._depth += 1
        before = len(self._lines)
        yield
        if len(self._lines) == before:
            self.line("pass")
        self._depth -= 1

    @property
    def text(self) -> str:
        """All lines."""
        return "\n".join(self._lines) + "\n"


class Names:
    """Python identifiers for what a kernel calls its things; one thing keeps its identifier."""

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._known: dict[tuple[str, str], str] = {}

    def of(self, kind: str, name: str) -> str:
        """The identifier of the `kind` (operand, axis, value, count) called `name`."""
        if (kind, name) not in self._known:
            self._known[kind, name] = self.fresh(name)
        return self._known[kind, name]

    def rename(self, kind: str, name: str, identifier: str) -> None:
        """Let a thing stand under another identifier from here on."""
        self._known[kind, name] = identifier

    def fresh(self, hint: str) -> str:
        """A new identifier like `hint`."""
        base = re.sub(r"\W", "_", hint)
        if not base or base[0].isdigit() or RESERVED.match(base):  # a number at the end would not help those
            base = "_" + base
        if self._forbidden(base):
            base = "x_" + base
        candidate, number = base, 1
        while candidate in self._used:
            candidate, number = f"{base}_{number}", number + 1
        self._used.add(candidate)
        return candidate

    @staticmethod
    def _forbidden(name: str) -> bool:
        return keyword.iskeyword(name) or hasattr(builtins, name) or bool(RESERVED.match(name))
