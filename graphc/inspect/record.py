"""One step of a program, kept so that it can be compared with what it should have been."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.program import Program


@dataclass(frozen=True)
class StepRecord:
    """One step of a program: its inputs, the variables before it, its results, and the updated variables after it.

    `random_state` is the seed and the number of the step (int64 `[2]`), from which all its random numbers follow.

    Variables are by their names in the declared graph, which are unique.
    """

    inputs: Mapping[str, Any]
    before: Mapping[str, np.ndarray]
    results: Sequence[np.ndarray]
    after: Mapping[str, np.ndarray]
    random_state: np.ndarray


def record_step(program: Program, arrays: Sequence[Any]) -> tuple[StepRecord, float]:
    """Run one step on `arrays`, in the order of the inputs; what it did, and the seconds of the call alone."""
    declared = program.declared
    variables = declared.named_variables
    before = {name: variable.value for name, variable in variables.items()}
    random_state = program.random_state
    start = time.perf_counter()
    results = program(*arrays)
    seconds = time.perf_counter() - start
    after = {name: variable.value for name, variable in variables.items() if variable in declared.updated}
    named = {leaf.name: array for leaf, array in zip(declared.inputs, arrays, strict=True)}
    return StepRecord(named, before, results, after, random_state), seconds
