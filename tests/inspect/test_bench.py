"""Workloads are the defined ones, checked before they are timed; figures add up."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc import cli
from graphc.errors import CompileError, InputError
from graphc.inspect import bench, oracle
from graphc.inspect.bench import Timing, run
from graphc.inspect.record import record_step
from graphc.inspect.workloads import WORKLOADS
from graphc.ir.dims import evaluate
from graphc.ir.types import as_dtype


def test_workloads_are_as_defined() -> None:
    # Forward, weight gradients, and input gradients of all layers but the first.
    needed = {"mlp": 0.41e9, "mlp_small": 0.65e6, "dae": 0.39e9, "rbm": 0.39e9, "rnn": 0.31e9,
              "lenet": 0.145e9, "vgg_small": 4.84e9, "infer_lenet": 0.83e6}
    assert {name: workload.flops for name, workload in WORKLOADS.items()} == pytest.approx(needed, rel=0.02)
    for name, workload in WORKLOADS.items():
        step, arrays = workload.declare(), workload.arrays(seed=0)
        assert [leaf.dtype.name for leaf in step.inputs] == [as_dtype(a.dtype).name for a in arrays], name
        for leaf, array in zip(step.inputs, arrays, strict=True):
            assert tuple(evaluate(dim, workload.dims) for dim in leaf.shape) == array.shape, name


def test_the_command_offers_every_workload() -> None:
    assert set(cli.WORKLOADS) == {*WORKLOADS, "contractions", "peak"}


def test_arrays() -> None:
    images, labels = WORKLOADS["mlp_small"].arrays(seed=3)
    assert images.shape == (32, 64) and images.dtype == np.float32 and 0 <= images.min() and images.max() < 1
    assert labels.shape == (32,) and labels.dtype == np.int64 and set(labels) <= set(range(10))
    assert np.array_equal(images, WORKLOADS["mlp_small"].arrays(seed=3)[0])


def test_step_is_sgd_with_momentum_on_the_mean_loss() -> None:
    """Two steps, computed by hand from PyTorch's update rule."""
    workload = WORKLOADS["mlp_small"]
    program, _ = bench.compiled(workload)
    names = ["0.weight", "0.bias", "2.weight", "2.bias"]
    variables = program.declared.named_variables
    w = {name: variables[name].value.astype(np.float64) for name in names}
    momentum = {name: np.zeros_like(value) for name, value in w.items()}
    for seed in range(2):
        x, t = workload.arrays(seed)
        h = np.maximum(x @ w["0.weight"].T + w["0.bias"], 0)
        z = h @ w["2.weight"].T + w["2.bias"]
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        loss = -np.log(p[np.arange(32), t]).mean()
        dz = (p - np.eye(10)[t]) / 32
        dh = (dz @ w["2.weight"]) * (h > 0)
        gradient = dict(zip(names, (dh.T @ x, dh.sum(0), dz.T @ h, dz.sum(0)), strict=True))
        for name in names:
            momentum[name] = 0.9 * momentum[name] + gradient[name]
            w[name] = w[name] - 0.01 * momentum[name]
        (got,) = program(x, t)
        assert got == pytest.approx(loss, rel=1e-5)
    for name in names:
        np.testing.assert_allclose(variables[name].value, w[name], rtol=1e-4, atol=1e-6)


def test_run_times_a_checked_step() -> None:
    timing = run("mlp_small", seconds=0.05)
    assert timing.workload == "mlp_small" and timing.steps >= bench.LEAST_STEPS
    assert 0 < timing.min_ms <= timing.median_ms < timing.first_ms
    assert timing.gflops == pytest.approx(WORKLOADS["mlp_small"].flops / timing.median_ms / 1e6)
    assert 0 < timing.share_of_peak < 1.1
    assert 0 < timing.worst_deviation < 1e-4
    if timing.since_start_ms is not None:
        assert timing.since_start_ms > 0
    line = timing.to_json()
    assert line["system"] == "graphc" and {"workload", "median_ms", "min_ms", "first_ms", "steps"} <= line.keys()
    assert "mlp_small: median" in str(timing)


def test_second_run_comes_from_the_cache() -> None:
    run("mlp_small", seconds=0.01)
    assert run("mlp_small", seconds=0.01).from_cache


def test_a_wrong_step_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Timing:
        raise AssertionError("timed")

    monkeypatch.setattr(bench, "_timed", refuse)
    monkeypatch.setattr(oracle, "_deviation", lambda got, expected: 1.0)
    with pytest.raises(CompileError, match="wrongly"):
        run("mlp_small", seconds=0.01)


@pytest.mark.parametrize(("wrong_steps", "right"), [(bench.SAMPLING_STEPS - 1, True), (bench.SAMPLING_STEPS, False)])
def test_sampling_steps_are_wrong_only_if_several_are(
    monkeypatch: pytest.MonkeyPatch, wrong_steps: int, right: bool
) -> None:
    x = gc.input("x", (4,))
    program = gc.compile([x], [x * gc.random.uniform((4,))])
    record, _ = record_step(program, [np.ones(4)])
    found = iter([1.0] * wrong_steps + [0.0] * bench.SAMPLING_STEPS)
    monkeypatch.setattr(oracle, "_deviation", lambda got, expected: next(found))
    if right:
        assert bench._checked(program, record, [[np.ones(4)]]) == 0
    else:
        with pytest.raises(CompileError, match="wrongly"):
            bench._checked(program, record, [[np.ones(4)]])


def test_unknown_workload() -> None:
    with pytest.raises(InputError, match="mlp, mlp_small"):
        run("alexnet")
