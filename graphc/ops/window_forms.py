"""Kernel forms of sums over windows: index maps solved for the elements of the result, padding as clipped bounds.

A kernel computes each element of its result at one point. Where an index of the result is compound, as `s*y + k - p` in
the gradient of a convolution, one of its axes is solved for: with `i` the position in the result, `y = i - k + p` if
s = 1, else `k = i + p - s*y`. What is left is a dense loop over the other axes. That the solved axis lies within its
size, and every other index within its tensor, are conditions `f >= 0` with f affine; each bounds the innermost of its
reduce axes, by an affine function of the outer axes, or by a table over one outer axis where a division is needed
(strides, dilations). A condition that no reduce axis can bear is tested at each point, which is right, but slower.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from graphc.errors import CompileError
from graphc.ir.dims import Dim
from graphc.ir.graph import Node
from graphc.ir.types import i64
from graphc.kernel.expr import Affine, Apply, Computed, Const, Expr, Index, Name, as_expr, replace_axes
from graphc.kernel.form import Accumulate, Axis, Bound, Kernel, Stage, Store, Table
from graphc.ops import forms
from graphc.ops.index_maps import IndexMap, axes_of, extremes, is_not_negative, plain_axis


@dataclass
class Window:
    """Loops that reach every element of a result: its axes, where each point stores, and the sums at each point.

    `sizes` are those of all axes; `space` and `reduce` name axes in loop order, `store` is the index of the result,
    whose elements are not all reached if `partial`. `solved` gives axes that are affine functions of the others,
    `quotients` those that are such a function divided by a number. `conditions` hold affine functions that must not be
    negative and that no bound of a reduce axis stands for; `stored_if` those on which an element is stored at all.
    """

    sizes: dict[str, Dim]
    space: list[str] = field(default_factory=list)
    store: list[Affine] = field(default_factory=list)
    reduce: list[str] = field(default_factory=list)
    solved: dict[str, Affine] = field(default_factory=dict)
    quotients: dict[str, tuple[Affine, int]] = field(default_factory=dict)
    lower: dict[str, list[Bound]] = field(default_factory=dict)
    upper: dict[str, list[Bound]] = field(default_factory=dict)
    conditions: list[Affine] = field(default_factory=list)
    stored_if: list[Affine] = field(default_factory=list)
    partial: bool = False

    def axes(self, names: Sequence[str]) -> tuple[Axis, ...]:
        """Some axes as loops, with their bounds."""
        return tuple(
            Axis(name, _bounds(Affine(), self.lower, name), _bounds(Affine((), self.sizes[name]), self.upper, name))
            for name in names
        )

    def index(self, index: Affine, dim: Dim) -> Index:
        """An index into a dimension at a point; computed, and within the dimension, where no bounds keep it there."""
        affine = self.affine(index)
        whole, divisor = self.quotients.get(plain_axis(affine) or "", (affine, 1))
        sides = _sides(whole, dim * divisor)
        within = not any(side in self.conditions for side in sides)
        if within and not axes_of([whole]) & set(self.quotients):
            return whole if divisor == 1 else Computed(self.expr(affine), 0, dim)
        low = Apply("max", (self.expr(affine), Const(0, i64)))
        return Computed(Apply("min", (low, as_expr(Affine((), dim - 1)))), 0, dim)

    def indices(self, indices: IndexMap, shape: Sequence[Dim]) -> list[Index]:
        """Where a point is in a tensor of a shape."""
        return [self.index(index, dim) for index, dim in zip(indices, shape, strict=True)]

    def affine(self, index: Affine) -> Affine:
        """An index with the solved axes replaced."""
        return index.replace(self.solved)

    def expr(self, affine: Affine) -> Expr:
        """An index as an expression."""
        parts: dict[str, Index] = {
            name: Computed(_floordiv(as_expr(whole), divisor), 0, self.sizes[name])
            for name, (whole, divisor) in self.quotients.items()
        }
        return replace_axes(as_expr(affine), parts)

    def tests(self, conditions: Sequence[Affine]) -> list[Expr]:
        """Truth values: that functions are not negative."""
        return [Apply("ge", (self.expr(f), Const(0, i64))) for f in conditions]

    def held(self) -> Expr | None:
        """Whether a point counts, or None if all do."""
        tests = self.tests(self.conditions)
        for whole, divisor in self.quotients.values():
            tests.append(Apply("eq", (as_expr(whole), _times(_floordiv(as_expr(whole), divisor), divisor))))
        return conjunction(tests)


def conjunction(tests: Sequence[Expr]) -> Expr | None:
    """All of some truth values, or None for none."""
    total: Expr | None = None
    for test in tests:
        total = test if total is None else Apply("and", (total, test))
    return total


def _floordiv(expr: Expr, divisor: int) -> Expr:
    return Apply("floordiv", (expr, Const(divisor, i64)))


def _times(expr: Expr, factor: int) -> Expr:
    return Apply("mul", (expr, Const(factor, i64)))


def solve(result: IndexMap, shape: Sequence[Dim], read: Sequence[tuple[IndexMap, Sequence[Dim]]],
          sizes: Mapping[str, Dim]) -> Window:  # fmt: skip
    """The loops of `result[...] += ...` for an index map of the result and those of the tensors that are read.

    `sizes` gives the extent of every axis of the maps, in the order in which reduce axes are nested.
    """
    window = Window(dict(sizes))
    kept = _kept(result, shape, sizes)
    walked = axes_of(result[k] for k in kept)
    for k, (index, dim) in enumerate(zip(result, shape, strict=True)):
        if k in kept:
            window.space += [name for name, _ in sorted(index.terms, key=lambda term: -term[1])]
            window.store.append(index)
        else:
            _solve_one(window, k, index, dim, walked, axes_of(result[:k] + result[k + 1 :]))
    taken = set(window.space) | set(window.solved) | set(window.quotients)
    window.reduce = [name for name in sizes if name not in taken]
    for f in _conditions(window, read):
        holds = not axes_of([f]) & set(window.quotients) and is_not_negative(extremes(f, window.sizes)[0])
        if not holds and not _clip(window, f, window.reduce):
            window.conditions.append(f)
    return window


def _kept(result: IndexMap, shape: Sequence[Dim], sizes: Mapping[str, Dim]) -> set[int]:
    """Positions whose index walks through its dimension once: one axis, or several that are digits of a number."""
    kept: set[int] = set()
    for k, (index, dim) in enumerate(zip(result, shape, strict=True)):
        is_plain = plain_axis(index) is not None
        others = axes_of(result[j] for j in range(len(result)) if j != k and (j in kept or not is_plain))
        reach: Dim = 1
        for name, coefficient in sorted(index.terms, key=lambda term: term[1]):
            reach = reach * sizes[name] if coefficient == reach and name not in others else 0
        if index.const == 0 and reach == dim:
            kept.add(k)
    return kept


def _solve_one(window: Window, k: int, index: Affine, dim: Dim, walked: set[str], others: set[str]) -> None:
    """Make a compound index of the result an axis, by solving for one of the axes in it.

    `walked` are the axes that indices walk through by themselves, `others` those of all other indices of the result.
    """
    index = window.affine(index)
    free = [t for t in index.terms if t[0] not in walked and t[0] not in window.space]
    name, coefficient = min(free, key=lambda t: (abs(t[1]) != 1, _rank(window.sizes[t[0]])), default=("", 0))
    if len(free) == 0 or (len(free) == 1 and abs(coefficient) != 1):  # a diagonal, a constant, every second element
        window.space += [name] if free else []
        window.store.append(index)
        window.partial = True
        sides = [f for f in _sides(index, dim) if not is_not_negative(extremes(f, window.sizes)[0])]
        for f in sides:
            if not free or not axes_of([f]) <= set(window.space) or not _clip(window, f, [name]):
                window.stored_if.append(f)
        return
    if name in window.quotients or (abs(coefficient) != 1 and name in others):
        raise CompileError("the axes of the result's index maps cannot be told from its elements one after the other")
    own = f"i{k}"
    while own in window.sizes:
        own += "_"
    window.sizes[own] = dim
    window.space.append(own)
    window.store.append(Affine.axis(own))
    rest = Affine(tuple(t for t in index.terms if t[0] != name), index.const)
    whole = (Affine.axis(own) + rest.scale(-1)).scale(1 if coefficient > 0 else -1)
    if abs(coefficient) > 1:
        window.quotients[name] = whole, abs(coefficient)
        return
    window.solved = {a: f.replace({name: whole}) for a, f in window.solved.items()} | {name: whole}
    window.quotients = {a: (f.replace({name: whole}), c) for a, (f, c) in window.quotients.items()}


def _rank(size: Dim) -> int:
    return -size if isinstance(size, int) else -(1 << 62)  # long axes are solved for, short ones stay loops


def _sides(index: Affine, dim: Dim) -> tuple[Affine, Affine]:
    """Functions that are not negative where an index lies in its dimension."""
    return index, index.scale(-1) + Affine((), dim - 1)


def _conditions(window: Window, read: Sequence[tuple[IndexMap, Sequence[Dim]]]) -> list[Affine]:
    """What must not be negative: for every index that is read, and every axis that is solved for, its two sides.

    `0 <= whole // divisor < size` is `0 <= whole < divisor * size`.
    """
    indices = [(i, d) for indices, dims in read for i, d in zip(indices, dims, strict=True)]
    indices += [(Affine.axis(name), window.sizes[name]) for name in (*window.solved, *window.quotients)]
    found: dict[Affine, None] = {}
    for index, dim in indices:
        affine = window.affine(index)
        whole, divisor = window.quotients.get(plain_axis(affine) or "", (affine, 1))
        found.update(dict.fromkeys(_sides(whole, dim * divisor)))
    return list(found)


def window_kernel(node: Node, window: Window, value: Expr) -> Kernel:
    """The kernel that sums `value` over a window's reduce axes for each element of the result of `node`."""
    summed = bool(window.reduce)
    store = Store("out0", tuple(window.store), Name("acc") if summed else value)
    stage = Stage(
        reduce=window.axes(window.reduce),
        accumulates=(Accumulate(("acc",), "sum", (value,)),) if summed else (),
        stores=(replace(store, guard=conjunction(window.tests(window.stored_if))),),
    )
    operands = forms.operands(node)
    if window.partial:
        operands = tuple(replace(o, init=0.0) if o.role == "out" else o for o in operands)
    return Kernel(forms.kernel_name(node), operands, window.axes(window.space), (stage,))


# ---- bounds ---------------------------------------------------------------------------------------------------------


def _clip(window: Window, f: Affine, axes: Sequence[str]) -> bool:
    """Bound the innermost of `axes` in `f >= 0`; False if there is none, or no bound says it."""
    inside = [name for name in axes if name in f.coefficients]
    if not inside or axes_of([f]) & set(window.quotients):
        return False
    axis = inside[-1]
    coefficient = f.coefficients[axis]
    rest = Affine(tuple(t for t in f.terms if t[0] != axis), f.const)
    # c*axis + rest >= 0: axis >= ceil(-rest / c) for c > 0, axis <= floor(rest / -c) for c < 0
    divided = _floor_over(rest, abs(coefficient), window.sizes)
    if divided is None:
        return False
    side, size = (window.lower, window.sizes[axis]) if coefficient > 0 else (window.upper, window.sizes[axis])
    bound = _changed(divided, -1, 0) if coefficient > 0 else _changed(divided, 1, 1)
    if isinstance(bound, Table) and isinstance(size, int):  # the axis's own bound is in the table then
        limit = max if coefficient > 0 else min
        bound = Table(bound.axis, tuple(limit(value, 0 if coefficient > 0 else size) for value in bound.values))
    side.setdefault(axis, []).append(bound)
    return True


def _floor_over(affine: Affine, divisor: int, sizes: Mapping[str, Dim]) -> Bound | None:
    """floor(affine / divisor): affine if every coefficient divides, a table over its one fixed axis, or None."""
    const = affine.const
    if divisor == 1:
        return affine
    if not isinstance(const, int):
        return None
    if all(c % divisor == 0 for _, c in affine.terms):
        return Affine(tuple((name, c // divisor) for name, c in affine.terms), const // divisor)
    if len(affine.terms) != 1:
        return None
    ((name, coefficient),) = affine.terms
    size = sizes[name]
    if not isinstance(size, int):
        return None
    return Table(name, tuple((coefficient * value + const) // divisor for value in range(size)))


def _changed(bound: Bound, factor: int, plus: int) -> Bound:
    """factor * bound + plus."""
    if isinstance(bound, Table):
        return Table(bound.axis, tuple(factor * value + plus for value in bound.values))
    return bound.scale(factor) + plus


def _bounds(own: Affine, found: Mapping[str, list[Bound]], name: str) -> tuple[Bound, ...]:
    """The bounds of an axis: its own, unless a table holds it already, and those found."""
    others = found.get(name, [])
    held = isinstance(own.const, int) and any(isinstance(b, Table) for b in others)
    return (*others,) if held else (own, *others)
