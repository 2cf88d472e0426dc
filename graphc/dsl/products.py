"""Products of tensors summed over named axes: einsum, dot, tensordot, outer and trace."""

from __future__ import annotations

import operator
import string
from collections.abc import Sequence

from graphc.dsl.declare import (
    Operand,
    apply,
    as_value,
    broadcast_to,
    elementwise,
    matmul,
    promote,
    reduce,
    reshape,
    transpose,
)
from graphc.dsl.origin import here
from graphc.dsl.shaping import diagonal
from graphc.errors import AttributeValueError, ShapeError
from graphc.ir.builder import broadcast_shapes, explain
from graphc.ir.dims import Dim
from graphc.ir.graph import Value


def einsum(equation: str, *operands: Operand) -> Value:
    """The sum of products over named axes: `einsum("bij,bjk->bik", x, y)`, as in NumPy.

    Axes that the result does not name are summed; without `->` it names those that occur once, in alphabetic order.
    `...` stands for leading axes, which broadcast; a letter twice in one operand is its diagonal, along axes of known
    size. Several operands are contracted from the left to the right. Raises AttributeValueError for an equation that
    does not fit the operands, ShapeError for sizes that differ.
    """
    if not isinstance(equation, str):
        raise AttributeValueError(f"einsum takes an equation such as 'ij,jk->ik' first, got {type(equation).__name__}")
    values = promote("einsum", _with_a_value(operands))
    terms, result = _terms(equation, values)
    values, terms, result = _dots_named(equation, values, terms, result)
    singles = [_diagonals(value, term) for value, term in zip(values, terms, strict=True)]
    _check_sizes(equation, singles)
    value, term = singles[0]
    for k, (other, other_term) in enumerate(singles[1:], start=2):
        needed = result + "".join(terms[k:])
        value, term = _pair(value, term, other, other_term, needed)
    value, term = _summed(value, term, result)
    return transpose(value, [term.index(label) for label in result])


def _with_a_value(operands: Sequence[Operand]) -> list[Operand]:
    given = list(operands)
    if given and not any(isinstance(operand, Value) for operand in given):
        given[0] = as_value(given[0])
    return given


def _bad(equation: str, values: Sequence[Value], reason: str) -> AttributeValueError:
    return AttributeValueError(explain("einsum", [v.type for v in values], f"{equation!r}: {reason}", here()))


def _terms(equation: str, values: Sequence[Value]) -> tuple[list[str], str]:
    """The labels of each operand and of the result."""
    left, arrow, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    letters = (left + result).replace("...", "").replace(",", "")
    readable = not letters or (letters.isascii() and letters.isalpha())
    if not readable or any(t.count("...") > 1 for t in [*terms, result]):
        raise _bad(equation, values, "write a letter for each axis, such as 'ij,jk->ik'; '...' stands for leading axes")
    if len(terms) != len(values):
        raise _bad(equation, values, f"it names {len(terms)} operands, {len(values)} are given")
    if not arrow:
        once = sorted(label for label in set(letters) if letters.count(label) == 1)
        result = ("..." if "..." in left else "") + "".join(once)
    names = result.replace("...", "")
    if len(set(names)) != len(names) or not set(names) <= set(left):
        raise _bad(equation, values, f"the result {result!r} names an axis twice, or one that no operand has")
    return terms, result


def _dots_named(
    equation: str, values: Sequence[Value], terms: Sequence[str], result: str
) -> tuple[list[Value], list[str], str]:
    """Letters for the axes that `...` stands for, those of all operands aligned at the right and broadcast."""
    counts = []
    for value, term in zip(values, terms, strict=True):
        count = value.type.rank - len(term.replace("...", ""))
        if count < 0 or (count and "..." not in term):
            raise _bad(equation, values, f"the operand {value.type} has not as many axes as {term!r}")
        counts.append(count)
    free = [c for c in string.ascii_letters if c not in "".join(terms)]
    names = "".join(free[: max(counts)])
    leads = []
    for value, term, count in zip(values, terms, counts, strict=True):
        place = term.find("...")
        leads.append(value.type.shape[place : place + count] if count else ())
    try:
        common = broadcast_shapes(leads)
    except ShapeError as error:
        raise ShapeError(explain("einsum", [v.type for v in values], f"{equation!r}: {error}", here())) from None
    wide, named = [], []
    for value, term, count in zip(values, terms, counts, strict=True):
        place, shape = max(term.find("..."), 0), value.type.shape
        target = (*shape[:place], *common[len(common) - count :], *shape[place + count :])
        wide.append(broadcast_to(value, target))
        named.append(term.replace("...", names[len(names) - count :]))
    return wide, named, result.replace("...", names)


def _diagonals(value: Value, term: str) -> tuple[Value, str]:
    """The diagonal along axes that a term names twice; it becomes the last axis."""
    for label in dict.fromkeys(term):
        while term.count(label) > 1:
            first, second = term.index(label), term.rindex(label)
            value = diagonal(value, 0, first, second)
            term = "".join(c for k, c in enumerate(term) if k not in (first, second)) + label
    return value, term


def _check_sizes(equation: str, singles: Sequence[tuple[Value, str]]) -> None:
    sizes: dict[str, Dim] = {}
    for value, term in singles:
        for label, dim in zip(term, value.type.shape, strict=True):
            if sizes.setdefault(label, dim) != dim:
                reason = f"{equation!r}: axis {label!r} has size {sizes[label]} in one operand and {dim} in another"
                raise ShapeError(explain("einsum", [v.type for v, _ in singles], reason, here()))


def _summed(value: Value, term: str, needed: str) -> tuple[Value, str]:
    """The sum over axes that are not needed."""
    axes = [k for k, label in enumerate(term) if label not in needed]
    return reduce("sum", value, axes, False) if axes else value, "".join(c for c in term if c in needed)


def _pair(a: Value, first: str, b: Value, second: str, needed: str) -> tuple[Value, str]:
    """The contraction of two operands that keeps the axes which are needed."""
    a, first = _summed(a, first, second + needed)
    b, second = _summed(b, second, first + needed)
    batch = "".join(label for label in first if label in second and label in needed)
    rows = "".join(label for label in first if label not in second)
    columns = "".join(label for label in second if label not in first)
    inner = "".join(label for label in first if label in second and label not in needed)
    result = batch + rows + columns
    if len(rows) == len(columns) == len(inner) == 1:
        plain_a, turned_a = first == batch + rows + inner, first == batch + inner + rows
        plain_b, turned_b = second == batch + inner + columns, second == batch + columns + inner
        if (plain_a or turned_a) and (plain_b or turned_b):
            return apply("matmul", a, b, transpose_a=turned_a, transpose_b=turned_b), result
    return apply("einsum", a, b, equation=f"{first},{second}->{result}"), result


def dot(a: Operand, b: Operand) -> Value:
    """NumPy's dot: inner product of vectors, matrix product, or the last axis of a with the last but one of b."""
    x, y = promote("dot", _with_a_value((a, b)))
    if x.type.rank == 0 or y.type.rank == 0:
        return elementwise("mul", x, y)
    if x.type.rank <= 2 and y.type.rank <= 2:
        return matmul(x, y)
    return tensordot(x, y, ((x.type.rank - 1,), (max(y.type.rank - 2, 0),)))


def tensordot(a: Operand, b: Operand, axes: int | Sequence[int | Sequence[int]] = 2) -> Value:
    """The sum of products over the last `axes` axes of a and the first ones of b, or over the pairs of axes given."""
    x, y = promote("tensordot", _with_a_value((a, b)))
    if isinstance(axes, int):
        left, right = list(range(x.type.rank - axes, x.type.rank)), list(range(axes))
    else:
        left, right = ([p] if isinstance(p, int) else [operator.index(k) for k in p] for p in axes)
    bounds = ((left, x), (right, y))
    if len(left) != len(right) or any(not -v.type.rank <= k < v.type.rank for side, v in bounds for k in side):
        reason = f"axes {axes} do not name as many axes of both operands"
        raise ShapeError(explain("tensordot", [x.type, y.type], reason, here()))
    names = iter(string.ascii_letters)
    first = [next(names) for _ in range(x.type.rank)]
    second = [next(names) for _ in range(y.type.rank)]
    for i, j in zip(left, right, strict=True):
        second[j] = first[i]
    summed = {first[i] for i in left}
    result = [c for c in first if c not in summed] + [c for c in second if c not in summed]
    return einsum(f"{''.join(first)},{''.join(second)}->{''.join(result)}", x, y)


def outer(a: Operand, b: Operand) -> Value:
    """The products of every element of a with every element of b, both flattened: [m], [n] -> [m, n]."""
    x, y = promote("outer", _with_a_value((a, b)))
    return elementwise("mul", reshape(x, (-1, 1)), reshape(y, (1, -1)))


def trace(x: Operand, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Value:
    """The sum of the diagonal elements of two axes."""
    return reduce("sum", diagonal(x, offset, axis1, axis2), -1, False)
