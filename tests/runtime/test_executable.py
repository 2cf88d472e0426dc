"""Programs made of hand-written kernels: calls, counts, updates, versions, threads, and what is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graphc.errors import CompileError, InputError, StateError, VerifyError
from graphc.ir.buffers import aligned_empty
from graphc.kernel.plan import Buffer, Call, Check, Loop, Plan, Preparation, Update
from graphc.runtime.executable import Executable

Make = Callable[..., Executable]

# y = 2 * x, m = mean(x); a label input that nothing reads but the check.
DOUBLE = Plan(
    name="double",
    buffers=(
        Buffer("x", "f32", (4, 3), "input", 0, 48, "N,3"),
        Buffer("t", "i32", (4,), "input", 64, 16, "N"),
        Buffer("y", "f32", (4, 3), "scratch", 128, 48, "N,3"),
        Buffer("m", "f32", (), "scratch", 192, 4, ""),
    ),
    entries=(Call("double", ("x", "y"), ("N",)), Call("mean", ("x", "m"), ("N",))),
    arena_bytes=256,
    inputs=("x", "t"),
    results=("y", "m"),
    variables=(),
    extents={"N": 4},
    checks=(Check("t", 0, 10, "cross_entropy at a.py:1"),),
)

# w -= g in place; best = w (a copy after the kernels); counter += 1; results: w and the random state that was used.
TRAIN = Plan(
    name="train",
    buffers=(
        Buffer("g", "f32", (4,), "input", 0, 16, "4"),
        Buffer("w", "f32", (4,), "variable", 0, 16, "4"),
        Buffer("counter", "i64", (), "variable", 1, 8, ""),
        Buffer("best", "f32", (2, 2), "variable", 2, 16, "2,2"),
        Buffer("w_view", "f32", (2, 2), "variable", 0, 16, "2,2"),
        Buffer("rng", "i64", (2,), "rng", 0, 16, "2"),
        Buffer("used", "i64", (2,), "scratch", 64, 16, "2"),
    ),
    entries=(Call("subtract", ("w", "g")), Call("add_one", ("counter",)), Call("copy2", ("rng", "used"))),
    arena_bytes=128,
    inputs=("g",),
    results=("w", "used"),
    variables=("w", "counter", "best"),
    updates=(Update("best", "w_view"),),
    written=("w", "counter"),
)


@pytest.fixture
def double(executable: Make) -> Executable:
    return executable(DOUBLE)


@pytest.fixture
def owners(variable: Callable[[Any, str], Any]) -> dict[str, Any]:
    return {"w": variable([1, 2, 3, 4], "f4"), "counter": variable(0, "i8"), "best": variable(np.zeros((2, 2)), "f4")}


def inputs(n: int) -> dict[str, np.ndarray]:
    return {"x": np.arange(3 * n, dtype=np.float32).reshape(n, 3), "t": np.zeros(n, np.int32)}


# ---- calls ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [4, 1, 3, 2, 4])
def test_any_count_up_to_the_capacity(double: Executable, n: int) -> None:
    given = inputs(n)
    y, m = double(given)
    np.testing.assert_array_equal(y, 2 * given["x"])
    assert y.dtype == m.dtype == np.float32
    assert m.shape == () and m == given["x"].mean()


def test_counts_change_from_call_to_call(double: Executable) -> None:
    for n in (4, 1, 4, 2, 0, 3):
        assert double(inputs(n))[0].shape == (n, 3)


def test_an_empty_batch_has_a_nan_mean_as_in_numpy(double: Executable) -> None:
    y, m = double(inputs(0))
    assert y.shape == (0, 3) and np.isnan(m)


def test_results_are_fresh_arrays(double: Executable) -> None:
    first = double(inputs(4))
    kept = [array.copy() for array in first]
    double({name: array + 1 for name, array in inputs(4).items()})
    for array, copy in zip(first, kept, strict=True):
        np.testing.assert_array_equal(array, copy)
        assert array.flags.owndata and array.flags.writeable


def test_other_array_likes(double: Executable) -> None:
    rows = [[1, 2, 3], [4, 5, 6]]
    expected = 2.0 * np.array(rows)
    for x in (rows, np.array(rows), np.array(rows, ">f8"), np.asfortranarray(np.array(rows, "f4"))):
        np.testing.assert_array_equal(double({"t": [0, 9], "x": x})[0], expected)


def test_the_program_starts_without_warm_up_of_stale_memory(executable: Make) -> None:
    """Two executables of one plan share nothing."""
    first, second = executable(DOUBLE), executable(DOUBLE)
    y, _ = first(inputs(4))
    second(inputs(2))
    np.testing.assert_array_equal(first(inputs(4))[0], y)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": None}, r"program 'double': input 'x' expected f32\[N<=4,3\], got NoneType, which is no array of num"),
        ({"x": np.zeros((5, 3)), "t": np.zeros(5, int)}, "N = 5 is more than the capacity 4"),
        ({"x": np.zeros((2, 4))}, "axis 1 is 4, not 3"),
        ({"t": np.zeros(3, int)}, "N = 3, but input 'x' has N = 2"),
        ({"t": np.zeros(2)}, "got dtype float64; floats are not cut to i32"),
        ({"t": np.array([0, 10])}, r"10 at index \[1\], outside 0 <= t < 10 \(needed by cross_entropy at a.py:1\)"),
        ({"z": 1}, "'z' is no input of it; it takes x: f32"),
    ],
)
def test_bad_inputs(double: Executable, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        double(inputs(2) | changes)
    np.testing.assert_array_equal(double(inputs(2))[0], 2 * inputs(2)["x"])  # still works


def test_missing_inputs(double: Executable) -> None:
    with pytest.raises(InputError, match="input 't' is missing"):
        double({"x": np.zeros((2, 3))})
    with pytest.raises(InputError, match=r"input 't' is missing; 'tt' is no input of it \(did you mean 't'"):
        double({"x": np.zeros((2, 3)), "tt": np.zeros(2, int)})


def test_many_shapes_do_not_grow_memory(executable: Make) -> None:
    plan = replace(DOUBLE, buffers=(Buffer("x", "f32", (300, 3), "input", 0, 3600, "N,3"),
                                    Buffer("t", "i32", (300,), "input", 3648, 1200, "N"),
                                    Buffer("y", "f32", (300, 3), "scratch", 4864, 3600, "N,3"),
                                    Buffer("m", "f32", (), "scratch", 8512, 4)), arena_bytes=8576, extents={"N": 300})
    wide = executable(plan)
    for n in range(301):
        assert wide(inputs(n) | {"t": np.zeros(n, int)})[0].shape == (n, 3)
    assert len(wide._bindings) <= 256


# ---- variables --------------------------------------------------------------------------------------------------


def test_updates_versions_and_random_state(executable: Make, owners: dict[str, Any]) -> None:
    train = executable(TRAIN, owners, seed=7)
    for step in range(3):
        w, used = train({"g": np.full(4, 0.5)})
        expected = np.array([1, 2, 3, 4]) - 0.5 * (step + 1)
        np.testing.assert_array_equal(w, expected)
        np.testing.assert_array_equal(owners["w"].array, expected)
        np.testing.assert_array_equal(owners["best"].array, expected.reshape(2, 2))
        assert owners["counter"].array == step + 1
        assert used.tolist() == [7, step]
        assert {owner.version for owner in owners.values()} == {step + 1}
    assert train.steps == 3
    train.steps = 10
    assert train({"g": np.zeros(4)})[1].tolist() == [7, 10]


def test_a_refused_call_changes_nothing(executable: Make, owners: dict[str, Any]) -> None:
    train = executable(TRAIN, owners)
    before = owners["w"].array.copy()
    for bad in (np.zeros(5), np.zeros(4, complex), [[0.0] * 4]):
        with pytest.raises(InputError):
            train({"g": bad})
    np.testing.assert_array_equal(owners["w"].array, before)
    assert train.steps == 0 and {owner.version for owner in owners.values()} == {0}


def test_two_programs_share_a_variable(executable: Make, owners: dict[str, Any]) -> None:
    read = Plan("read", (Buffer("w", "f32", (4,), "variable", 0, 16, "4"),), (), 0, (), ("w",), ("w",))
    train, predict = executable(TRAIN, owners), executable(read, owners)
    for _ in range(3):
        w, _ = train({"g": np.ones(4)})
        np.testing.assert_array_equal(predict({})[0], w)
    owners["w"].write(5)  # as an assignment to the parameter does
    np.testing.assert_array_equal(predict({})[0], 5)
    np.testing.assert_array_equal(train({"g": np.ones(4)})[0], 4)


def test_a_preparation_runs_when_a_variable_of_its_own_was_written(executable: Make, variable: Any) -> None:
    """y = x + 1 in each step, count += 1 whenever `seen` was written, counted from the first step on."""
    buffers = (Buffer("count", "i64", (), "prepared", 0, 8), Buffer("ones", "i64", (), "prepared", 64, 8),
               Buffer("y", "i64", (), "scratch", 128, 8), Buffer("a", "i64", (), "variable", 0, 8),
               Buffer("b", "i64", (), "variable", 1, 8))
    ahead = (Preparation((), (Call("add_one", ("ones",)),)), Preparation(("a", "b"), (Call("add_one", ("count",)),)))
    plan = Plan("ahead", buffers, (Call("add_one", ("y",)),), 192, (), ("count", "ones", "y"), ("a", "b"),
                preparations=ahead)
    owners = {"a": variable(0, "i8"), "b": variable(0, "i8")}
    write = executable(Plan("write", (replace(buffers[4], offset=0),), (Call("add_one", ("b",)),), 0, (), (), ("b",),
                            written=("b",)), owners)  # fmt: skip
    step = executable(Plan.from_json(plan.to_json()), owners)
    counts = []
    a, b = owners["a"], owners["b"]
    for action in (None, None, lambda: a.write(7), None, lambda: write({}), None, lambda: b.write(7),
                   lambda: (a.write(8), b.write(8), write({})), None):  # fmt: skip
        if action is not None:
            action()
        counts.append([int(result) for result in step({})])
    assert [c for c, _, _ in counts] == [1, 1, 2, 2, 3, 3, 4, 5, 5]
    assert {ones for _, ones, _ in counts} == {1} and [y for *_, y in counts] == list(range(1, 10))
    with step.lock:
        step.prepare_again()
    assert [int(result) for result in step({})] == [6, 2, 10]
    written = replace(plan, written=("a",))
    with pytest.raises(VerifyError, match="written by the step itself"):
        executable(written, owners)
    with pytest.raises(VerifyError, match="is no variable"):
        executable(replace(plan, preparations=(Preparation(("y",), ()),)), owners)


def test_constants_and_loops(executable: Make) -> None:
    """y[t] = 2 * c[t] for each row of a constant."""
    buffers = (Buffer("c", "f32", (4, 3), "constant", 0, 48, "4,3"), Buffer("y", "f32", (4, 3), "scratch", 0, 48))
    loop = Loop("t", 4, (Call("double", ("c", "y"), ("one",)),), (("c", 12), ("y", 12)))
    plan = Plan("rows", buffers, (loop,), 64, (), ("y", "c"), (), ("c",), {"one": 1})
    given = np.arange(12, dtype=np.float32).reshape(3, 4).T
    rows = executable(plan, constants={"c": given})
    kept = given.copy()
    given[...] = 0  # the program has its own copy
    for _ in range(2):
        y, c = rows({})
        np.testing.assert_array_equal(c, kept)
        np.testing.assert_array_equal(y, 2 * kept)


# ---- threads ----------------------------------------------------------------------------------------------------


def test_calls_from_several_threads_take_turns(executable: Make, owners: dict[str, Any]) -> None:
    train, failures = executable(TRAIN, owners), []

    def work(number: int) -> None:
        for _ in range(200):
            w, used = train({"g": np.ones(4, np.float32)})
            if w[0] != 1 - (used[1] + 1):  # both of one step
                failures.append((number, w, used))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert owners["counter"].array == train.steps == owners["w"].version == 800


def test_a_call_keeps_the_arena_to_itself(executable: Make) -> None:
    """The first kernel takes a while without the global lock; no other call may replace the inputs meanwhile."""
    buffers = (Buffer("x", "f32", (1, 3), "input", 0, 12), Buffer("y", "f32", (1, 3), "scratch", 64, 12),
               Buffer("waste", "i64", (), "scratch", 128, 8))
    entries = (Call("spin", ("waste",)), Call("double", ("x", "y"), ("one",)))
    plan = Plan("slow", buffers, entries, 192, ("x",), ("y",), (), extents={"one": 1})
    slow, wrong = executable(plan), []

    def work(number: int) -> None:
        for _ in range(10):
            (y,) = slow({"x": np.full((1, 3), number, np.float32)})
            if (y != 2 * number).any():
                wrong.append((number, y))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_kernels_run_without_the_global_lock(executable: Make, variable: Callable[[Any, str], Any]) -> None:
    plan = Plan("spin", (Buffer("w", "i64", (), "variable", 0, 8),), (Call("spin", ("w",)),) * 100, 0, (), (), ("w",),
                written=("w",))
    spin, stopped, ticks = executable(plan, {"w": variable(0, "i8")}), threading.Event(), 0

    def work() -> None:
        spin({})
        stopped.set()

    worker = threading.Thread(target=work)
    worker.start()
    while not stopped.wait(0.001):
        ticks += 1
    worker.join()
    assert ticks > 3


# ---- plans that contradict themselves ---------------------------------------------------------------------------


def changed(plan: Plan, name: str, **changes: Any) -> Plan:
    return replace(plan, buffers=tuple(replace(b, **changes) if b.name == name else b for b in plan.buffers))


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (changed(TRAIN, "used", offset=120), "does not fit into 128 bytes"),
        (changed(TRAIN, "used", offset=-8), "does not fit"),
        (changed(TRAIN, "used", nbytes=4096), "does not fit"),
        (changed(TRAIN, "w_view", offset=3), "lies nowhere"),
        (changed(TRAIN, "w_view", region="attic"), "lies nowhere"),
        (changed(TRAIN, "w_view", shape=(4, 2), nbytes=32), "does not fit into 16 bytes"),
        (changed(TRAIN, "used", region="attic"), "lies nowhere"),
        (changed(TRAIN, "g", dims="N"), "is not of shape"),
        (changed(TRAIN, "g", dims="5"), "is not of shape"),
        (replace(TRAIN, updates=(Update("best", "used"),)), "same type"),
        (replace(TRAIN, updates=(Update("best", "w_view"), Update("w_view", "best"))), "no target itself"),
        (replace(TRAIN, written=("g",)), "'g' is no variable, but lies in the input"),
        (replace(TRAIN, entries=(Call("absent", ()),)), "'absent', for which there is no machine code"),
        (replace(TRAIN, entries=(Call("subtract", ("w", "absent")),)), "buffer 'absent'"),
        (replace(TRAIN, checks=(Check("w", 0, 1),)), "names no input"),
    ],
)
def test_bad_plans(executable: Make, owners: dict[str, Any], plan: Plan, message: str) -> None:
    with pytest.raises(VerifyError, match=message):
        executable(plan, owners)


def test_variables_and_constants_that_are_missing_or_do_not_fit(executable: Make, owners: dict[str, Any]) -> None:
    with pytest.raises(VerifyError, match="needs the variable 'counter'"):
        executable(TRAIN, {"w": owners["w"]})
    wrong = {
        "holds float64": np.zeros(4),
        r"holds float32\[5\], but the program was compiled for float32\[4\]": np.zeros(5, np.float32),
        "64 bytes": aligned_empty((5,), "f32")[1:],
    }
    for message, array in wrong.items():
        owners["w"].array = array
        with pytest.raises(StateError, match=message):
            executable(TRAIN, owners)
    plan = Plan("c", (Buffer("c", "f32", (2,), "constant", 0, 8),), (), 0, (), ("c",), (), ("c",))
    with pytest.raises(VerifyError, match="needs the constant 'c'"):
        executable(plan)
    with pytest.raises(VerifyError, match=r"should be f32\[2\], got float32\[3\]"):
        executable(plan, constants={"c": np.zeros(3, np.float32)})


def test_seeds_out_of_range_and_broken_machine_code(executable: Make, owners: dict[str, Any]) -> None:
    for seed in (-1, 2**63):
        with pytest.raises(InputError, match="seed"):
            executable(TRAIN, owners, seed=seed)
    with pytest.raises(CompileError, match="no object file"):
        Executable(DOUBLE, {"double": b"junk", "mean": b"junk"}, {}, {}, 0)
