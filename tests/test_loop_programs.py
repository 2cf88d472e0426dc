"""Whole programs with loops and branches: training, runtime counts, threads, the cache, and what is shown of them."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import graphc as gc
from graphc.autodiff.expand import expand_derivatives
from graphc.codegen import choose, sharing
from graphc.errors import InputError
from graphc.inspect import report
from graphc.interpret import evaluate
from graphc.kernel.plan import Barrier, Branch, Call, Loop, While, walk
from graphc.program import Program

T, WORDS, WIDTH = 9, 7, 5
Updates = dict[gc.Variable, gc.Symbol]


def network(dropout: float = 0.0) -> tuple[list[gc.Input], gc.Symbol, Updates]:
    """A step of gradient descent with momentum on a character model: embedding, tanh cell, logits of each next word."""
    words, t = (gc.input(name, ("N", T), dtype="int64") for name in ("words", "t"))
    rng = np.random.default_rng(5)
    shapes = {"E": (WORDS, WIDTH), "U": (WIDTH, WIDTH), "W": (WIDTH, WIDTH), "V": (WIDTH, WORDS), "b": (WIDTH,)}
    E, U, W, V, b = (gc.param(n, s, init=rng.normal(size=s).astype(np.float32) / 2) for n, s in shapes.items())

    def cell(h: gc.Symbol, word: gc.Symbol) -> tuple[gc.Symbol, gc.Symbol]:
        x = E[word]
        if dropout:
            x = x * gc.random.bernoulli(1 - dropout, x.shape) / (1 - dropout)
        h = gc.tanh(x @ U + h @ W + b)
        return h, h

    _, hs = gc.scan(cell, sequences=[gc.transpose(words)], init=[gc.zeros((words.shape[0], WIDTH))])
    logits = hs @ V
    loss = gc.mean(gc.cross_entropy(gc.transpose(logits, (1, 2, 0)), t))
    updates: Updates = {}
    for p, g in zip((E, U, W, V, b), gc.grad(loss, [E, U, W, V, b]), strict=True):
        velocity = gc.state(f"{p.name}_velocity", p.shape)
        updates[velocity] = 0.9 * velocity + g
        updates[p] = p - 0.1 * updates[velocity]
    return [words, t], loss, updates


def batch(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, WORDS, (count, T)), rng.integers(0, WORDS, (count, T))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_recurrent_network_learns_as_the_interpreter_says(dropout: float) -> None:
    """Full and partial batches in turn, with updates in place; the last losses are below the first ones."""
    inputs, loss, updates = network(dropout)
    program = gc.compile(inputs, [loss], updates, dims={"N": 6}, seed=11)
    graph = expand_derivatives(program.graph)
    owners = program.declared.named_variables
    losses = []
    for step, count in enumerate((6, 2, 6, 1, 5, 6)):
        words, t = batch(count)
        known = {"words": words, "t": t} | {name: v.value.copy() for name, v in owners.items()}
        if dropout:
            known["rng"] = np.array([11, step])
        expected, *news = evaluate(graph, known)
        (value,) = program(words, t)
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        for variable, new in zip(program.declared.updated, news, strict=True):
            np.testing.assert_allclose(variable.value, new, rtol=2e-4, atol=2e-6, err_msg=f"{variable.name}, {step}")
        losses.append(float(value))
    assert losses[5] < losses[0]


def test_a_turn_has_one_kernel_forward_and_two_backward() -> None:
    """Projections go before the loop, gradients of weights after it, and no carried value is copied."""
    inputs, loss, updates = network()
    program = gc.compile(inputs, [loss], updates, dims={"N": 6})
    loops = [entry for entry in walk(program.plan.entries) if isinstance(entry, Loop)]
    calls = [[e.kernel for e in loop.body if isinstance(e, Call)] for loop in loops]
    assert [len(names) for names in calls] == [1, 2]
    assert "matmul_add_tanh" in calls[0][0]
    assert not any("copy" in name for names in calls for name in names)


def everything() -> tuple[list[gc.Input], list[gc.Symbol]]:
    """A scan with a branch, a scan and a loop with a test in it, over 40 columns."""
    xs = gc.input("xs", (6, 8, 40))
    W = gc.param("W", (40, 40), init=np.cos(np.arange(1600, dtype=np.float32)).reshape(40, 40) / 8)

    def cell(h: gc.Symbol, x: gc.Symbol) -> tuple[gc.Symbol, ...]:
        h = gc.cond(gc.sum(x) > 0, lambda: gc.tanh(h @ W) + x, lambda: h * 0.5 - x)
        total = gc.scan(lambda s, row: s + gc.sin(row), [h], [gc.zeros((40,))])
        big = gc.while_loop(lambda v: gc.sum(gc.square(v)) < 90, lambda v: v * 1.5 + 0.1, gc.cos(total), bound=30)
        return h, total, big

    last, totals, bigs = gc.scan(cell, [xs], [gc.ones((8, 40))])
    loss = gc.sum(last**2) + gc.sum(totals) + gc.sum(gc.sin(bigs))
    return [xs], [loss, totals, bigs, *gc.grad(loss, [xs, W])]


def test_bits_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "SMALLEST_SHARED", (1,))
    monkeypatch.setattr(sharing, "MEETING", 0)
    monkeypatch.setattr(choose, "SMALLEST_SHARED", 1)
    inputs, outputs = everything()
    program = gc.compile(inputs, outputs, threads=2, cache=False)
    entries = list(walk(program.plan.entries))
    assert {Barrier, Branch, Call, Loop, While} == {type(entry) for entry in entries}
    xs = np.random.default_rng(2).normal(size=(6, 8, 40)).astype(np.float32)
    executable = program._executable_for({"xs": xs})
    with executable.lock:
        first = [a.tobytes() for a in executable.step([xs], threads=1)]
        for threads in (2, 3, 4, 2):
            for _ in range(20):
                assert [a.tobytes() for a in executable.step([xs], threads=threads)] == first
    known = {"xs": xs, "W": program.declared.variables[0].value}
    for mine, oracle in zip(program(xs), evaluate(expand_derivatives(program.graph), known), strict=True):
        np.testing.assert_allclose(mine, oracle, rtol=1e-3, atol=1e-4 * np.abs(oracle).max())


SECOND_PROCESS = """
import sys
import numpy as np
import graphc as gc

xs = gc.input("xs", (4, "N", 3))
W = gc.param("W", (3, 3))

def cell(h, x):
    h = gc.cond(gc.sum(x) > 0, lambda: gc.tanh(h @ W + x), lambda: h * gc.random.bernoulli(0.5, h.shape))
    return h, h

h, hs = gc.scan(cell, [xs], [gc.ones((xs.shape[1], 3))])
n = gc.while_loop(lambda n: n < gc.sum(hs), lambda n: n + 1.0, 0.0, bound=9)
loss = gc.sum(h * h) + n
step = gc.compile([xs], [loss], updates={W: W - 0.1 * gc.grad(loss, W)}, dims={"N": 4})
found = [float(step(np.cos(np.arange(12 * n)).reshape(4, n, 3))[0]) for n in (4, 2, 4)]
loaded = [m for m in ("numba", "sympy", "graphc.autodiff", "graphc.passes", "graphc.codegen.build") if m in sys.modules]
print(found, W.value.sum(), "|", step.from_cache, "|", loaded)
"""


def test_a_second_process_runs_loops_from_the_cache_without_the_compiler(tmp_path: pathlib.Path) -> None:
    paths = ":".join(p for p in sys.path if p)
    env = {"PYTHONSAFEPATH": "1", "GRAPHC_CACHE": str(tmp_path / "c"), "PATH": "/usr/bin:/bin", "PYTHONPATH": paths}
    printed = []
    for _ in range(2):
        command = [sys.executable, "-W", "error", "-c", textwrap.dedent(SECOND_PROCESS)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        printed.append([part.strip() for part in done.stdout.split("|")])
    cold, warm = printed
    assert cold[1] == "False" and warm[1] == "True"
    assert cold[0] == warm[0]
    assert warm[2] == "[]"


@pytest.fixture(scope="module")
def shown() -> Program:
    inputs, outputs = everything()
    return gc.compile(inputs, outputs, cache=False)


def test_a_profile_tells_how_often_kernels_ran(shown: Program) -> None:
    """Six turns; the rows within them 48; each branch as often as its side was taken."""
    xs = np.ones((6, 8, 40), np.float32)
    xs[[1, 4]] *= -1
    names = list(shown.kernels)
    calls = dict(zip(names, (time.calls for time in shown.profile(xs, repeats=1)), strict=True))
    assert {n for name, n in calls.items() if "then" in name and "grad" not in name} == {4}
    assert {n for name, n in calls.items() if "orelse" in name and "grad" not in name} == {2}
    assert 48 in calls.values() and 6 in calls.values()


def test_reports_tell_how_often_kernels_may_run(shown: Program, tmp_path: pathlib.Path) -> None:
    overview = report.overview(shown)
    calls = {kernel["name"]: kernel["calls"] for kernel in overview["kernels"]}
    assert list(calls) == list(shown.kernels)
    then = next(name for name in calls if name.startswith("scan_cond_then"))
    test = next(name for name in calls if name.startswith("scan_while_loop_test"))
    assert calls[then] == [0, 6] and calls[test] == [6, 180]
    text = report.overview_text(overview)
    assert "FLOP a call" in text and " 0-6 " in text and " 48 " in text
    memory = shown.memory
    for line in ("loop scan < 6 {", "repeat scan_while_loop at most 30 times {", "if scan_gt {", "} else {"):
        assert line in memory
    assert shown.dump(tmp_path) is not None
    assert (tmp_path / "memory.txt").read_text() == memory


def test_a_program_without_loops_is_shown_as_ever() -> None:
    x = gc.input("x", (3,))
    program = gc.compile([x], [gc.exp(x)], cache=False)
    overview = report.overview(program)
    assert [kernel["calls"] for kernel in overview["kernels"]] == [[1, 1]]
    assert "FLOP a call" not in report.overview_text(overview)


def running(name: str) -> tuple[gc.Input, list[gc.Symbol]]:
    xs = gc.input(name, ("T", "N", 3))
    last, sums = gc.scan(lambda s, x: (s + x, s * x), [xs], [gc.zeros((xs.shape[1], 3))])
    back = gc.scan(lambda s, x: gc.tanh(s) + x, [sums], [last], reverse=True)
    return xs, [last, sums, back, gc.grad(gc.sum(back), xs)]


def test_the_length_of_a_loop_may_be_a_symbol_and_is_compiled_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other lengths compile again, shorter ones too; other counts along a batch do not."""
    xs, outputs = running("xs")
    program = gc.compile([xs], outputs)
    builds = []
    make = Program._load_or_build
    monkeypatch.setattr(Program, "_load_or_build", lambda self, sizes: builds.append(dict(sizes)) or make(self, sizes))
    graph = expand_derivatives(program.graph)
    for turns, count in ((4, 5), (4, 2), (2, 5), (4, 5), (0, 3), (1, 1)):
        given = np.random.default_rng(turns).normal(size=(turns, count, 3)).astype(np.float32)
        for mine, oracle in zip(program(given), evaluate(graph, {"xs": given}), strict=True):
            np.testing.assert_allclose(mine, oracle, rtol=1e-5, atol=1e-6)
        loops = [entry.count for entry in walk(program.plan.entries) if isinstance(entry, Loop)]
        assert set(loops) == ({turns} if turns else set())
    assert [sizes["T"] for sizes in builds] == [4, 2, 4, 0, 1]
    assert f"length={turns}" in program.stages[-1].after_text


def test_a_length_that_is_given_is_the_only_one() -> None:
    xs, outputs = running("xs")
    program = gc.compile([xs], outputs, dims={"T": 3, "N": 4})
    program(np.ones((3, 2, 3)))
    with pytest.raises(InputError, match=r"\[3,N<=4,3\]"):
        program(np.ones((2, 2, 3)))


def test_sizes_that_no_input_tells() -> None:
    """The length of a loop, and a size that only its body has."""
    doubled = gc.scan(lambda h: h * 2, init=[1.0], length="T")
    counted = gc.scan(lambda h: h + gc.sum(gc.ones(("M",)) * h), init=[1.0], length=2)
    for result, name, wanted in ((doubled, "T", 8), (counted, "M", 16)):
        (value,) = gc.compile([], [result], dims={name: 3})()
        assert value == wanted
        with pytest.raises(InputError, match=f"no input tells the size of {name}; give dims"):
            gc.compile([], [result])()


class Recurrent(gc.nn.Module):
    """A tanh cell of two layers, as a module writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = gc.nn.Linear(4, WIDTH), gc.nn.Linear(WIDTH, WIDTH)

    def forward(self, xs: gc.Symbol) -> gc.Symbol:
        def cell(h: gc.Symbol, x: gc.Symbol) -> tuple[gc.Symbol, gc.Symbol]:
            h = gc.tanh(self.inner(x) + self.outer(h))
            return h, h

        return gc.scan(cell, [xs], [gc.zeros((3, WIDTH))])[1]


def test_names_tell_the_module_of_a_loop_once() -> None:
    """Both biases get one sum after the loop: they are added to the same value."""
    net = gc.nn.Sequential(Recurrent(), gc.nn.Linear(WIDTH, 2))
    x = gc.input("x", (6, 3, 4))
    with gc.nn.trace(net, train=True):
        loss = gc.sum(gc.square(net(x)))
    program = gc.compile([x], [loss, *gc.grad(loss, list(net.parameters()))], cache=False)
    inside = [name for name in program.kernels if "scan_" in name]
    assert inside == ["v0_scan_outer_matmul_add_tanh", "v0_grad_scan_mul", "v0_grad_scan_outer_grad_matmul"]
    assert sum("grad_sum" in name for name in program.kernels) == 2
