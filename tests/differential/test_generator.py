"""What random graphs are made of: every op, every size, every kind of derivative; and that a seed says all."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from graphc.ir.graph import Graph, Value
from graphc.ir.text import parse, print_graph
from graphc.ir.types import DTYPES, tensor
from graphc.ir.verify import verify

from .case import Case
from .generator import DRAWN, LANES, MOST_NODES, draw
from .noise import COUNT, Trials, allowed, settled

MANY = range(len(DRAWN))


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [draw(seed) for seed in MANY]


def ops_of(cases: list[Case]) -> Counter[str]:
    return Counter(node.op.name for case in cases for node in case.graph.nodes)


def test_every_op_and_derivative_is_drawn(cases: list[Case]) -> None:
    assert {"grad", "vjp", "jvp", "jacobian"} <= set(ops_of(cases))
    assert not [op.name for op, case in zip(DRAWN, cases, strict=True) if op.name not in ops_of([case])]


def test_graphs_are_valid_and_not_too_large(cases: list[Case]) -> None:
    sizes = [len(case.graph.nodes) for case in cases]
    assert max(sizes) <= MOST_NODES and sum(sizes) / len(sizes) > 12
    for case in cases[:30]:
        verify(case.graph)
        assert parse(print_graph(case.graph)) == case.graph
        assert all(case.trials.settled(value) for value in case.expanded.outputs)


def test_dtypes_sizes_and_counts(cases: list[Case]) -> None:
    values = [v for case in cases for v in (*case.graph.inputs, *(o for n in case.graph.nodes for o in n.outputs))]
    assert {v.type.dtype for v in values} == set(DTYPES)
    assert {0, 1, 2, 7, 13, LANES - 1, LANES, LANES + 1, 2 * LANES + 1} <= {d for v in values for d in v.type.shape}
    assert sum(COUNT in str(v.type) for v in values) > len(values) / 10
    counts = [case.counts for case in cases if case.capacities]
    assert all(max(c) <= case.capacity for case in cases for c in [case.counts])
    assert any(0 in c for c in counts) and any(1 in c for c in counts)
    assert sum(len(c) > 1 for c in counts) > len(counts) / 2


def test_updates_and_derivatives_of_derivatives(cases: list[Case]) -> None:
    assert sum(bool(case.updated) for case in cases) > len(cases) / 10
    inner = [n for case in cases for n in case.graph.nodes if n.op.name == "grad"]
    deep = [n for n in inner if any(m.op.name == "grad" for m in Graph("g", (), n.inputs[:1]).nodes)]
    assert len(inner) > len(cases) / 2 and len(deep) > 5


def test_a_seed_draws_the_same_case() -> None:
    assert str(draw(7)) == str(draw(7)) != str(draw(8))


# Noise


def runs_of(values: list[float], dtype: str, make: str) -> Trials:
    from graphc.ir.builder import Builder

    x = Value(tensor(dtype, (len(values),)), name="x")
    trials = Trials((len(values),))
    trials.give(x, np.array(values, x.type.dtype.numpy))
    b = Builder()
    if make == "cancel":
        y = b.sub(b.elementwise("add", x, b.constant(1e4, x.type.dtype)), b.full(1e4, x.type))
    elif make == "nearly itself":
        y = b.ne(x, b.elementwise("add", x, b.mul(x, b.full(1e-9, x.type))))
    elif make in ("floor", "std"):
        y = b.floor(x) if make == "floor" else b.std(x, axes=(0,))
    else:
        y = b.argmax(b.exp(x), axis=0)
    trials.run(Graph("g", (x,), (y,)).nodes)
    trials.values = {y: trials.values[y]}
    return trials


@pytest.mark.parametrize(
    ("values", "dtype", "make", "known"),
    [
        ([0.5, 1.3], "f32", "cancel", False),  # digits are lost that only float64 has
        ([0.5, 1.3], "f64", "cancel", True),
        ([0.3, 1.7], "f32", "floor", True),
        ([0.3, 3 - 1e-6], "f32", "floor", False),  # one rounding more, and it is 3
        ([0.3, 3.0], "f32", "floor", True),  # a whole number is exact
        ([0.3, 0.7], "f32", "argmax", True),
        ([0.7, 0.7 + 1e-7], "f32", "argmax", False),
        ([0.7, 0.7], "f32", "argmax", True),  # equal values stay equal
        ([0.7, 0.3], "f32", "nearly itself", False),
        ([0.7, 0.3], "f64", "nearly itself", True),
        ([0.7, 0.3], "f32", "std", True),
        ([0.7, 0.7], "f32", "std", False),  # their mean may be another number
    ],
)
def test_noise_tells_what_float32_can_know(values: list[float], dtype: str, make: str, known: bool) -> None:
    trials = runs_of(values, dtype, make)
    (value,) = trials.values
    assert trials.settled(value) == known


def test_values_out_of_bounds_are_not_settled() -> None:
    for bad in (np.inf, np.nan, 1e9, 1e-30):
        assert not settled((np.array([bad]),) * 2)
    assert settled((np.zeros(3),) * 2) and settled((np.zeros((0, 3)),) * 2)


def test_allowed_deviations_are_a_few_roundings() -> None:
    exact = np.array([1.0, -2.0])
    assert 1e-6 < allowed((exact, exact), "f32") < 1e-5
    assert allowed((exact, exact * (1 + 1e-6)), "f32") == pytest.approx(2e-5, rel=0.5)
    assert allowed((exact, exact), "f64") < 1e-13
