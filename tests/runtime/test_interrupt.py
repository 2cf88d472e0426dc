"""Ctrl-C: whole steps where steps are short, and steps that take long or never end are stopped in their middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from graphc.errors import StepInterrupted
from graphc.kernel.plan import Barrier, Buffer, Call, Loop, Plan, While
from graphc.runtime.cache import ProgramCache, ProgramImage

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")

# A step of a few milliseconds that writes `a` first and `b` last.
SLOW = Plan(
    "slow",
    tuple(Buffer(name, "i64", (), "variable", place, 8) for place, name in enumerate(("a", "b", "waste"))),
    (Call("add_one", ("a",), updates=True), *[Call("spin", ("waste",))] * 4, Call("add_one", ("b",), updates=True)),
    0, (), (), ("a", "b", "waste"), written=("a", "b", "waste"),
)
# A loop that goes on while `low` is below `high`, in a loop that moves what it counts: row[2] = turns of the third one.
ADD_A, ADD_B = Call("add_one", ("a",), updates=True), Call("add_one", ("b",), updates=True)
TURN = (Call("add_one", ("row",)), Call("thread", ("there",), shared=1), Barrier(), Call("add_one", ("low",)))
INNER = While("w", (Barrier(), Call("below", ("low", "high", "go")), Barrier()), "go", TURN)
ROWS = Loop("t", 4, (INNER,), (("row", 8), ("low", 8), ("high", 8)))


def loops(name: str, *before: Call) -> Plan:
    """Loops, then updates of `a` and `b`; `before` is called before the loops."""
    buffers = (Buffer("low", "i64", (4,), "input", 0, 32), Buffer("high", "i64", (4,), "input", 64, 32),
               Buffer("row", "i64", (4,), "input", 128, 32), Buffer("go", "i64", (), "scratch", 192, 8),
               Buffer("there", "i64", (8,), "scratch", 256, 64), Buffer("a", "i64", (), "variable", 0, 8),
               Buffer("b", "i64", (), "variable", 1, 8))
    return Plan(name, buffers, (*before, ROWS, Barrier(), *(c for c in (ADD_A, ADD_B) if c not in before), Barrier()),
                320, ("low", "high", "row"), ("row",), ("a", "b"), written=("a", "b"))


PLANS = {"0" * 64: SLOW, "1" * 64: loops("early"), "2" * 64: loops("late", ADD_A)}
BEGIN = """
import os, signal, sys, threading, time
import numpy as np
from graphc.errors import StateError, StepInterrupted
from graphc.ir.buffers import Elements, aligned_zeros
from graphc.runtime.cache import default_cache
from graphc.runtime.driver import GRACE
from graphc.runtime.executable import Executable
from graphc.runtime.threads import STEPS, team

def program(digit, threads=1):
    image = default_cache().load(64 * digit)
    owners = {name: Elements(aligned_zeros((), "i64")) for name in image.plan.variables}
    made = Executable(image.plan, image.objects, owners, {}, 0, threads=threads)
    made.control[GRACE] = 50_000_000
    return made, owners

def step(made, endless):
    values = inputs(endless)
    with STEPS:
        return made.step(list(values.values()), threads=made.threads)[0].tolist()

def inputs(endless):
    # The loops have 3, 1, 2 (or no end of) and 4 turns.
    return {"low": np.zeros(4, int), "high": np.array([3, 1, 2**62 if endless else 2, 4]), "row": np.zeros(4, int)}

def interrupt(made=None, signals=(signal.SIGINT,)):
    # In another Python thread, when the program is in its endless loop.
    def send():
        while made and made._memory["low"][2] < 1000:
            time.sleep(0.001)
        time.sleep(0.05)
        for number in signals:
            os.kill(os.getpid(), number)

    threading.Thread(target=send).start()

signal.alarm(50)
threads = int(sys.argv[1])
"""


@pytest.fixture
def script(tmp_path: Path, objects: dict[str, bytes]) -> Callable[..., subprocess.Popen[str]]:
    """Starts a process that runs a script after the lines above, with an argument."""
    cache = ProgramCache(tmp_path / "programs")
    kernels = {name: objects[name] for name in ("add_one", "spin", "below", "thread")}
    for key, plan in PLANS.items():
        cache.store(key, ProgramImage(plan, {call.kernel: kernels[call.kernel] for call in plan.calls()}))
    environment = {**os.environ, "GRAPHC_CACHE": str(cache.folder), "PYTHONPATH": os.pathsep.join(sys.path)}

    def start(text: str, argument: int = 1) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-W", "error", "-c", BEGIN + text, str(argument)], env=environment,
                                text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    return start


def outcome(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    return process.returncode, out, err


def test_an_interrupt_leaves_whole_steps(script: Callable[..., Any]) -> None:
    child = script("""
made, owners = program("0")
a, b = owners["a"], owners["b"]
for turn in range(5):
    try:
        made({})
        print("running", flush=True)
        while True:
            made({})
    except KeyboardInterrupt as error:
        assert type(error) is KeyboardInterrupt
    assert 0 < a.array == b.array == made.steps == a.version == b.version, (a.array, b.array, made.steps)
made({})  # the program still works, and its lock is free
assert a.array == made.steps
print("whole steps", flush=True)
""")
    try:
        for turn in range(5):
            assert child.stdout.readline() == "running\n", child.stderr.read()
            time.sleep(0.05 + 0.003 * turn)  # by then it is in the middle of a step
            child.send_signal(signal.SIGINT)
    finally:
        assert outcome(child) == (0, "whole steps\n", "")


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_an_endless_step_is_stopped_before_it_writes_anything(script: Callable[..., Any], threads: int) -> None:
    """Nothing has happened then, and loops and barriers begin anew."""
    assert outcome(script("""
made, owners = program("1", threads)
for turn in range(3):
    assert step(made, False) == [3, 1, 2, 4]
    interrupt(made)
    try:
        step(made, True)
    except KeyboardInterrupt as error:
        assert type(error) is KeyboardInterrupt
    assert made.steps == turn + 1 and {(int(o.array), o.version) for o in owners.values()} == {(turn + 1, turn + 1)}
assert step(made, False) == [3, 1, 2, 4]
print(team().workers)
""", threads)) == (0, f"{threads - 1}\n", "")


@pytest.mark.parametrize("threads", [1, 2])
def test_an_endless_step_that_has_begun_to_write_says_so(script: Callable[..., Any], threads: int) -> None:
    assert outcome(script("""
made, owners = program("2", threads)
for turn in range(2):
    step(made, False)
    interrupt(made)
    try:
        step(made, True)
    except StepInterrupted as error:
        assert (error.program, error.step, error.variables) == ("late", turn + 1, ("a", "b"))
        told = str(error)
    assert owners["a"].array == 2 * turn + 2 and owners["b"].array == made.steps == turn + 1
    assert owners["a"].version == owners["b"].version == 2 * turn + 2
    made.control[GRACE] = 0
print(told)
""", threads)) == (0, str(StepInterrupted("late", 2, ("a", "b"))) + "\n", "")


def test_handlers_of_the_users_own(script: Callable[..., Any]) -> None:
    """They run within a long step; it goes on if they return, and what they raise comes out of it."""
    refused = "is called by a signal handler inside of a step"
    seen = f"['MainThread', \"program 'early' {refused}\", 'MainThread', \"program 'early' {refused}\"]"
    assert outcome(script("""
class Enough(Exception):
    pass

def handler(number, frame):
    seen.append(threading.current_thread().name)
    try:
        idle(inputs(False))
    except StateError as error:
        seen.append(str(error))
    if len(seen) == 4:
        raise Enough
    interrupt()

idle, _ = program("1")
signal.signal(signal.SIGINT, handler)
for digit in "12":
    made, owners = program(digit, threads)
    made.control[GRACE] = 0
    seen = []
    interrupt(made)
    try:
        step(made, True)
    except Enough as error:
        print(seen, len(getattr(error, "__notes__", [])), made.steps, int(owners["a"].array), step(made, False))
""", 2)) == (0, f"{seen} 0 0 0 [3, 1, 2, 4]\n{seen} 1 0 1 [3, 1, 2, 4]\n", "")


def test_a_handler_cannot_call_the_program_whose_step_is_under_way(script: Callable[..., Any]) -> None:
    assert outcome(script("""
made, _ = program("1")
def handler(number, frame):
    made(inputs(False))

signal.signal(signal.SIGINT, handler)
interrupt(made)
try:
    made(inputs(True))
except StateError as error:
    print(error, made.steps, made(inputs(False))[0])
""")) == (0, "program 'early' is called again while one of its steps is under way 0 [3 1 2 4]\n", "")


def test_other_signals_wait_for_the_end_of_the_step(script: Callable[..., Any]) -> None:
    """Their handlers see variables as they are after a whole step; SIGINT may be ignored."""
    assert outcome(script("""
made, owners = program("2")
seen = []
signal.signal(signal.SIGTERM, lambda *_: seen.append((made.steps, int(owners["b"].array))))
signal.signal(signal.SIGINT, signal.SIG_IGN)
values = inputs(True)
values["high"][2] = 6_000_000
interrupt(made, (signal.SIGINT, signal.SIGTERM))
made(values)
print(seen)
""")) == (0, "[(1, 1)]\n", "")


@pytest.mark.parametrize("daemon", [True, False])
def test_exit_stops_an_endless_step_of_another_python_thread(script: Callable[..., Any], daemon: bool) -> None:
    child = script("""
from graphc.runtime import threads as threads_module
threads_module.PATIENCE = 0.1
made, _ = program("1", 2)
worker = threading.Thread(target=lambda: step(made, True), daemon=bool(threads))
worker.start()
while made._memory["low"][2] < 1000:
    time.sleep(0.001)
print("running", flush=True)
""", int(daemon))
    assert child.stdout.readline() == "running\n", child.stderr.read()
    if not daemon:  # the interpreter waits for the thread; Ctrl-C ends the waiting
        time.sleep(0.5)
        child.send_signal(signal.SIGINT)
    code, out, err = outcome(child)
    assert (code, out) == (0, "") and ("KeyboardInterrupt" in err if not daemon else not err), err


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("digit", "12")
def test_a_step_stopped_while_a_handler_runs_does_not_go_on(
    script: Callable[..., Any], threads: int, digit: str
) -> None:
    """As when the interpreter exits meanwhile; whether variables are written already makes no difference."""
    assert outcome(script(f"""
from graphc.runtime.driver import driver
made, _ = program("{digit}", threads)
made.control[GRACE] = 0
signal.signal(signal.SIGINT, lambda *_: driver().stop())
interrupt(made)
try:
    step(made, True)
except SystemExit:
    print(made.steps, step(made, False))
""", threads)) == (0, "0 [3, 1, 2, 4]\n", "")


def test_a_fork_and_another_python_thread_after_an_interrupt(script: Callable[..., Any]) -> None:
    assert outcome(script("""
made, _ = program("1", threads)
other, _ = program("2", threads)
found = []
worker = threading.Thread(target=lambda: found.extend(step(other, False) for _ in range(300)))
worker.start()
for turn in range(2):
    interrupt(made)
    try:
        step(made, True)
    except KeyboardInterrupt:
        pass
    child = os.fork()
    if child == 0:
        os._exit(0 if step(made, False) == [3, 1, 2, 4] and team().workers == threads - 1 else 1)
    print(os.waitpid(child, 0)[1], step(made, False))
worker.join()
print(len(found), found.count([3, 1, 2, 4]), made.steps, other.steps)
""", 2)) == (0, "0 [3, 1, 2, 4]\n0 [3, 1, 2, 4]\n300 300 2 300\n", "")
