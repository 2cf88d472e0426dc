"""The team of worker threads: orders, sleep, exit, fork, Ctrl-C, and steps of several Python threads."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from graphc.errors import GraphcWarning
from graphc.kernel.plan import Barrier, Buffer, Call, Loop, Plan
from graphc.runtime import executable as executable_module
from graphc.runtime.cache import ProgramCache, ProgramImage
from graphc.runtime.executable import Executable
from graphc.runtime.profile import profile
from graphc.runtime.threads import STEPS, Team, team

MUCH = 10**9  # nanoseconds that a call claims to take: enough for any number of threads

# Every thread notes that it is there; thread 0 counts; every thread copies the count, many times.
TOGETHER = Plan(
    "together",
    (Buffer("there", "i64", (8,), "scratch", 0, 64), Buffer("seen", "i64", (2,), "scratch", 128, 16),
     Buffer("n", "i64", (2,), "variable", 0, 16)),
    (Call("thread", ("there",), shared=MUCH), Barrier(),
     Loop("t", 20, (Call("add_one", ("n",)), Barrier(), Call("copy2", ("n", "seen"), shared=MUCH), Barrier()))),
    192, (), ("there", "seen"), ("n",), written=("n",),
)


@pytest.fixture
def make(objects: dict[str, bytes], variable: Callable[..., Any]) -> Callable[..., Executable]:
    def make(threads: int) -> Executable:
        return Executable(TOGETHER, objects, {"n": variable([0, 0], "i8")}, {}, 0, threads=threads)

    return make


@pytest.fixture
def own_team() -> Iterator[Team]:
    made = Team(8)
    yield made
    made.dismiss()


def on(program: Executable, threads: int) -> list[list[int]]:
    with STEPS:
        return [r.tolist() for r in program.step([], threads=threads)]


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 8])
def test_each_thread_has_its_share(make: Callable[..., Executable], threads: int) -> None:
    program = make(8)
    for turn in range(1, 51):
        there, seen = on(program, threads)
        assert there == [threads] * threads + there[threads:] and seen == [20 * turn, 0]
    assert program.steps == 50


def test_numbers_of_threads_may_change_from_step_to_step(make: Callable[..., Executable]) -> None:
    program = make(4)
    for turn, threads in enumerate([1, 4, 2, 3, 1, 2, 4, 4, 1, 3] * 20, 1):
        assert on(program, threads)[1] == [20 * turn, 0]


def test_calls_choose_how_many_threads_they_use(
    make: Callable[..., Executable], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(step=1e-3)  # so that a step takes a millisecond, whatever the machine does
    monkeypatch.setattr(executable_module, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    program, used = make(3), set()
    for turn in range(1, 40):
        there, seen = program({})
        used.add(int(there[0]))
        assert seen.tolist() == [20 * turn, 0]
    assert used == {1, 2, 3}  # all are tried to see which is quickest


def test_sleepers_are_woken(make: Callable[..., Executable]) -> None:
    program = make(3)
    for turn in range(1, 21):
        assert on(program, 3)[1] == [20 * turn, 0]
        time.sleep(0.002)  # a hundred times as long as workers spin


def test_little_work_runs_on_one_thread(objects: dict[str, bytes], variable: Callable[..., Any]) -> None:
    entries = tuple(Call(e.kernel, e.operands, shared=10) if isinstance(e, Call) and e.shared else e
                    for e in TOGETHER.entries)
    plan = Plan("small", TOGETHER.buffers, entries, 192, (), ("there", "seen"), ("n",), written=("n",))
    program = Executable(plan, objects, {"n": variable([0, 0], "i8")}, {}, 0, threads=4)
    assert program.threads_for([]) == 4  # the loop's shared calls are counted with their turns
    small = Plan("small", TOGETHER.buffers, entries[:1], 192, (), ("there",), ("n",))
    program = Executable(small, objects, {"n": variable([0, 0], "i8")}, {}, 0, threads=4)
    assert program.threads_for([]) == 1
    assert {int(program({})[0][0]) for _ in range(20)} == {1}


def test_work_grows_with_the_counts_of_a_call(objects: dict[str, bytes]) -> None:
    work = 8 * executable_module._LEAST_SHARE
    buffers = (Buffer("x", "f32", (8, 3), "input", 0, 96, "N,3"), Buffer("y", "f32", (8, 3), "scratch", 128, 96, "N,3"))
    plan = Plan("p", buffers, (Call("double", ("x", "y"), ("N",), shared=work),), 256, ("x",), ("y",), (),
                extents={"N": 8})
    program = Executable(plan, objects, {}, {}, 0, threads=6)
    found = {n: program.threads_for([np.zeros((n, 3))]) for n in (0, 1, 2, 4, 8)}
    assert found == {0: 1, 1: 1, 2: 2, 4: 4, 8: 6}


def test_profile_times_the_longest_share(make: Callable[..., Executable]) -> None:
    program = make(3)
    times = profile(program, {}, repeats=3)
    assert [(t.kernel, t.calls, t.threads) for t in times] == [("thread", 1, 3), ("add_one", 20, 1), ("copy2", 20, 3)]
    assert all(0 <= t.best <= t.seconds < 10 for t in times)


def test_workers_stay_until_they_are_dismissed(own_team: Team) -> None:
    assert own_team.workers == 0 and own_team.hire(1) == 1
    assert own_team.hire(4) == 4 and own_team.workers == 3
    assert own_team.hire(2) == 2 and own_team.workers == 3
    own_team.dismiss()
    assert own_team.workers == 0
    assert own_team.hire(3) == 3 and own_team.workers == 2
    own_team.close()
    assert own_team.hire(3) == 1


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs CPU sets")
def test_spreading_leaves_workers_free_to_move(make: Callable[..., Executable]) -> None:
    program = make(4)
    before = os.sched_getaffinity(0)
    on(program, 4)
    with STEPS:
        team().spread(4)
    masks = {frozenset(os.sched_getaffinity(int(task))) for task in os.listdir("/proc/self/task")}
    assert masks == {frozenset(before)}
    assert on(program, 4)[1] == [40, 0]


def test_a_system_that_gives_no_more_threads(own_team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    start = own_team._start
    monkeypatch.setattr(own_team, "_start", lambda worker: errno.EAGAIN if worker == 2 else start(worker))
    with pytest.warns(GraphcWarning, match="8 threads were asked for, but the system gives no more than 3: Resource"):
        assert own_team.hire(8) == 3
    assert own_team.hire(8) == 3  # told once


def test_steps_of_several_python_threads_take_turns(make: Callable[..., Executable]) -> None:
    programs, errors = [make(2), make(3), make(1)], []

    def work(program: Executable) -> None:
        for turn in range(1, 101):
            seen = program({})[1].tolist()
            if seen != [20 * turn, 0]:
                errors.append(seen)

    workers = [threading.Thread(target=work, args=(program,), daemon=True) for program in programs]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert not errors and not any(worker.is_alive() for worker in workers)


# ---- processes ------------------------------------------------------------------------------------------------------

KEY = "0" * 64
BEGIN = """
import os, signal, sys, threading, time
from graphc.ir.buffers import Elements, aligned_zeros
from graphc.runtime.cache import default_cache
from graphc.runtime.executable import Executable
from graphc.runtime.threads import team
image = default_cache().load(sys.argv[1])
n = Elements(aligned_zeros((2,), "i64"))
program = Executable(image.plan, image.objects, {"n": n}, {}, 0, threads=3)
def step(threads=3):
    with program.lock:
        return program.step([], threads=threads)
"""


@pytest.fixture
def script(tmp_path: Path, objects: dict[str, bytes]) -> Callable[..., subprocess.Popen[str]]:
    """Starts a process that runs a script on the plan above; all warnings are errors."""
    cache = ProgramCache(tmp_path / "programs")
    cache.store(KEY, ProgramImage(TOGETHER, {name: objects[name] for name in ("thread", "add_one", "copy2")}))
    environment = {**os.environ, "GRAPHC_CACHE": str(cache.folder), "PYTHONPATH": os.pathsep.join(sys.path)}

    def start(text: str) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-W", "error", "-c", BEGIN + text, KEY], env=environment, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    return start


def outcome(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    return process.returncode, out, err


def test_exit_with_sleeping_and_with_spinning_workers(script: Callable[..., Any]) -> None:
    assert outcome(script("step(); time.sleep(0.1); print(team().workers)")) == (0, "2\n", "")
    assert outcome(script("step(); print(team().workers); sys.exit(3)")) == (3, "2\n", "")


def test_exit_during_a_step_of_another_python_thread(script: Callable[..., Any]) -> None:
    assert outcome(script("""
def forever():
    while True:
        step()
threading.Thread(target=forever, daemon=True).start()
while n.array[0] == 0:
    time.sleep(0.001)
print(n.array[0] > 0)
""")) == (0, "True\n", "")


def test_a_fork_has_workers_of_its_own(script: Callable[..., Any]) -> None:
    assert outcome(script("""
step(); step()
child = os.fork()
if child == 0:
    there, seen = step()
    os._exit(0 if there[:3].tolist() == [3, 3, 3] and seen[0] == 60 and team().workers == 2 else 1)
print(os.waitpid(child, 0)[1], flush=True)
there, seen = step()
assert there[:3].tolist() == [3, 3, 3] and seen[0] == 60 and team().workers == 2
""")) == (0, "0\n", "")


def test_a_fork_while_another_python_thread_steps(script: Callable[..., Any]) -> None:
    """The child has whole steps, and a free lock."""
    assert outcome(script("""
going = True
def work():
    while going:
        step()
worker = threading.Thread(target=work)
worker.start()
statuses = set()
for turn in range(20):
    time.sleep(0.003)
    child = os.fork()
    if child == 0:
        before = int(n.array[0])
        signal.alarm(20)
        there, seen = step()
        os._exit(0 if before % 20 == 0 and seen[0] == before + 20 and there[2] == 3 else 1)
    statuses.add(os.waitpid(child, 0)[1])
going = False
worker.join()
print(statuses)
""")) == (0, "{0}\n", "")


def test_a_program_in_a_forked_process_pool(script: Callable[..., Any]) -> None:
    assert outcome(script("""
import multiprocessing
step()
def work(turn):
    return int(step()[1][0])
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(min(pool.map(work, range(6))))
""")) == (0, "40\n", "")


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_an_interrupt_leaves_whole_steps(script: Callable[..., Any]) -> None:
    process = script("""
for turn in range(5):
    try:
        step()
        print("running", flush=True)
        while True:
            step()
    except KeyboardInterrupt:
        pass
    assert n.array[0] == 20 * program.steps == 20 * n.version > 0, (n.array, program.steps, n.version)
step()
print("whole steps", flush=True)
""")
    try:
        for turn in range(5):
            assert process.stdout.readline() == "running\n", process.stderr.read()
            time.sleep(0.05 + 0.003 * turn)
            process.send_signal(signal.SIGINT)
    finally:
        assert outcome(process) == (0, "whole steps\n", "")


def test_workers_leave_signals_to_python(script: Callable[..., Any]) -> None:
    """Python's handler runs though the workers are asleep, and no sleeper is disturbed."""
    assert outcome(script("""
seen = []
signal.signal(signal.SIGUSR1, lambda *_: seen.append(threading.current_thread().name))
for turn in range(20):
    step()
    time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGUSR1)
    step()
print(len(seen), set(seen), n.array[0])
""")) == (0, "20 {'MainThread'} 800\n", "")


def test_more_threads_than_cores_get_through(script: Callable[..., Any]) -> None:
    """All threads share one core, so that whoever spins holds up whom it waits for."""
    assert outcome(script("""
program = Executable(image.plan, image.objects, {"n": n}, {}, 0, threads=8)
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
for turn in range(20):
    step(8)
print(n.array[0])
""")) == (0, "400\n", "")
