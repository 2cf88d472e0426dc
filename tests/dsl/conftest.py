"""Running declared graphs on the reference interpreter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from graphc.autodiff.expand import expand_derivatives
from graphc.dsl.collect import collect
from graphc.dsl.variables import Input
from graphc.interpret import evaluate

Compute = Callable[..., list[np.ndarray]]


@pytest.fixture
def compute() -> Compute:
    """`compute([y], {x: array})`: outputs, then new values of `updates`, in the declared dtypes."""

    def run(outputs: Sequence[Any], at: Mapping[Any, Any], updates: Any = None, seed: int = 0) -> list[np.ndarray]:
        declared = collect([s for s in at if isinstance(s, Input)], outputs, updates)
        arrays = {s.name: np.asarray(a) for s, a in at.items()}
        arrays |= {name: v.value for name, v in declared.named_variables.items()}
        if declared.uses_rng:
            arrays["rng"] = np.array([seed, 0], np.int64)
        return evaluate(expand_derivatives(declared.graph), arrays, dtype64=False)

    return run
