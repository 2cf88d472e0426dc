"""What a program keeps between calls is never stale: whoever writes a variable, and whenever."""

from __future__ import annotations

import os
import pathlib
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc import nn, optim
from graphc.errors import AssertionFailed, MemoryLimitError
from graphc.inspect.oracle import check_step
from graphc.inspect.record import record_step
from graphc.kernel.plan import Call, Loop, Plan
from graphc.runtime.cache import ProgramCache

X = np.random.default_rng(0).random((8, 6), dtype=np.float32)


def normalised(W: gc.Symbol) -> gc.Symbol:
    """Columns of length one: a kernel of its own, whatever reads it."""
    return W / gc.sqrt((W * W).sum(axis=0, keepdims=True))


class Predictor:
    """x @ normalised(W), and what it should be."""

    def __init__(self, W: gc.dsl.variables.Variable | None = None, **options: Any) -> None:
        self.W = gc.param("W", (6, 4)) if W is None else W
        x = gc.input("x", ("N", 6))
        self.program = gc.compile([x], [x @ normalised(self.W)], dims={"N": 8}, **options)

    def check(self) -> None:
        record, _ = record_step(self.program, (X,))
        check_step(self.program, record, tolerance=1e-5)

    def spoil(self) -> None:
        """Overwrite what is kept, to see whether it is made again."""
        executable = self.program._executable
        assert executable is not None
        for buffer in executable.plan.buffers:
            if buffer.region == "prepared":
                executable._memory[buffer.name][...] = np.nan

    def is_spoilt(self) -> bool:
        return bool(np.isnan(self.program(X)[0]).any())


@pytest.fixture
def predictor() -> Predictor:
    return Predictor()


# ---- what is prepared -----------------------------------------------------------------------------------------------


def prepared(program: gc.Program) -> dict[str, int]:
    """Names and offsets of prepared buffers."""
    return {b.name: b.offset for b in program.plan.buffers if b.region == "prepared"}


def test_what_is_kept_is_shown(predictor: Predictor) -> None:
    program = predictor.program
    assert [p.variables for p in program.plan.preparations] == [("W",)] and len(prepared(program)) == 1
    assert "prepare when W changed {" in program.memory and ", 96 kept between calls" in program.memory
    assert any(r.startswith("prepared: div (96 bytes), kept between calls, ") for r in program.remarks)
    assert Plan.from_json(program.plan.to_json()) == program.plan
    calls = {call.kernel: counts for call, *counts in program.plan.call_counts()}
    assert sorted(calls.values()) == [[0, 1], [0, 1], [1, 1]] and len(calls) == len(list(program.plan.calls())) == 3
    assert not any(t.calls for t in program.profile(X)[:2]) and program.profile(X)[2].calls == 1


def test_nothing_else_shares_the_memory_of_what_is_kept(predictor: Predictor) -> None:
    plan = predictor.program.plan
    kept = [(b.offset, b.offset + b.nbytes) for b in plan.buffers if b.region == "prepared"]
    others = [(b.offset, b.offset + b.nbytes) for b in plan.buffers if b.region in ("scratch", "input")]
    assert not any(a < d and c < b for a, b in kept for c, d in others)


def test_it_runs_only_when_it_must(predictor: Predictor) -> None:
    predictor.check()
    predictor.spoil()
    assert predictor.is_spoilt() and predictor.is_spoilt()
    predictor.W.value = predictor.W.value
    predictor.check()
    predictor.spoil()
    with predictor.program._executable.lock:
        predictor.program._executable.prepare_again()
    predictor.check()


def test_only_what_depends_on_what_was_written_runs() -> None:
    A, B = gc.param("A", (6, 6)), gc.param("B", (6, 6))
    x = gc.input("x", ("N", 6))
    both = normalised(normalised(A) @ normalised(B))
    program = gc.compile([x], [x @ normalised(A), x @ normalised(B), x @ both], dims={"N": 8})
    assert [p.variables for p in program.plan.preparations] == [("A",), ("B",), ("A", "B")]
    predictor = Predictor.__new__(Predictor)
    predictor.program = program
    predictor.check()
    predictor.spoil()
    B.value = B.value + 1
    a, b, both_ = program(X)
    assert np.isnan(a).all() and not np.isnan(b).any() and np.isnan(both_).all()
    A.reset()
    predictor.check()


def test_what_depends_on_the_call_stays_in_the_step() -> None:
    W, n, V = gc.param("W", (6, 6)), gc.state("n", (), init=1.0), gc.param("V", (6, 6))
    x = gc.input("x", ("N", 6))
    noise = gc.random.normal((6, 6))
    counted = W * (1 + x.sum())
    chosen = gc.cond(x.sum() > n, lambda: normalised(V), lambda: V.T)
    outputs = [x @ normalised(V + noise), x @ normalised(counted), x @ chosen, x @ normalised(W), x.mean(axis=0)]
    program = gc.compile([x], outputs, {W: W * 0.5}, dims={"N": 8})
    assert not program.plan.preparations
    for turn in range(3):
        n.value = 100 * turn
        record, _ = record_step(program, (X[: 8 - turn],))
        check_step(program, record, tolerance=1e-5)


def test_a_whole_loop_is_prepared() -> None:
    """The spectral norm of a layer that is not trained here, by power iteration."""
    W, u = gc.param("W", (6, 4)), gc.state("u", (4,), init=1.0)
    x = gc.input("x", ("N", 6))

    def turn(v: gc.Symbol) -> gc.Symbol:
        v = W.T @ (W @ v)
        return v / gc.sqrt((v * v).sum())

    v = gc.scan(turn, init=[u], length=5)
    sigma = gc.sqrt(((W @ v) ** 2).sum())
    program = gc.compile([x], [x @ (W / sigma)], dims={"N": 8})
    ahead = [entry for p in program.plan.preparations if "W" in p.variables for entry in p.entries]
    assert any(isinstance(entry, Loop) for entry in ahead)
    assert not any(isinstance(entry, Loop) for entry in program.plan.entries)
    for _ in range(2):
        for _ in range(2):
            record, _ = record_step(program, (X,))
            check_step(program, record, tolerance=1e-5)
        W.value = W.value + 0.5


def test_results_and_updates_may_be_what_is_kept() -> None:
    W, copy, same = gc.param("W", (6, 4)), gc.state("copy", (6, 4)), gc.state("same", (6, 4))
    x = gc.input("x", ("N", 6))
    program = gc.compile([x], [normalised(W), x @ normalised(W)], {copy: normalised(W), same: normalised(W)},
                         dims={"N": 8})
    for turn in range(4):
        results = record_step(program, (X,))[0]
        check_step(program, results, tolerance=1e-5)
        results.results[0][...] = 0  # the caller's own
        copy.value = np.zeros((6, 4))
        if turn == 1:
            W.value = W.value * 2 - 1
    assert same.version == 4 and copy.version == 8


def test_watches_report_in_every_call(capsys: pytest.CaptureFixture[str]) -> None:
    W, n = gc.param("W", (6, 4), init=1.0), gc.state("n")
    x = gc.input("x", ("N", 6))
    gc.print(kept := normalised(W), "kept")
    gc.assert_(W.sum(axis=0) > 0, "W must be positive")
    program = gc.compile([x], [x @ kept], {n: n + 1}, dims={"N": 8})
    assert len(prepared(program)) > 1
    for _ in range(3):
        program(X)
    assert "".join(capsys.readouterr()).count("kept: ") == 3
    W.value = -W.value
    for _ in range(2):
        with pytest.raises(AssertionFailed, match="W must be positive"):
            program(X)
    assert "".join(capsys.readouterr()).count("kept: ") == 2
    W.value = -W.value
    program(X)
    assert n.value == 4


def test_it_can_be_switched_off() -> None:
    plain = Predictor(without=["prepare"])
    assert not plain.program.plan.preparations and not prepared(plain.program)
    assert not any(r.startswith("prepared") for r in plain.program.remarks)
    plain.check()


def test_a_memory_limit_comes_before_it() -> None:
    W = [gc.param(f"W{i}", (64, 64)) for i in range(4)]
    x = gc.input("x", ("N", 64))
    h = x
    for w in W:
        h = gc.relu(h @ normalised(w))
    free = gc.compile([x], [h], dims={"N": 8})
    assert len(prepared(free)) == 4
    tight = gc.compile([x], [h], dims={"N": 8}, memory_limit=free.plan.arena_bytes - 1)
    assert not prepared(tight) and any("nothing is prepared ahead of the step" in r for r in tight.remarks)
    roomy = gc.compile([x], [h], dims={"N": 8}, memory_limit=free.plan.arena_bytes)
    assert roomy.plan == free.plan
    batch = np.random.default_rng(1).random((8, 64), dtype=np.float32)
    np.testing.assert_array_equal(free(batch)[0], tight(batch)[0])
    with pytest.raises(MemoryLimitError, match="at least"):
        gc.compile([x], [h], dims={"N": 8}, memory_limit=1000)


# ---- who writes -----------------------------------------------------------------------------------------------------


def test_every_way_of_writing_is_noticed(tmp_path: pathlib.Path) -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    other = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    x, t = gc.input("x", ("N", 6)), gc.input("t", ("N", 3))
    W = model[0].weight
    with nn.trace(model, train=False):
        out = model(x) + (x @ normalised(W).T).sum()
        predict = gc.compile([x], [out], dims={"N": 8}, seed=1)
    assert predict.plan.preparations
    with nn.trace(model, train=True):
        loss = ((model(x) - t) ** 2).mean()
    train = gc.compile([x, t], [loss], optim.SGD(lr=0.5, momentum=0.9).updates(loss, model.parameters()), dims={"N": 8})
    other.save(tmp_path / "other.safetensors")

    def unchanged() -> None:
        pass

    def assign() -> None:
        W.value = W.value * -2

    def step() -> None:
        train(X, X[:, :3])

    def many() -> None:
        for _ in range(5):
            train(X, X[:, :3])

    def timed() -> None:
        train.profile(X, X[:, :3], repeats=2)

    def state() -> None:
        model.load_state_dict({k: v + 0.25 for k, v in model.state_dict().items()})

    def through_elements() -> None:
        W.elements.write(0.125)

    ways = (unchanged, assign, step, W.reset, many, timed, state, lambda: model.load(tmp_path / "other.safetensors"),
            through_elements, step, unchanged)
    for way in ways:
        way()
        for _ in range(2):
            record, _ = record_step(predict, (X,))
            check_step(predict, record, tolerance=1e-5)
    with pytest.raises(ValueError, match="read-only"):
        W.value[0] = 3
    with pytest.raises(ValueError, match="read-only"):
        W.array[0] = 3


def test_train_and_predict_take_turns() -> None:
    """A generator and a critic with weights that each other's program reads."""
    G, D = gc.param("G", (6, 6)), gc.param("D", (6, 1))
    x = gc.input("x", ("N", 6))
    score = gc.tanh(x @ normalised(G)) @ normalised(D)
    gG, gD = gc.grad(score.mean(), [G, D])
    programs = [
        gc.compile([x], [score.mean()], {G: G - 0.3 * gG}, dims={"N": 8}),
        gc.compile([x], [score.mean()], {D: D + 0.3 * gD}, dims={"N": 8}),
        gc.compile([x], [score], dims={"N": 8}),
    ]
    assert [sorted(p.variables for p in program.plan.preparations) for program in programs] == [
        [("D",)], [("G",)], [("D",), ("G",)]]  # fmt: skip
    for turn in range(20):
        for program in programs if turn % 3 else programs[::-1]:
            record, _ = record_step(program, (X,))
            check_step(program, record, tolerance=1e-4)


def test_larger_batches_compile_again() -> None:
    W, x = gc.param("W", (6, 4)), gc.input("x", ("N", 6))
    program = gc.compile([x], [x @ normalised(W)])
    for count in (2, 5, 1, 40, 3):
        given = np.tile(X, (5, 1))[:count]
        for _ in range(2):
            record, _ = record_step(program, (given,))
            check_step(program, record, tolerance=1e-5)
        W.value = W.value + 1


def test_a_program_from_the_cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path / "programs"))
    first = Predictor()
    first.check()
    second = Predictor()
    assert second.program.from_cache and second.program.memory == first.program.memory
    for _ in range(2):
        second.check()
        second.W.value = second.W.value - 3
    (file,) = ProgramCache(tmp_path / "programs").entries()
    data = file.path.read_bytes()
    file.path.write_bytes(data.replace(b'"preparations"', b'"preparatoins"'))
    with pytest.warns(gc.errors.CacheWarning, match="compiled again"):
        third = Predictor()
    third.check()


def test_threads_that_write_and_threads_that_predict(predictor: Predictor) -> None:
    W, program, stop, wrong = predictor.W, predictor.program, threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            if not np.isfinite(program(X)[0]).all():
                wrong.append(1)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for turn in range(200):
        W.value = np.full((6, 4), 1 + turn)
        if turn % 20 == 0:
            predictor.check()
    stop.set()
    for reader in readers:
        reader.join()
    predictor.check()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_fork_has_variables_of_its_own(predictor: Predictor) -> None:
    predictor.check()
    before = predictor.program(X)[0]
    child = os.fork()
    if child == 0:
        status = 1
        try:
            predictor.check()
            predictor.W.value = predictor.W.value * -3
            predictor.check()
            status = int(np.array_equal(predictor.program(X)[0], before))
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    np.testing.assert_array_equal(predictor.program(X)[0], before)
    predictor.W.value = predictor.W.value + 1
    predictor.check()


def test_any_number_of_threads_gives_the_same_bits() -> None:
    found = []
    for threads in (1, 2, 3):
        A, B = gc.param("A", (300, 200)), gc.param("B", (200, 300))
        x = gc.input("x", ("N", 200))
        program = gc.compile([x], [(x @ B) @ normalised(gc.tanh(A @ B))], dims={"N": 64}, threads=threads)
        ahead = [entry for p in program.plan.preparations for entry in p.entries]
        assert any(isinstance(entry, Call) and entry.shared for entry in ahead)
        batch, executable = np.random.default_rng(0).random((64, 200), dtype=np.float32), program._executable
        assert executable is not None
        seen = []
        for turn in range(6):
            with executable.lock:
                seen.append(executable.step([batch], threads=threads)[0].tobytes())
            if turn % 2:
                A.value = A.value * 1.5
        assert seen[0] == seen[1] != seen[2] == seen[3] != seen[4] == seen[5]
        check_step(program, record_step(program, (batch,))[0], tolerance=1e-4)
        found.append(seen)
    assert found[0] == found[1] == found[2]


# ---- random graphs --------------------------------------------------------------------------------------------------

SIZE = 4
OPERATIONS: dict[str, Callable[[gc.Symbol, gc.Symbol], gc.Symbol]] = {
    "matmul": lambda a, b: a @ b / SIZE,
    "normalise": lambda a, b: normalised(a + 3),
    "mul": lambda a, b: a * b,
    "transpose": lambda a, b: a.T,
    "relu": lambda a, b: gc.relu(a),
    "softmax": lambda a, b: gc.softmax(a),
    "row": lambda a, b: a + b.sum(axis=0, keepdims=True) / SIZE,
}
steps = st.tuples(st.sampled_from(sorted(OPERATIONS)), st.integers(0, 9), st.integers(0, 9))
recipes = st.lists(steps, min_size=2, max_size=7)
actions = st.lists(st.tuples(st.sampled_from(("write", "train", "predict", "predict")), st.integers(0, 2)),
                   min_size=4, max_size=12)  # fmt: skip


def grown(recipe: list[tuple[str, int, int]], leaves: list[gc.Symbol]) -> list[gc.Symbol]:
    values = list(leaves)
    for operation, i, j in recipe:
        a, b = values[i % len(values)], values[j % len(values)]
        values.append(OPERATIONS[operation](a, b))
    return values


@settings(max_examples=14)
@given(recipes, recipes, actions)
def test_random_programs_that_share_variables(one: Any, other: Any, todo: list[tuple[str, int]]) -> None:
    variables = [gc.param(name, (SIZE, SIZE)) for name in "abc"]
    x = gc.input("x", (SIZE, SIZE))
    trained, shown = (grown(recipe, [*variables, x]) for recipe in (one, other))
    news = {variables[i]: gc.tanh(trained[-1 - i]) for i in range(len(one) % 3 + 1)}
    train = gc.compile([x], [trained[-1].mean()], news, cache=False)
    predict = gc.compile([x], shown[-2:], cache=False)
    rng = np.random.default_rng(len(todo))
    for action, which in todo:
        if action == "write":
            variables[which].value = rng.standard_normal((SIZE, SIZE))
            continue
        program = train if action == "train" else predict
        record, _ = record_step(program, (rng.random((SIZE, SIZE), dtype=np.float32),))
        check_step(program, record, tolerance=1e-4)
