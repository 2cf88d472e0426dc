"""What frees all that it allocates runs at once, maps write over what they read last: less memory, the same values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import models, nn, optim
from graphc.codegen import memory
from graphc.codegen.host import Host, host
from graphc.kernel.plan_text import print_plan


def chain(length: int = 5) -> tuple[Any, Any, np.ndarray]:
    """Maps that cannot be one kernel, for each is read by a sum over rows too."""
    x = gc.input("x", (64, 32))
    y = gc.exp(x)
    for _ in range(length):
        y = gc.tanh(y - y.sum(axis=0))
    return x, y, np.random.default_rng(0).standard_normal((64, 32)).astype("f4")


def places(program: gc.Program, *names: str) -> set[tuple[str, int]]:
    return {(program.plan.buffer(name).region, program.plan.buffer(name).offset) for name in names}


def test_maps_write_over_operands_that_nothing_reads_later() -> None:
    x, y, array = chain()
    program = gc.compile([x], [y], cache=False)
    big = [b for b in program.plan.buffers if b.region == "scratch" and b.nbytes == array.nbytes]
    assert len({b.offset for b in big}) == 1 and any("inout" in k.form for k in program.kernels.values())
    wanted = np.exp(array.astype(float))
    for _ in range(5):
        wanted = np.tanh(wanted - wanted.sum(0))
    np.testing.assert_allclose(program(array)[0], wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(program(array)[0], wanted, rtol=1e-4, atol=1e-5)  # the input was not overwritten


def test_a_result_that_was_written_in_place_stays() -> None:
    x = gc.input("x", (64, 32))
    first = gc.exp(x)
    second = gc.tanh(first - first.sum(axis=0))
    third = gc.tanh(second - second.sum(axis=0))
    program = gc.compile([x], [second, third], cache=False)
    array = np.random.default_rng(0).standard_normal((64, 32)).astype("f4")
    a = np.exp(array.astype(float))
    b = np.tanh(a - a.sum(0))
    assert places(program, "exp") == places(program, "tanh") != places(program, "tanh_2")
    for found, wanted in zip(program(array), (b, np.tanh(b - b.sum(0))), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_results_and_values_read_later_are_not_overwritten() -> None:
    x, W = gc.input("x", (8, 8)), gc.param("W", (8, 8), init=gc.init.normal())
    first = gc.exp(x @ W)
    second = gc.tanh(first.T) + first
    third = first @ second
    program = gc.compile([x], [first, second, third, gc.sum(second, axis=0)], cache=False)
    array = np.random.default_rng(1).standard_normal((8, 8)).astype("f4") / 4
    a = np.exp(array @ W.value)
    b = np.tanh(a.T) + a
    for found, wanted in zip(program(array), (a, b, a @ b, b.sum(0)), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_map_that_reads_elsewhere_keeps_memory_of_its_own() -> None:
    x, W = gc.input("x", (8, 8)), gc.param("W", (8, 8), init=gc.init.normal())
    y = x @ W
    program = gc.compile([x], [gc.sum(gc.exp(y.T) * y, axis=0) @ gc.exp(y.T + y)], cache=False)
    array = np.random.default_rng(1).standard_normal((8, 8)).astype("f4") / 4
    b = array @ W.value
    np.testing.assert_allclose(program(array)[0], (np.exp(b.T) * b).sum(0) @ np.exp(b.T + b), rtol=1e-4)


def test_weight_gradients_run_as_soon_as_they_can() -> None:
    program = step_of(models.mlp(16, 32, 32, 4), (16,), 8)
    order = [call.operands for call in program.plan.calls()]
    writers = {name: i for i, names in enumerate(order) for name in names if name.endswith("_weight")}
    makers = {name: i for i, names in reversed(list(enumerate(order))) for name in names}
    assert writers["v4_weight"] < makers["v2_grad_where"] < writers["v2_weight"] < writers["v0_weight"]


def step_of(model: nn.Module, shape: tuple[int, ...], batch: int, **options: Any) -> gc.Program:
    x, t = gc.input("x", ("N", *shape)), gc.input("t", ("N",), dtype="int64")
    with nn.trace(model, train=True):
        loss = gc.cross_entropy(model(x), t)
    updates = optim.SGD(lr=0.1, momentum=0.9).updates(loss, model.parameters())
    return gc.compile([x, t], [loss], updates, dims={"N": batch}, cache=False, **options)


@pytest.mark.parametrize("machine", [None, host()], ids=["as lowered", "for this host"])
def test_a_small_vgg_needs_less_than_half_of_its_values(machine: Host | None) -> None:
    """Also with layouts, and with weight gradients that are summed in pieces first."""
    from graphc.codegen.build import optimise
    from graphc.codegen.lower import Names, lower_graph
    from graphc.dsl.collect import collect

    model, x, t = models.vgg_small(), gc.input("x", ("N", 3, 32, 32)), gc.input("t", ("N",), dtype="int64")
    with nn.trace(model, train=True):
        loss = gc.cross_entropy(model(x), t)
    declared = collect([x, t], [loss], optim.SGD(lr=0.1, momentum=0.9).updates(loss, model.parameters()))
    graph, _ = optimise(declared.graph)
    names, sizes = Names(), {"N": 32}
    named = {variable: name for name, variable in declared.named_variables.items()}
    signature = memory.Signature(frozenset(named.values()), tuple(named[v] for v in declared.updated))
    lowered = lower_graph(graph, sizes, names)
    plan = memory.plan_program(graph, lowered, names, signature, sizes, machine=machine).plan
    assert plan.arena_bytes <= 0.47 * plan.peak.total and plan.peak.nbytes <= plan.arena_bytes
    assert f"arena {plan.arena_bytes} bytes, for values of {plan.peak.total} bytes" in print_plan(plan)


MADE: list[Callable[[Any, Any], Any]] = [
    lambda a, b: gc.tanh(a - b.sum(axis=0)),
    lambda a, b: a.T * 0.5 + b,
    lambda a, b: gc.sigmoid(a) - b,
    lambda a, b: (a @ b) * 0.1,
    lambda a, b: gc.exp(-a * a) + b.max(axis=1),
]


@pytest.mark.parametrize("seed", range(6))
def test_random_maps_in_place(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random graphs of maps, sums and transposes give the same bits with and without reuse."""
    rng = np.random.default_rng(seed)
    x = gc.input("x", (6, 6))
    values: list[Any] = [gc.exp(x * 0.1)]
    for _ in range(14):
        a, b = (values[max(0, len(values) - 1 - int(k))] for k in rng.geometric(0.4, 2))
        values.append(MADE[int(rng.integers(len(MADE)))](a, b))
    outputs = [values[-1], values[int(rng.integers(len(values)))]]
    array = rng.standard_normal((6, 6)).astype("f4")
    found = gc.compile([x], outputs, cache=False)(array)
    monkeypatch.setattr(memory, "order_for_memory", lambda *args: None)
    monkeypatch.setattr(memory, "overwrite_dead_operands", lambda *args: None)
    for one, other in zip(found, gc.compile([x], outputs, cache=False)(array), strict=True):
        np.testing.assert_array_equal(one, other)
