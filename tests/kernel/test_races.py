"""Kernels that the race rules accept give the same result in whatever order their points run, by the plainest loops.

The plain loops are at the same time a second opinion on the interpreter, which evaluates many points at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from graphc.errors import VerifyError
from graphc.ir.dims import evaluate
from graphc.ir.types import i64
from graphc.kernel.expr import Affine, Apply, AxisIndex, Const, Expr, Load, Name
from graphc.kernel.form import Accumulate, Axis, Kernel, Operand, Stage, Store, Table
from graphc.kernel.interpret import run
from graphc.kernel.primitives import PRIMITIVES
from graphc.kernel.races import race_reasons
from graphc.kernel.verify import verify

Point = dict[str, int]


def loops(axes: Sequence[Axis], outer: Point) -> Iterator[Point]:
    """Nested loops."""
    if not axes:
        yield outer
        return
    axis, *inner = axes
    assert not any(isinstance(b, Table) for b in (*axis.lower, *axis.upper))
    low = max(at(b, outer) for b in axis.lower if isinstance(b, Affine))
    high = min(at(b, outer) for b in axis.upper if isinstance(b, Affine))
    for value in range(low, high):
        yield from loops(inner, {**outer, axis.name: value})


def at(affine: Affine, point: Point) -> int:
    return evaluate(affine.const, {}) + sum(c * point[name] for name, c in affine.terms)


def value(expr: Expr, point: Point, names: Mapping[str, int], arrays: Mapping[str, np.ndarray]) -> int:
    if isinstance(expr, Const):
        return int(expr.value)
    if isinstance(expr, AxisIndex):
        return point[expr.axis]
    if isinstance(expr, Name):
        return names[expr.id]
    if isinstance(expr, Load):
        return int(arrays[expr.operand][tuple(at(i, point) for i in expr.index if isinstance(i, Affine))])
    assert isinstance(expr, Apply)
    return int(PRIMITIVES[expr.primitive].numpy(*(value(a, point, names, arrays) for a in expr.args)))


def plain(kernel: Kernel, arrays: dict[str, np.ndarray], order: Sequence[int]) -> dict[str, np.ndarray]:
    """The form's meaning word for word; `order` permutes the points of the kernel's space."""
    arrays = {name: array.copy() for name, array in arrays.items()}
    points = list(loops(kernel.space, {}))
    for number in order:
        names: dict[str, int] = {}
        for stage in kernel.stages:
            for point in loops(stage.space, points[number]):
                inside = dict(names)
                for accumulate in stage.accumulates:
                    total = 0
                    for inner in loops(stage.reduce, point):
                        total += value(accumulate.exprs[0], inner, names, arrays)
                    inside[accumulate.names[0]] = total
                found = [value(s.value, point, inside, arrays) for s in stage.stores]
                for store, result in zip(stage.stores, found, strict=True):
                    element = tuple(at(i, point) for i in store.index if isinstance(i, Affine))
                    arrays[store.operand][element] = result + (store.mode == "sum") * arrays[store.operand][element]
            if not stage.space:
                names = inside
    return arrays


ITERATES = st.sampled_from(
    [
        [{"a": 1}, {"b": 1}], [{"b": 1}, {"a": 1}], [{"a": 2, "c": 1}, {"b": 1}], [{"a": 1}, {"c": 1}],
        [{"a": 1, "b": 1}, {"b": 1}], [{"a": 3, "b": 1}, {"c": 1}], [{"a": 1}, {"b": 2, "c": 1}], [{}, {"a": 1}],
        [{"a": 1, "c": 1}, {"b": 1}], [{"c": 1}, {"a": 3, "b": 1}],
    ]
)  # fmt: skip
consts = st.sampled_from([0, 0, 0, 1, 4])


def index(allowed: str) -> st.SearchStrategy[tuple[Affine, ...]]:
    def build(terms: list[dict[str, int]], first: int, second: int) -> tuple[Affine, ...]:
        kept = [{name: c for name, c in t.items() if name in allowed} for t in terms]
        return (Affine.of(kept[0], first), Affine.of(kept[1], second))

    return st.builds(build, ITERATES, consts, consts)


@st.composite
def kernels(draw: st.DrawFn) -> Kernel:
    """One or two stages that read and write x and y, with an inner axis or a reduction now and then."""
    stages = []
    for number in range(draw(st.integers(1, 2))):
        kind = draw(st.sampled_from(["plain", "space", "reduce"]))
        inner = (Axis.range("c", draw(st.integers(1, 3))),)
        scope = "ab" if kind == "plain" else "abc"
        load = Load(draw(st.sampled_from("xy")), draw(index(scope)))
        read: Expr = Apply("add", (load, Apply("add", (AxisIndex("a"), Const(number, i64)))))
        accumulates: tuple[Accumulate, ...] = ()
        if kind == "reduce":
            accumulates = (Accumulate((f"s{number}",), "sum", (read,)),)
            read = Name(f"s{number}")
        target, where = draw(st.sampled_from("xyz")), draw(index("abc" if kind == "space" else "ab"))
        if kind != "reduce" and draw(st.booleans()):
            where = tuple(i for i in load.index if isinstance(i, Affine))
        store = Store(target, where, read, draw(st.sampled_from(["=", "=", "sum"])))
        space, reduce = (inner if kind == "space" else ()), (inner if kind == "reduce" else ())
        stages.append(Stage(space, reduce, (), accumulates, (), (store,)))
    outer = (Axis.range("a", draw(st.integers(1, 3))), Axis.range("b", draw(st.integers(1, 3))))
    operands = tuple(Operand(name, i64, (16, 16), "inout") for name in "xyz")
    return Kernel("random", operands, outer, tuple(stages))


@settings(max_examples=150)
@given(kernels(), st.randoms(use_true_random=False))
def test_accepted_kernels_give_one_result_in_any_order(kernel: Kernel, random: object) -> None:
    try:
        verify(kernel)
    except VerifyError:
        assume(False)
    generator = np.random.default_rng(0)
    arrays = {name: generator.integers(0, 9, (16, 16)) for name in "xyz"}
    order = list(range(len(list(loops(kernel.space, {})))))
    expected = plain(kernel, arrays, order)
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled, interpreted = plain(kernel, arrays, order), run(kernel, arrays)
    for name in "xyz":
        np.testing.assert_array_equal(shuffled[name], expected[name])
        np.testing.assert_array_equal(interpreted[name], expected[name])


def test_reasons_are_sentences() -> None:
    store = Store("y", (Affine(),), Const(1, i64))
    kernel = Kernel("k", (Operand("y", i64, (3,), "out"),), (Axis.range("a", 3),), (Stage(stores=(store,)),))
    assert list(race_reasons(kernel)) == ["points that differ in a may store to one element of 'y'; combine or reduce"]
