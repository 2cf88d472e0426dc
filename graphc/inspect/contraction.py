"""The three contractions of a dense layer as the compiler generates them, as shares of the multiply-add peak.

They are those of a 128 x 784 batch and 512 features: forward with bias and ReLU, for both layouts of the weights;
the weights' gradient; and the input's gradient. Each is one kernel of a compiled program, timed inside the program.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.dsl.activations import relu
from graphc.dsl.symbol import Symbol
from graphc.dsl.variables import Input, input, param
from graphc.inspect.peak import fma_gflops
from graphc.program import compile

ROWS, FEATURES, OUTPUTS = 128, 784, 512
FLOPS = 2 * ROWS * FEATURES * OUTPUTS
REPEATS = 20


@dataclass(frozen=True)
class ContractionSpeed:
    """One generated kernel: its schedule, its best speed in GFLOP/s, and that as a share of the peak."""

    name: str
    schedule: str
    gflops: float
    share_of_peak: float


@dataclass(frozen=True)
class ContractionTimings:
    """Speeds of all the contractions and the peak of one thread, measured in the same process."""

    peak_gflops: float
    kernels: tuple[ContractionSpeed, ...]

    def to_json(self) -> dict[str, Any]:
        """The figures, as `graphc bench --json` prints them."""
        kernels = [dict(k.__dict__) for k in self.kernels]
        return {"system": "graphc", "workload": "contraction", "peak_gflops": self.peak_gflops, "kernels": kernels}

    def __str__(self) -> str:
        lines = [f"{k.name:34s} {k.gflops:6.1f} GFLOP/s  {k.share_of_peak:4.0%} of the peak   {k.schedule}"
                 for k in self.kernels]
        return "\n".join([*lines, f"{'peak of one thread':34s} {self.peak_gflops:6.1f} GFLOP/s"])


def measure_contractions(seconds: float = 2.0, seed: int = 0) -> ContractionTimings:
    """Time each contraction for about `seconds` in all, and the peak before and after them."""
    rng = np.random.default_rng(seed)
    first = fma_gflops(1)
    timed = [_speed(name, declare, seconds / len(CONTRACTIONS), rng) for name, declare in CONTRACTIONS.items()]
    peak = max(first, fma_gflops(1))
    speeds = (ContractionSpeed(name, schedule, gflops, gflops / peak) for name, schedule, gflops in timed)
    return ContractionTimings(peak, tuple(speeds))


def _speed(
    name: str, declare: Callable[[], tuple[list[Input], Symbol]], seconds: float, rng: np.random.Generator
) -> tuple[str, str, float]:
    """Name, schedule and best GFLOP/s of the one kernel that computes a contraction."""
    inputs, result = declare()
    program = compile(inputs, [result], threads=1, name="contraction")
    arrays = [rng.standard_normal([d for d in x.shape if isinstance(d, int)]).astype(np.float32) for x in inputs]
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end or best == float("inf"):
        (kernel,) = program.profile(*arrays, repeats=REPEATS)
        best = min(best, kernel.best)
    (view,) = program.kernels.values()
    return name, view.schedule, FLOPS / best / 1e9


def _batch() -> Input:
    return input("x", (ROWS, FEATURES))


def _gradient() -> Input:
    return input("g", (ROWS, OUTPUTS))


def _forward() -> tuple[list[Input], Symbol]:
    x = _batch()
    return [x], relu(x @ param("W", (FEATURES, OUTPUTS)) + param("b", (OUTPUTS,)))


def _forward_transposed() -> tuple[list[Input], Symbol]:
    x = _batch()
    return [x], relu(x @ param("W", (OUTPUTS, FEATURES)).T + param("b", (OUTPUTS,)))


def _weight_gradient() -> tuple[list[Input], Symbol]:
    x, g = _batch(), _gradient()
    return [x, g], g.T @ x


def _input_gradient() -> tuple[list[Input], Symbol]:
    g = _gradient()
    return [g], g @ param("W", (OUTPUTS, FEATURES))


CONTRACTIONS: dict[str, Callable[[], tuple[list[Input], Symbol]]] = {
    "relu(x W + b), W [784,512]": _forward,
    "relu(x W^T + b), W [512,784]": _forward_transposed,
    "gradient of W [512,784]": _weight_gradient,
    "gradient of x": _input_gradient,
}
