"""Every op of the registry compiled for the CPU, at its samples, against the float64 interpreter.

Many samples share a program, so that what is compiled once is paid once; each sample is a result of its own. Samples
in float64 are compiled in float32, which is what programs are made of; a few of each op stay in float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.autodiff.expand import expand_derivatives
from graphc.dsl import declare
from graphc.dsl.collect import collect
from graphc.interpret import evaluate
from graphc.ir.builder import Builder
from graphc.ir.graph import Value
from graphc.ir.op import OPS, NotDifferentiable, Op, Sample
from graphc.passes.manager import run as run_passes
from graphc.passes.pipeline import default_pipeline

PER_PROGRAM = 32
FLOAT64_SAMPLES = 1  # of an op that is not elementwise


@dataclass(frozen=True)
class Case:
    """A sample of an op with the arrays that are given to the program."""

    op: Op
    number: int
    arrays: tuple[np.ndarray, ...]
    sample: Sample

    def __str__(self) -> str:
        return f"{self.op.name}-{self.number}"


def single(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype == np.float64 else array


def cases() -> Iterator[Case]:
    for op in OPS.values():
        if op.expanded or op.samples is None:
            continue
        for number, sample in enumerate(op.samples()):
            arrays = tuple(np.asarray(a) for a in sample.inputs)
            yield Case(op, number, tuple(map(single, arrays)), sample)
            if number < FLOAT64_SAMPLES and not op.scalar and any(a.dtype == np.float64 for a in arrays):
                yield Case(op, number, arrays, sample)


CASES = list(cases())
PROGRAMS = [CASES[k : k + PER_PROGRAM] for k in range(0, len(CASES), PER_PROGRAM)]


Results = list[tuple[Case, gc.Symbol]]


def applied(case: Case, operands: Sequence[Value]) -> list[gc.Symbol]:
    """All results of the op at a sample."""
    found = Builder().apply(case.op, operands, dict(case.sample.attributes))
    return [gc.Symbol(value) for value in (found if isinstance(found, tuple) else (found,))]


def declared(chosen: Sequence[Case]) -> tuple[list[gc.Input], Results, dict[str, np.ndarray]]:
    """Inputs, results and arrays of a program of many samples; equal arrays are one input."""
    inputs: dict[tuple[Any, ...], gc.Input] = {}
    arrays: dict[str, np.ndarray] = {}
    results: Results = []
    for case in chosen:
        operands = []
        for array in case.arrays:
            key = (array.dtype.name, array.shape, array.tobytes())
            if key not in inputs:
                name = f"x{len(inputs)}"
                inputs[key] = gc.input(name, array.shape, dtype=array.dtype.name)
                arrays[name] = array
            operands.append(inputs[key].ir)
        results += [(case, symbol) for symbol in applied(case, operands)]
    return list(inputs.values()), results, arrays


def check(found: np.ndarray, expected: np.ndarray, case: Case) -> None:
    assert found.shape == expected.shape, case
    finite = np.asarray(expected, np.float64)[np.isfinite(expected)]
    scale = np.abs(finite).max(initial=1.0)
    if found.dtype.kind == "f":
        precision = 2e-5 if found.dtype == np.float32 else 1e-12
        np.testing.assert_allclose(found, expected, rtol=precision, atol=0.05 * precision * scale, err_msg=str(case))
    else:
        np.testing.assert_array_equal(found, expected, err_msg=str(case))


@pytest.mark.parametrize("chosen", PROGRAMS, ids=lambda chosen: f"{chosen[0]}..{chosen[-1]}")
def test_compiled_equals_interpreted(chosen: Sequence[Case], tally: Any) -> None:
    for case in chosen:
        tally("ops compiled for the CPU and compared with the interpreter", case.op.name)
        sample = (str(case), *(array.dtype.name for array in case.arrays))
        tally("samples compiled for the CPU and compared with the interpreter", sample)
    inputs, results, arrays = declared(chosen)
    program = gc.compile(inputs, [symbol for _, symbol in results], cache=False)
    final, _ = run_passes(program.graph, default_pipeline({}), verify=True)
    assert len(final.outputs) == len(results)

    found = program(**arrays)

    expected = evaluate(program.graph, arrays)
    for (case, _), mine, oracle in zip(results, found, expected, strict=True):
        check(mine, oracle, case)


def reversible() -> list[Case]:
    """One case of each op whose gradient is more than a few products of its scalar slopes."""
    found: dict[str, Case] = {}
    for case in CASES:
        if case.sample.differentiable and not case.op.scalar and case.arrays[0].dtype == np.float32:
            found.setdefault(case.op.name, case)
    return list(found.values())


@pytest.mark.parametrize("order", [1, 2])
def test_compiled_gradients_equal_interpreted_ones(order: int) -> None:
    """Gradients of sum(w y^2), and their gradients again, of every op that is not elementwise."""
    chosen = reversible()
    wrt, results, arrays = [], [], {}
    for number, case in enumerate(chosen):
        inputs = [gc.input(f"x{number}_{k}", a.shape, dtype=a.dtype.name) for k, a in enumerate(case.arrays)]
        arrays |= {i.name: a for i, a in zip(inputs, case.arrays, strict=True)}
        y = applied(case, [i.ir for i in inputs])[0]
        loss = gc.sum(gc.square(y) * np.cos(np.arange(math.prod(map(int, y.shape)))).reshape(y.shape))
        smooth = [inputs[k] for k in case.sample.differentiable]
        found = gc.grad(loss, smooth)
        if order == 2:
            found = gc.grad(sum(gc.sum(gc.sin(g)) for g in found), smooth)
        results += found
        wrt += inputs
    program = gc.compile(wrt, results, cache=False)
    names = [case for case in chosen for _ in case.sample.differentiable]

    found = program(**arrays)

    for case, mine, oracle in zip(names, found, evaluate(expand_derivatives(program.graph), arrays), strict=True):
        scale = np.abs(oracle).max(initial=1.0)
        np.testing.assert_allclose(mine, oracle, rtol=1e-3, atol=2e-5 * scale, err_msg=str(case))


EXTREMES = np.array([-1e4, -1e2, 1e2, 1e4], np.float32)
FLOAT_MAPS = [
    op for op in OPS.values() if op.scalar and all(np.asarray(a).dtype.kind == "f" for a in op.samples()[0].inputs)
]


def test_compiled_elementwise_ops_at_extremes() -> None:
    """Values and slopes in float32 at 100, 10000 and their negatives: infinite or NaN only where they must be."""
    results, labels, arrays, inputs = [], [], {}, []
    for op in FLOAT_MAPS:
        settings = {str(s.attributes): (s.attributes, len(s.inputs)) for s in op.samples()}
        for number, (attributes, arity) in enumerate(settings.values()):
            points = np.stack([p.ravel() for p in np.meshgrid(*[EXTREMES] * arity)])
            operands = [gc.input(f"{op.name}_{number}_{k}", (points.shape[1],)) for k in range(arity)]
            arrays |= {o.name: p for o, p in zip(operands, points, strict=True)}
            y = gc.Symbol(declare.apply(op.name, *(o.ir for o in operands), **dict(attributes)))
            slopes = [] if isinstance(op.gradient, NotDifferentiable) else gc.grad(gc.sum(y), operands)
            inputs += operands
            results += [y, *slopes]
            labels += [f"{op.name} {dict(attributes)} output {k}" for k in range(1 + len(slopes))]

    found = gc.compile(inputs, results, cache=False)(**arrays)

    graph = expand_derivatives(collect(inputs, results).graph)
    largest = float(np.finfo(np.float32).max)
    for label, mine, oracle in zip(labels, found, evaluate(graph, arrays), strict=True):
        if mine.dtype.kind != "f":
            np.testing.assert_array_equal(mine, oracle, err_msg=label)
            continue
        oracle = np.where(np.abs(oracle) > largest, np.copysign(np.inf, oracle), oracle)
        np.testing.assert_allclose(mine, oracle, rtol=2e-4, atol=1e-7, err_msg=label)  # atol: elu's alpha is a float32


def test_every_op_is_compiled() -> None:
    assert {case.op.name for case in CASES} == {op.name for op in OPS.values() if not op.expanded}
