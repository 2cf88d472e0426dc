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

    Variables are by name, as in `Program.declared`.
    """

    inputs: Mapping[str, Any]
    before: Mapping[str, np.ndarray]
    results: Sequence[np.ndarray]
    after: Mapping[str, np.ndarray]


def record_step(program: Program, arrays: Sequence[Any]) -> tuple[StepRecord, float]:
    """Run one step on `arrays`, in the order of the inputs; what it did, and the seconds of the call alone."""
    declared = program.declared
    before = {variable.name: variable.value for variable in declared.variables}
    start = time.perf_counter()
    results = program(*arrays)
    seconds = time.perf_counter() - start
    after = {variable.name: variable.value for variable in declared.updated}
    named = {leaf.name: array for leaf, array in zip(declared.inputs, arrays, strict=True)}
    return StepRecord(named, before, results, after), seconds
