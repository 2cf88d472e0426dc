"""Optimisers against their formulas and against PyTorch, by interpreting the declared graph step by step."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc import optim
from graphc.autodiff.expand import expand_derivatives
from graphc.dsl.collect import collect
from graphc.errors import AttributeValueError, DefinitionError, GradientError
from graphc.interpret import evaluate
from graphc.optim.optimizer import Optimizer

X = np.random.default_rng(0).normal(size=(6, 3))
T = X @ np.array([1.0, -2.0, 0.5]) + 0.3
START = np.array([0.2, 0.1, -0.3])

CASES = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.05}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05}),
    ("SGD", {"lr": 0.1, "momentum": 0.8, "nesterov": True}),
    ("SGD", {"lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.05}),
    ("Adam", {"lr": 0.1}),
    ("Adam", {"lr": 0.1, "betas": (0.7, 0.95), "eps": 1e-4}),
    ("Adam", {"lr": 0.1, "weight_decay": 0.2}),
    ("Adam", {"lr": 0.1, "betas": (0.0, 0.9)}),
]


def declare(optimizer):
    """A linear regression: its inputs, loss, parameters and updates."""
    x, t = gc.input("x", ("N", 3), "float64"), gc.input("t", ("N",), "float64")
    w, b = gc.param("w", (3,), init=START, dtype="float64"), gc.param("b", (), dtype="float64")
    loss = gc.mse_loss(x @ w + b, t)
    return [x, t], loss, [w, b], optimizer.updates(loss, [w, b])


def run(optimizer, steps: int, on_step=lambda k: None):
    """Interpret the program in float64; returns the losses and the final parameters."""
    inputs, loss, parameters, updates = declare(optimizer)
    declared = collect(inputs, [loss], updates)
    graph = expand_derivatives(declared.graph)
    losses = []
    for k in range(steps):
        on_step(k)
        arrays = {name: v.value for name, v in declared.named_variables.items()}
        value, *new = evaluate(graph, {"x": X, "t": T, **arrays})
        losses.append(float(value))
        for variable, array in zip(declared.updated, new, strict=True):
            variable.value = array
    return losses, [p.value for p in parameters]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_steps_equal_torch(name, options) -> None:
    torch = pytest.importorskip("torch")
    w = torch.tensor(START, requires_grad=True)
    b = torch.zeros((), dtype=torch.float64, requires_grad=True)
    theirs = getattr(torch.optim, name)([w, b], **options)
    expected = []
    for _ in range(8):
        loss = torch.nn.functional.mse_loss(torch.tensor(X) @ w + b, torch.tensor(T))
        theirs.zero_grad()
        loss.backward()
        theirs.step()
        expected.append(loss.item())
    losses, (w_found, b_found) = run(getattr(optim, name)(**options), 8)
    # The learning rate is a float32 scalar, 0.1 to 1.5e-8.
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    np.testing.assert_allclose(w_found, w.detach().numpy(), rtol=1e-6)
    np.testing.assert_allclose(b_found, b.item(), rtol=1e-6)


def test_sgd_and_adam_formulas_without_torch() -> None:
    def gradient(w, b):
        r = X @ w + b - T
        return 2 * X.T @ r / len(T), 2 * r.mean()

    w, b, m, v = START.copy(), 0.0, np.zeros(4), np.zeros(4)
    for t in (1, 2, 3):
        g = np.append(*gradient(w, b))
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        p = np.append(w, b) - 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        w, b = p[:3], p[3]
    np.testing.assert_allclose(run(optim.Adam(0.1), 3)[1][0], w, rtol=1e-6, atol=1e-7)
    w, b, buffer = START.copy(), 0.0, np.zeros(4)
    for _ in range(3):
        buffer = 0.9 * buffer + np.append(*gradient(w, b))
        p = np.append(w, b) - 0.1 * buffer
        w, b = p[:3], p[3]
    np.testing.assert_allclose(run(optim.SGD(0.1, 0.9), 3)[1][0], w, rtol=1e-6)


def test_the_learning_rate_is_state_that_a_declared_program_reads() -> None:
    optimizer = optim.SGD(0.1)

    def schedule(step: int) -> None:
        optimizer.lr = 0.0 if step >= 2 else 0.1

    losses, _ = run(optimizer, 5, schedule)
    assert losses[0] > losses[1] > losses[2] == losses[3] == losses[4]
    assert optimizer.lr == 0


def test_bias_correction_is_exact_in_float32() -> None:
    """1 - 0.999^1 as a difference in float32 is wrong by 5e-5; the first step must be lr exactly."""
    w = gc.param("w", (), init=0.0)
    optimizer = optim.Adam(0.25, eps=0.0)
    declared = collect([], [w * 3], optimizer.updates(w * 3, [w]))
    arrays = {name: v.value for name, v in declared.named_variables.items()}
    new = evaluate(expand_derivatives(declared.graph), arrays, dtype64=False)[1]
    assert float(new) == pytest.approx(-0.25, rel=4e-7)


def test_slots_are_state_named_after_their_parameters_and_are_kept() -> None:
    optimizer = optim.Adam()
    inputs, loss, parameters, updates = declare(optimizer)
    names = [v.name for v in updates]
    assert names == ["w", "w.first_moment", "w.second_moment", "b", "b.first_moment", "b.second_moment",
                     "optimizer.steps"]  # fmt: skip
    again = optimizer.updates(loss, parameters)
    assert list(again) == list(updates)
    assert not optim.SGD(0.1, 0.9).updates(loss, [])


def test_two_optimisers_in_one_program_keep_their_own_rates() -> None:
    a, b = gc.param("a", (2,), init=1), gc.param("b", (2,), init=1)
    loss = gc.sum(a * b)
    updates = optim.SGD(0.1).updates(loss, [a]) | optim.SGD(0.2).updates(loss, [b])
    declared = collect([], [loss], updates)
    assert {"optimizer.lr", "optimizer.lr.1"} <= set(declared.named_variables)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: optim.SGD(-0.1), "lr must be a finite number of at least 0, got -0.1"),
        (lambda: optim.SGD(float("nan")), "lr"),
        (lambda: optim.SGD(0.1, momentum=-1), "momentum"),
        (lambda: optim.SGD(0.1, nesterov=True), "nesterov needs a momentum"),
        (lambda: optim.SGD(0.1, weight_decay=-1), "weight_decay"),
        (lambda: optim.Adam(betas=(0.9, 1.0)), "beta2"),
        (lambda: optim.Adam(eps=-1), "eps"),
        (lambda: setattr(optim.Adam(), "lr", -1), "lr"),
    ],
)
def test_bad_settings(make, words) -> None:
    with pytest.raises(AttributeValueError, match=words):
        make()


def test_a_parameter_that_the_loss_does_not_reach_is_named() -> None:
    w, lost = gc.param("w", (3,)), gc.param("lost", (3,))
    with pytest.raises(GradientError, match="does not depend on lost"):
        optim.SGD(0.1).updates(gc.sum(w), [w, lost])
    with pytest.raises(GradientError, match="must be a scalar"):
        optim.SGD(0.1).updates(w, [w])


@pytest.mark.parametrize("make", [optim.SGD, optim.Adam])
def test_the_learning_rate_reads_back_as_it_was_set(make) -> None:
    optimizer = make(0.1)
    assert optimizer.lr == 0.1
    optimizer.lr = 0.3
    assert optimizer.lr == 0.3 and optimizer.lr_state.value == np.float32(0.3)
    gc.compile([], [], {optimizer.lr_state: optimizer.lr_state * 0.5})()
    assert optimizer.lr == float(np.float32(0.3) / 2)


def test_an_optimiser_without_a_step_says_what_to_define() -> None:
    class Nothing(Optimizer):
        pass

    w = gc.param("w", (2,))
    with pytest.raises(DefinitionError, match=r"Nothing does not define step; give it a method"):
        Nothing(0.1).updates(gc.sum(w * w), [w])
