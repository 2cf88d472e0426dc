"""Compiled programs against the reference interpreter: the same declared graph, evaluated by NumPy in float64."""

from __future__ import annotations

import numpy as np

from graphc.autodiff.expand import expand_derivatives
from graphc.dsl.random import RNG
from graphc.errors import CompileError
from graphc.inspect.record import StepRecord
from graphc.interpret import evaluate
from graphc.program import Program


def deviations(program: Program, record: StepRecord) -> dict[str, float]:
    """How far the step is from the interpreter's, by result (`result 0`, ...) and updated variable.

    The largest absolute difference over the largest absolute value expected. Random numbers are those of the step.
    """
    declared = program.declared
    graph = expand_derivatives(declared.graph)
    state = {RNG.name: record.random_state} if declared.uses_rng else {}
    expected = evaluate(graph, {**record.inputs, **record.before, **state})
    del expected[declared.results : declared.results + len(declared.watches)]  # what `gc.print` and `gc.assert_` read
    names = {variable: name for name, variable in declared.named_variables.items()}
    updated = [names[variable] for variable in declared.updated]
    labels = [*(f"result {i}" for i in range(declared.results)), *updated]
    got = [*record.results, *(record.after[name] for name in updated)]
    return {label: _deviation(g, e) for label, g, e in zip(labels, got, expected, strict=True)}


def check_step(program: Program, record: StepRecord, tolerance: float = 1e-4) -> float:
    """The greatest of `deviations`. Raises CompileError, naming the result or variable, if it exceeds `tolerance`."""
    found = deviations(program, record)
    worst = max(found, key=lambda label: found[label])
    if not found[worst] <= tolerance:
        raise CompileError(f"program {program.name!r} computes {worst} wrongly: it is off by {found[worst]:.2g} of its "
                           f"greatest value where {tolerance:.0e} is allowed; please report this with the graph")
    return found[worst]


def _deviation(got: np.ndarray, expected: np.ndarray) -> float:
    if not expected.size:
        return 0.0
    scale = max(float(np.max(np.abs(expected))), float(np.finfo(np.float32).tiny))
    worst = float(np.max(np.abs(got.astype(np.float64) - expected))) / scale
    return worst if worst == worst else float("inf")
