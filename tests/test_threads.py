"""Programs on several threads: the same bits as on one, for the steps that are benchmarked and smaller ones."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc import models, nn, optim
from graphc.codegen import sharing
from graphc.errors import CompileError
from graphc.inspect.bench import compiled
from graphc.inspect.workloads import WORKLOADS
from graphc.program import Program
from graphc.runtime import executable

STEPS = 12  # enough for all phases of the choice between all threads and one
THREADS = (1, 2, 3, 4)


@pytest.fixture
def everything_is_shared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Small programs use all threads too, and share kernels of any size; such plans stay in a cache of their own."""
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path))
    monkeypatch.setattr(sharing, "SMALLEST_SHARED", (1,))
    monkeypatch.setattr(sharing, "MEETING", 0)
    monkeypatch.setattr(executable, "_LEAST_SHARE", 0.001)


def bits(program: Program, batches: list[tuple[np.ndarray, ...]]) -> list[bytes]:
    """Results and variables after each step."""
    found = []
    for batch in batches:
        found += [array.tobytes() for array in program(*batch)]
        found += [variable.value.tobytes() for variable in program.declared.updated]
    return found


def assert_equal_bits(make: Callable[[int], Program], batches: list[tuple[np.ndarray, ...]]) -> None:
    wanted: list[bytes] = []
    for threads in THREADS:
        program = make(threads)
        found = bits(program, batches)
        assert program.plan.calls() and any(call.shared for call in program.plan.calls())
        wanted = wanted or found
        assert found == wanted, f"{threads} threads"


@pytest.mark.usefixtures("everything_is_shared")
@pytest.mark.parametrize("batch", [32, 19, 1])
def test_mlp_small(batch: int) -> None:
    """All batches use one program: the table's shares depend on the count of the call."""
    workload = WORKLOADS["mlp_small"]
    batches = [tuple(a[:batch] for a in workload.arrays(i)) for i in range(STEPS)]
    assert_equal_bits(lambda threads: compiled(workload, threads=threads)[0], batches)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_workloads(name: str) -> None:
    workload = WORKLOADS[name]
    batches = [workload.arrays(i) for i in range(STEPS)]
    wanted: list[bytes] = []
    for threads in THREADS:
        found = bits(compiled(workload, threads=threads)[0], batches)
        wanted = wanted or found
        assert found == wanted, f"{threads} threads"


@pytest.mark.usefixtures("everything_is_shared")
def test_random_numbers_and_reductions_over_everything() -> None:
    """Dropout, sums over rows, columns and all, and a result that is an old value."""
    def make(threads: int) -> Program:
        x, W = gc.input("x", ("N", 96)), gc.param("W", (96, 80))
        y = nn.Dropout(0.3)
        with nn.trace(y, train=True):
            hidden = gc.tanh(y(x @ W))
        loss = (hidden * hidden).mean() + hidden.sum(axis=0).max() + hidden.sum(axis=1).min()
        return gc.compile([x], [loss, W, hidden.argmax(axis=1)], {W: W - 0.1 * gc.grad(loss, W)}, dims={"N": 50},
                          threads=threads, seed=3)

    rng = np.random.default_rng(0)
    assert_equal_bits(make, [(rng.standard_normal((n, 96)).astype(np.float32),) for n in (50, 50, 7, 50, 1, 33)])


@pytest.mark.usefixtures("everything_is_shared")
def test_fit_on_threads() -> None:
    rng = np.random.default_rng(0)
    x, t = rng.random((70, 20), dtype=np.float32), rng.integers(0, 4, 70)
    losses, weights = [], []
    for threads in (1, 3):
        model = models.mlp(20, 16, 4)
        model.compile("cross_entropy", optim.SGD(lr=0.1), seed=1, threads=threads)
        losses.append(model.fit(x, t, epochs=3, batch_size=16, verbose=0).history["loss"])
        weights.append([p.value.tobytes() for p in model.parameters()])
        assert model.program("train").threads == threads
    assert losses[0] == losses[1] and weights[0] == weights[1]


def test_the_default_is_the_number_of_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    x = gc.input("x", ("N",))
    monkeypatch.setenv("GRAPHC_THREADS", "3")
    assert gc.compile([x], [x]).threads == 3
    assert gc.compile([x], [x], threads=2).threads == 2
    monkeypatch.delenv("GRAPHC_THREADS")
    assert 1 <= gc.compile([x], [x]).threads <= (os.cpu_count() or 1)


def test_bad_numbers_of_threads() -> None:
    x = gc.input("x", ("N",))
    for threads in (0, -1, 1000, 1.5, "4"):
        with pytest.raises(CompileError, match="threads must be a number from 1 to 256"):
            gc.compile([x], [x], threads=threads)  # type: ignore[arg-type]
    with pytest.raises(CompileError, match="threads"):
        models.mlp(2, 2).compile("cross_entropy", optim.SGD(lr=0.1), threads=0)


@pytest.mark.usefixtures("everything_is_shared")
def test_a_step_that_is_refused_changes_nothing() -> None:
    workload = WORKLOADS["mlp_small"]
    program, batch = compiled(workload, threads=3)[0], workload.arrays(0)
    program(*batch)
    before = [variable.value.tobytes() for variable in program.declared.updated]
    for _ in range(3):
        with pytest.raises(gc.errors.InputError):
            program(batch[0], np.full(32, 99))
    assert [variable.value.tobytes() for variable in program.declared.updated] == before
    program(*batch)


@pytest.mark.usefixtures("everything_is_shared")
def test_two_programs_in_two_python_threads() -> None:
    workload = WORKLOADS["mlp_small"]
    batches = [workload.arrays(i) for i in range(30)]
    wanted = bits(compiled(workload, threads=1)[0], batches)
    programs, found = [compiled(workload, threads=threads)[0] for threads in (2, 3)], {}
    workers = [threading.Thread(target=lambda i=i: found.update({i: bits(programs[i], batches)}), daemon=True)
               for i in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert found == {0: wanted, 1: wanted}


FORK = """
import os, signal, threading, time
import numpy as np
import graphc as gc
x, W = gc.input("x", ("N", 256)), gc.param("W", (256, 256))
program = gc.compile([x], [(x @ W).sum()], {W: W * 0.5}, dims={"N": 256}, threads=2)
data = np.ones((256, 256), np.float32)
program(data)
going, statuses = True, set()
def work():
    while going:
        program(data)
workers = [threading.Thread(target=work) for _ in range(2)]
for worker in workers:
    worker.start()
for turn in range(10):
    time.sleep(0.01)
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        for _ in range(8):
            program(data)
        os._exit(0)
    statuses.add(os.waitpid(child, 0)[1])
going = False
for worker in workers:
    worker.join()
print(statuses)
"""


def test_a_fork_while_python_threads_call_a_program() -> None:
    """Another thread may hold the program's lock when the process forks; in the child it is free."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", FORK], text=True, capture_output=True, timeout=120,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert (done.returncode, done.stdout, done.stderr) == (0, "{0}\n", "")


LOOPS = """
import os, signal, sys, threading, time
import numpy as np
import graphc as gc

def programs(threads):
    x, W = gc.input("x", ("N", 192)), gc.param("W", (192, 192), init=gc.init.zeros())
    most = gc.input("most")
    turns = gc.while_loop(lambda h, n: n < most, lambda h, n: (gc.tanh(h @ W + x), n + 1), (x, 0.0))[0]
    xs = gc.input("xs", (6, "N", 192))
    scanned = gc.scan(lambda h, v: gc.tanh(h @ W + v), sequences=[xs], init=[x])
    repeat = gc.compile([x, most], [turns], {W: W + 0.0}, dims={"N": 192}, threads=threads)
    scan = gc.compile([x, xs], [scanned], {W: W + 0.0}, dims={"N": 192}, threads=threads)
    return W, repeat, scan

def one_step(repeat, scan):
    return repeat(data, 5.0)[0].tobytes() + scan(data, many)[0].tobytes()

rng = np.random.default_rng(0)
data, many, start = rng.standard_normal((192, 192)), rng.standard_normal((6, 192, 192)), rng.random((192, 192)) / 50
found = []
for threads in (1, 2):
    W, repeat, scan = programs(threads)
    W.value = start
    wanted = one_step(repeat, scan)
    worker = threading.Thread(target=lambda: found.extend(one_step(repeat, scan) == wanted for _ in range(20)))
    other = programs(threads)  # in a thread of its own at the same time
    other[0].value = start
    worker.start()
    found += [one_step(*other[1:]) == wanted for _ in range(20)]
    worker.join()
    for turn in range(2):
        threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        try:
            repeat(data, float("inf"))
        except KeyboardInterrupt as error:
            found.append(type(error) is KeyboardInterrupt and (W.value == start.astype("f4")).all())
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            os._exit(0 if one_step(repeat, scan) == wanted else 1)
        found += [os.waitpid(child, 0)[1] == 0, one_step(repeat, scan) == wanted]
print(len(found), all(found))
"""


def test_loops_in_python_threads_after_interrupts_and_in_a_fork() -> None:
    """Two programs take turns; Ctrl-C ends a loop without end; the same programs go on, in a child process too."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", LOOPS], text=True, capture_output=True, timeout=120,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert (done.returncode, done.stdout, done.stderr) == (0, "92 True\n", "")
