"""Symbolic dimensions: integers, or polynomials with integer coefficients over named symbols.

A shape may hold `N` or `2*N + 1` while a graph is declared and differentiated; FLOP and byte
counts are polynomials of the same kind. Constants are always plain `int`, so that
`Dim = int | Poly` and `==` means equality of polynomials.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, cast

from graphc.errors import ShapeError

Monomial: TypeAlias = tuple[str, ...]  # sorted symbol names, repeated for powers; () is the constant


@dataclass(frozen=True)
class Poly:
    """A polynomial: `terms` maps monomials to non-zero integer coefficients, sorted; never a constant."""

    terms: tuple[tuple[Monomial, int], ...]

    def __add__(self, other: Dim) -> Dim:
        return _from_terms([*self.terms, *_terms(other)])

    def __mul__(self, other: Dim) -> Dim:
        return _from_terms((tuple(sorted(a + b)), x * y) for a, x in self.terms for b, y in _terms(other))

    def __neg__(self) -> Dim:
        return self * -1

    def __sub__(self, other: Dim) -> Dim:
        return self + (-1 * other)

    def __rsub__(self, other: Dim) -> Dim:
        return (-self) + other

    __radd__ = __add__
    __rmul__ = __mul__

    def __str__(self) -> str:
        text = ""
        for monomial, coefficient in self.terms:
            sign = "-" if coefficient < 0 else ("+" if text else "")
            factors = [str(abs(coefficient))] if abs(coefficient) != 1 or not monomial else []
            text += sign + "*".join([*factors, *monomial])
        return text

    __repr__ = __str__


Dim: TypeAlias = int | Poly


def symbol(name: str) -> Poly:
    """The dimension symbol called `name`. Raises ShapeError if it is no identifier."""
    if not name.isidentifier():
        raise ShapeError(f"dimension symbol {name!r} is not an identifier; use a name such as 'N'")
    return Poly((((name,), 1),))


def as_dim(value: int | str | Poly) -> Dim:
    """A dimension from an int, a symbol name, an expression such as '2*N+1', or a dimension."""
    if isinstance(value, Poly):
        return value
    if isinstance(value, str):
        value = parse_dim(value)
        if isinstance(value, Poly):
            return value
    try:
        size = value.__index__()
    except AttributeError:
        raise ShapeError(f"{value!r} is not a dimension; use a non-negative int or a symbol name such as 'N'") from None
    if size < 0:
        raise ShapeError(f"a dimension cannot be negative, got {size}")
    return size


def parse_dim(text: str) -> Dim:
    """Read what `str(dim)` prints: sums of products of integers and symbols."""
    compact = text.replace(" ", "")
    terms = re.findall(r"[+-]?[^+-]+", compact)
    if not compact or "".join(terms) != compact or re.search(r"\w\s+\w", text):
        raise ShapeError(f"{text!r} is not a dimension")
    total: Dim = 0
    for term in terms:
        product: Dim = -1 if term[0] == "-" else 1
        for factor in term.lstrip("+-").split("*"):
            product = product * (int(factor) if factor.isdecimal() else symbol(factor))
        total = total + product
    return total


def symbols(dim: Dim) -> frozenset[str]:
    """Names of the symbols that `dim` depends on."""
    return frozenset(name for monomial, _ in _terms(dim) for name in monomial)


def evaluate(dim: Dim, sizes: Mapping[str, int]) -> int:
    """The value of `dim` with every symbol bound by `sizes`. Raises ShapeError for an unbound symbol."""
    total = 0
    for monomial, coefficient in _terms(dim):
        for name in monomial:
            if name not in sizes:
                raise ShapeError(f"dimension {name!r} of {dim} has no size; give it in dims={{{name!r}: ...}}")
            coefficient *= sizes[name]
        total += coefficient
    return total


def substitute(dim: Dim, sizes: Mapping[str, Dim]) -> Dim:
    """`dim` with the symbols named in `sizes` replaced; others stay."""
    total: Dim = 0
    for monomial, coefficient in _terms(dim):
        product: Dim = coefficient
        for name in monomial:
            product = product * sizes.get(name, symbol(name))
        total = total + product
    return total


def divide(dim: Dim, divisor: Dim) -> Dim | None:
    """`dim / divisor` when it divides exactly by a monomial or an integer, else None."""
    divisor_terms = _terms(divisor)
    if len(divisor_terms) != 1:
        return 1 if dim == divisor and divisor_terms else None
    (name_part, scale), quotient = divisor_terms[0], []
    for monomial, coefficient in _terms(dim):
        left = list(monomial)
        for name in name_part:
            if name not in left:
                return None
            left.remove(name)
        if coefficient % scale:
            return None
        quotient.append((tuple(left), coefficient // scale))
    return _from_terms(quotient)


def product(dims: Iterable[Dim]) -> Dim:
    """The product of dimensions; 1 for none."""
    total: Dim = 1
    for dim in dims:
        total = total * dim
    return total


def _terms(dim: Dim) -> tuple[tuple[Monomial, int], ...]:
    if isinstance(dim, Poly):
        return dim.terms
    return (((), int(dim)),) if dim else ()


def _from_terms(terms: Iterable[tuple[Monomial, int]]) -> Dim:
    merged: dict[Monomial, int] = {}
    for monomial, coefficient in terms:
        merged[monomial] = merged.get(monomial, 0) + coefficient
    left = {m: c for m, c in merged.items() if c}
    if set(left) <= {()}:
        return left.get((), 0)
    return Poly(tuple(sorted(left.items(), key=lambda item: (-len(item[0]), item[0]))))


def format_shape(shape: tuple[Dim, ...]) -> str:
    """`[N,784]`, as shapes are written in graphs, kernels and error messages."""
    return "[" + ",".join(str(cast(object, d)) for d in shape) + "]"
