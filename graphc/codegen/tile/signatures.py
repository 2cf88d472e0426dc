"""The types of kernel source, and the signatures of tile functions.

A *type* is that of a scalar, a pointer to elements, a tile (`graphc.codegen.tile.types`), or an integer literal, whose
value is part of the type. Calling a type with those of the arguments makes a signature: `F32(tile)` takes a tile and
gives a float32. Arguments are converted to the types of the signature.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class TypingError(Exception):
    """A call does not fit its function; the message names what is wrong, not where."""


class Type:
    """What a value of kernel source is."""

    def __call__(self, *arguments: Type) -> Signature:
        """The signature with this result."""
        return Signature(self, arguments)


@dataclass(frozen=True)
class Scalar(Type):
    """A number or truth value: `kind` is "f", "i" (signed), "u" or "b"; `none` has no bits."""

    name: str
    kind: str
    bits: int

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Pointer(Type):
    """The address of elements of a scalar type."""

    dtype: Scalar

    def __str__(self) -> str:
        return f"{self.dtype}*"


@dataclass(frozen=True)
class Literal(Type):
    """An integer written in the source; it converts to every number."""

    value: int

    def __str__(self) -> str:
        return f"literal {self.value}"


@dataclass(frozen=True)
class Signature:
    """The result's type, and those that the arguments are converted to."""

    result: Type
    arguments: tuple[Type, ...]


# `(signature, code)` of a call: code(builder, values) lays down LLVM instructions and gives the result.
Definition = tuple[Signature, Callable[..., Any]]

F32, F64 = Scalar("float32", "f", 32), Scalar("float64", "f", 64)
I32, I64 = Scalar("int32", "i", 32), Scalar("int64", "i", 64)
U8, MASK = Scalar("uint8", "u", 8), Scalar("bool", "b", 1)
NONE = Scalar("none", "", 0)


def without_literal(ty: Type) -> Type:
    """The type of a variable that holds such a value: an integer literal is an int64."""
    return I64 if isinstance(ty, Literal) else ty


def is_scalar(ty: Type) -> bool:
    """True for numbers and truth values."""
    return isinstance(ty, Literal) or (isinstance(ty, Scalar) and ty != NONE)
