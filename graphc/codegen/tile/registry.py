"""The functions and operators of kernel source.

A *definition* takes the types of the arguments (integer literals as literal types) and returns `(signature, code)`, or
raises `TypingError`; `code(builder, values)` lays down LLVM instructions for arguments of the signature's types and
gives the result: an LLVM value, for a tile the list of its vectors. Whatever the code depends on must be told by the
argument types. A definition of an operator returns None for types that are not its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from graphc.codegen.tile.signatures import Definition, Type, TypingError

OPERATORS: dict[Callable[..., Any], Callable[..., Definition | None]] = {}  # by the function of Python's `operator`


class TileFunction:
    """A name of the kernel vocabulary; it can be called in kernel source only."""

    def __init__(self, definition: Callable[..., Definition]) -> None:
        self.__name__ = definition.__name__
        self.__doc__ = definition.__doc__
        self._definition = definition
        parameters = inspect.signature(definition).parameters.values()
        self._most = len(parameters)
        self._least = sum(p.default is inspect.Parameter.empty for p in parameters)

    def __call__(self, *args: Any) -> Any:
        """Kernel source is compiled, never run by Python."""
        raise TypeError(f"{self.__name__} can be called in kernel source only")

    def typed(self, *arguments: Type) -> Definition:
        """The signature and the code for arguments of these types. Raises TypingError."""
        if not self._least <= len(arguments) <= self._most:
            takes = f"{self._least} to {self._most}" if self._least < self._most else str(self._most)
            raise TypingError(f"{self.__name__} takes {takes} arguments, not {len(arguments)}")
        return self._definition(*arguments)

    def __repr__(self) -> str:
        return f"<tile function {self.__name__}>"


def tile_function(definition: Callable[..., Definition]) -> TileFunction:
    """Decorate the definition of a function of the kernel vocabulary."""
    return TileFunction(definition)


def tile_operator(operator: Callable[..., Any], definition: Callable[..., Definition | None]) -> None:
    """Define a Python operator on tiles; `definition` returns None for types that are not its own."""
    OPERATORS[operator] = definition
