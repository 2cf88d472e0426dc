"""The native driver: loops, strides, counters, barriers, steps; and what a table costs a call."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from graphc.errors import VerifyError
from graphc.ir.buffers import aligned_zeros
from graphc.ir.types import as_dtype
from graphc.kernel.plan import Barrier, Branch, Call, Entry, Loop, Plan, While
from graphc.runtime.driver import STEPS_WANTED, STOP, control_block, driver
from graphc.runtime.loader import LoadedCode, load
from graphc.runtime.table import Copy, Table, build, job_list
from graphc.runtime.threads import STEPS, team


@pytest.fixture(scope="module")
def code(objects: dict[str, bytes]) -> LoadedCode:
    return load(objects)


@pytest.fixture
def table(code: LoadedCode) -> Callable[..., Table]:
    def make(*entries: Entry, extents: dict[str, int] | None = None, after: tuple[Copy, ...] = (),
             counters: Sequence[int] = (), **arrays: np.ndarray) -> Table:
        plan = Plan("test", (), entries, 0, (), (), (), extents=extents or {})
        addresses = {name: array.ctypes.data for name, array in arrays.items()}
        return build(plan, code.addresses, addresses, after=after, counters=counters)

    return make


def run(*tables: Table, control: np.ndarray | None = None) -> int:
    """A table a thread; several threads meet where `control` says."""
    control = control_block(team().meeting_place) if control is None else control
    jobs = job_list(tables, control)
    with STEPS:
        assert team().hire(len(tables)) == len(tables)
        return driver().run(jobs.ctypes.data, len(tables), team().address)


def test_an_empty_table_is_a_step(table: Callable[..., Table]) -> None:
    assert run(table()) == 1


def test_calls_run_in_order_and_see_counts(table: Callable[..., Table]) -> None:
    x, y, z = np.arange(6, dtype=np.float32), np.zeros(6, np.float32), np.zeros(6, np.float32)
    made = table(Call("double", ("x", "y"), ("N",)), Barrier(), Call("double", ("y", "z"), ("N",)),
                 extents={"M": 5, "N": 1}, x=x, y=y, z=z)
    assert run(made) == 1
    np.testing.assert_array_equal(z, [0, 4, 8, 0, 0, 0])
    made.cells[1] = 2
    assert run(made) == 1
    np.testing.assert_array_equal(z, 4 * x)
    assert [(row, call.kernel) for row, call in made.sites] == [(0, "double"), (2, "double")]


def test_a_loop_moves_its_strided_operands_and_puts_them_back(table: Callable[..., Table]) -> None:
    x, y = np.arange(12, dtype=np.float32), np.zeros(12, np.float32)
    body = (Call("double", ("x", "y"), ("N",)),)
    made = table(Loop("t", 4, body, (("x", 12), ("y", -12))), extents={"N": 1}, x=x, y=y[9:])
    before = made.args.copy()
    for _ in range(2):
        y[:] = 0
        assert run(made) == 1
        np.testing.assert_array_equal(y.reshape(4, 3)[::-1], 2 * x.reshape(4, 3))
        np.testing.assert_array_equal(made.args, before)


@pytest.mark.parametrize(("outer", "inner"), [(3, 4), (1, 1), (1, 4), (3, 0), (0, 4)])
def test_nested_loops_index_and_stride(table: Callable[..., Table], outer: int, inner: int) -> None:
    y = np.full((4, 5), -1)
    call = Call("index", ("y",), ("a", "b"))
    strides = (Loop("b", inner, (call,), (("y", 8),)),)
    made = table(Loop("a", outer, strides, (("y", 40),)), y=y)
    before = made.args.copy()
    run(made)
    expected = np.full((4, 5), -1)
    expected[:outer, :inner] = 100 * np.arange(outer)[:, None] + np.arange(inner)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(made.args, before)


def test_an_inner_loop_of_the_same_name_hides_the_outer(table: Callable[..., Table]) -> None:
    y, z = np.zeros(2, int), np.zeros(3, int)
    inner = Loop("t", 3, (Call("index", ("z",), ("t", "N")),), (("z", 8),))
    run(table(Loop("t", 2, (inner, Call("index", ("y",), ("t", "N"))), (("y", 8),)), extents={"N": 7}, y=y, z=z))
    assert y.tolist() == [7, 107] and z.tolist() == [7, 107, 207]


def test_a_stride_holds_for_every_use_in_the_body_and_no_other(table: Callable[..., Table]) -> None:
    w = np.zeros(3, int)
    twice = (Call("add_one", ("w",)), Call("add_one", ("w",)))
    run(table(Call("add_one", ("w",)), Loop("t", 3, twice, (("w", 8),)), Call("add_one", ("w",)), w=w))
    assert w.tolist() == [4, 2, 2]


@pytest.mark.parametrize("holds", [True, False])
@pytest.mark.parametrize("both", [True, False])
def test_a_branch_runs_one_side(table: Callable[..., Table], holds: bool, both: bool) -> None:
    a, b, c = (np.zeros(1, int) for _ in "abc")
    orelse = (Call("add_one", ("b",)), Call("add_one", ("b",))) if both else ()
    branch = Branch("p", (Call("add_one", ("a",)),), orelse)
    run(table(branch, Call("add_one", ("c",)), p=np.array([holds, not holds]), a=a, b=b, c=c))
    assert (a[0], b[0], c[0]) == (int(holds), 2 * int(both and not holds), 1)


def test_a_branch_in_a_loop_reads_the_predicate_of_its_turn(table: Callable[..., Table]) -> None:
    p, y, z = np.array([1, 0, 0, 1, 1], bool), np.full(5, -1), np.zeros(1, int)
    branch = Branch("p", (Call("index", ("y",), ("t", "N")),), (Call("add_one", ("z",)),))
    made = table(Loop("t", 5, (branch,), (("p", 1), ("y", 8))), extents={"N": 3}, p=p, y=y, z=z)
    before = made.args.copy()
    for _ in range(2):
        run(made)
        np.testing.assert_array_equal(y, [3, -1, -1, 303, 403])
        np.testing.assert_array_equal(made.args, before)
    assert z[0] == 4


def test_branches_within_branches(table: Callable[..., Table]) -> None:
    for first, second in ((1, 1), (1, 0), (0, 1), (0, 0)):
        found = {name: np.zeros(1, int) for name in "abc"}
        inner = Branch("q", (Call("add_one", ("a",)),), (Call("add_one", ("b",)),))
        run(table(Branch("p", (inner,), (Call("add_one", ("c",)),)), p=np.array(first, bool), q=np.array(second, bool),
                  **found))
        assert [int(v[0]) for v in found.values()] == [first * second, first * (1 - second), 1 - first]


@pytest.mark.parametrize(("bound", "turns"), [(-1, 3), (10, 3), (3, 3), (2, 2), (1, 1), (0, 0)])
def test_a_loop_with_a_test_ends_by_itself_or_at_its_bound(
    table: Callable[..., Table], bound: int, turns: int
) -> None:
    tested, done, go = np.zeros(1, int), np.zeros(1, int), np.zeros(1, int)
    test = (Call("add_one", ("tested",)), Call("below", ("done", "limit", "go")))
    made = table(While("w", test, "go", (Call("add_one", ("done",)),), bound), tested=tested, done=done, go=go,
                 limit=np.array([3]))
    for _ in range(2):
        tested[0] = done[0] = 0
        run(made)
        assert done[0] == turns and tested[0] == turns + int(bound < 0 or turns < bound)


def test_a_loop_with_a_test_in_a_loop(table: Callable[..., Table]) -> None:
    """Each turn of the outer loop counts up to the limit of its turn."""
    counters, go, limits = np.zeros(4, int), np.zeros(1, int), np.array([2, 0, 5, 1])
    inner = While("w", (Call("below", ("n", "limit", "go")),), "go", (Call("add_one", ("n",)),))
    run(table(Loop("t", 4, (inner,), (("n", 8), ("limit", 8))), n=counters, limit=limits, go=go))
    np.testing.assert_array_equal(counters, limits)


def test_copies_and_the_step_counter_come_last(table: Callable[..., Table]) -> None:
    w, copy, counter = np.zeros(1, int), np.zeros(1, int), np.zeros(2, int)
    after = (Copy(copy.ctypes.data, w.ctypes.data, 8),)
    made = table(Call("add_one", ("w",)), after=after, counters=[counter.ctypes.data + 8], w=w)
    assert [run(made), run(made)] == [1, 1]
    assert w[0] == copy[0] == 2 and counter.tolist() == [0, 2]


def test_many_steps_in_one_call(table: Callable[..., Table]) -> None:
    w, control = np.zeros(1, int), control_block()
    control[STEPS_WANTED] = 1000
    assert run(table(Call("add_one", ("w",)), w=w), control=control) == 1000
    assert w[0] == 1000


def test_a_stop_flag_is_obeyed_between_steps_only(table: Callable[..., Table]) -> None:
    a, b, control = np.zeros(1, int), np.zeros(1, int), control_block()
    control[STEPS_WANTED] = 10**9
    # The program's first kernel raises its own stop flag: the step that does so is finished all the same.
    made = table(Call("add_one", ("a",)), Call("add_one", ("stop",)), Call("add_one", ("b",)), a=a, b=b,
                 stop=control[STOP : STOP + 1])
    assert run(made, control=control) == 1
    assert a[0] == b[0] == 1
    assert run(made, control=control) == 0
    assert a[0] == b[0] == 1


def test_a_stop_flag_from_another_thread(table: Callable[..., Table]) -> None:
    a, b, control = np.zeros(1, int), np.zeros(1, int), control_block()
    control[STEPS_WANTED] = 10**12
    made = table(Call("add_one", ("a",)), Call("nothing", ()), Call("add_one", ("b",)), a=a, b=b)
    timer = threading.Timer(0.05, lambda: control.__setitem__(STOP, 1))
    timer.start()
    done = run(made, control=control)
    timer.join()
    assert done == a[0] == b[0] > 0


def test_threads_walk_their_own_tables_and_meet_at_barriers(table: Callable[..., Table]) -> None:
    """Thread 0 adds before the barrier; every thread copies what it sees after it."""
    threads, steps = 3, 200
    shared, seen = aligned_zeros((2,), "i64"), np.zeros((threads, 2), int)
    calls, control = aligned_zeros((threads,), "i64"), control_block(team().meeting_place)
    control[STEPS_WANTED] = steps
    after = (Copy(shared.ctypes.data + 8, shared.ctypes.data, 8),)
    entries = (Call("thread", ("calls",), shared=1), Barrier(), Call("copy2", ("shared", "mine"), shared=1), Barrier())
    tables = [table(*entries, shared=shared, mine=seen[thread], calls=calls, after=after,
                    counters=[shared.ctypes.data]) for thread in range(threads)]
    assert run(*tables, control=control) == steps
    assert calls.tolist() == [threads] * threads
    assert shared.tolist() == [steps, steps - 1]
    # In the last step each thread saw the counter of that step, and the copy made in the step before.
    assert seen.tolist() == [[steps - 1, steps - 2]] * threads


def test_threads_of_a_table_without_barriers_do_the_same_steps(table: Callable[..., Table]) -> None:
    """A fast thread 0 must not decide about the next step before the others have begun this one."""
    threads, steps, turns = 3, 3, 300
    counters, control = [aligned_zeros((1,), "i64") for _ in range(threads)], control_block(team().meeting_place)
    control[STEPS_WANTED] = steps
    slow = (Loop("t", 50, (Call("nothing", ()),)),)
    tables = [table(*(slow if thread else ()), Call("add_one", ("w",), shared=1), w=counters[thread])
              for thread in range(threads)]
    assert {run(*tables, control=control) for _ in range(turns)} == {steps}
    assert [int(counter[0]) for counter in counters] == [steps * turns] * threads


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (Call("absent", ()), "machine code 'absent'"),
        (Call("add_one", ("v",)), "buffer 'v'"),
        (Call("double", ("w", "w"), ("K",)), "runtime extent 'K'"),
        (Loop("t", 2, (), (("v", 8),)), "buffer 'v'"),
        (Branch("v", ()), "buffer 'v'"),
        (While("t", (), "v", ()), "buffer 'v'"),
    ],
)
def test_names_that_are_not_there(table: Callable[..., Table], entry: Entry, message: str) -> None:
    with pytest.raises(VerifyError, match=message):
        table(entry, w=np.zeros(1, int))


@pytest.mark.parametrize("name", ["i32", "i64", "u8"])
def test_the_first_value_outside_a_range(name: str) -> None:
    outside, dtype = driver().outside[name], as_dtype(name).numpy
    info = np.iinfo(dtype)
    values = np.array([3, 9, 0, 10, 200]).astype(dtype)
    assert outside(values.ctypes.data, 5, 0, 10) == 3
    assert outside(values.ctypes.data, 3, 0, 10) == -1
    assert outside(values.ctypes.data, 5, 1, 300) == 2
    assert outside(values.ctypes.data, 0, 0, 0) == -1
    extremes = np.array([info.max, info.min], dtype)
    assert outside(extremes.ctypes.data, 2, int(info.min), int(info.max)) == 0


def test_a_call_costs_little(table: Callable[..., Table]) -> None:
    """About 5 ns on the machine this was written on; ten times that would be a fault, not noise."""
    made = table(*[Call("nothing", ()) for _ in range(1000)])
    best = min(_seconds(made) for _ in range(50))
    assert best / 1000 < 100e-9


def _seconds(table: Table) -> float:
    begin = time.perf_counter()
    run(table)
    return time.perf_counter() - begin
