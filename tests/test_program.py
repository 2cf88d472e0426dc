"""gc.compile end to end: results, updates, runtime counts, sharing, the cache, bad input."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import textwrap
import threading
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.errors import CompileError, GraphcError, InputError, SymbolError
from graphc.program import Program


def linear(n_in: int = 6, n_out: int = 3) -> tuple[Any, Any, Any]:
    x = gc.input("x", ("N", n_in))
    return x, gc.param("W", (n_in, n_out)), gc.param("b", (n_out,))


def test_forward_equals_numpy() -> None:
    x, W, b = linear()
    program = gc.compile([x], [gc.tanh(x @ W + b)], dims={"N": 8})
    data = np.random.default_rng(0).standard_normal((8, 6)).astype(np.float32)
    (y,) = program(data)
    np.testing.assert_allclose(y, np.tanh(data @ W.value + b.value), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("n", [0, 1, 5, 7, 16])
def test_runtime_count_up_to_the_capacity(n: int) -> None:
    x, W, b = linear()
    y = gc.sigmoid(x @ W + b)
    program = gc.compile([x], [y, gc.sum(y), gc.sum(y, axis=0)], dims={"N": 16})
    rng = np.random.default_rng(n)
    program(rng.standard_normal((16, 6)))  # leaves rows behind that must not count
    data = rng.standard_normal((n, 6)).astype(np.float32)
    got, total, columns = program(data)
    expected = 1 / (1 + np.exp(-(data.astype(np.float64) @ W.value + b.value)))
    assert got.shape == (n, 3)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    np.testing.assert_allclose(total, expected.sum(), rtol=1e-5)
    np.testing.assert_allclose(columns, expected.sum(0), rtol=1e-5)


@pytest.mark.parametrize("shape", [(0, 5, 32), (3, 0, 32), (3, 5, 0), (0, "N", 8)])
def test_products_of_arrays_without_elements(shape: tuple[int | str, ...]) -> None:
    x, W = gc.input("x", shape), gc.param("W", (4, int(shape[-1])))
    program = gc.compile([x], [x @ W.T, gc.grad(gc.sum(x @ W.T), W)])
    found, slope = program(np.zeros([5 if size == "N" else size for size in shape], np.float32))
    assert found.size == 0 if shape[-1] else not found.any()
    assert not slope.any()


def test_capacity_from_the_first_call_grows_with_a_larger_one() -> None:
    x, W, b = linear()
    program = gc.compile([x], [x @ W + b])
    for n in (4, 2, 9):
        data = np.full((n, 6), 0.5, np.float32)
        np.testing.assert_allclose(program(data)[0], data @ W.value + b.value, rtol=1e-5)


def test_inputs_by_name_and_position() -> None:
    x, y = gc.input("x", (3,)), gc.input("y", (3,))
    program = gc.compile([x, y], [x - y])
    a, b = np.arange(3.0), np.ones(3)
    for got in (program(a, b), program(a, y=b), program(y=b, x=a)):
        np.testing.assert_array_equal(got[0], a - b)
    with pytest.raises(InputError, match="by position and by name"):
        program(a, x=b)
    with pytest.raises(InputError, match="takes 2 inputs"):
        program(a, b, a)
    with pytest.raises(InputError, match="y"):
        program(a)
    with pytest.raises(SymbolError, match="call programs with arrays"):
        gc.compile([gc.input("z", ("N",))], [])(gc.zeros((3,)))
    with pytest.raises(InputError, match="z"):
        program(a, b, z=b)


def test_updates_see_old_values_even_when_variables_swap() -> None:
    a, b = gc.state("a", (4,), init=1.0), gc.state("b", (4,), init=2.0)
    program = gc.compile([], [a + b, a], updates={a: b, b: a + b})
    total, old = program()
    np.testing.assert_array_equal(total, np.full(4, 3.0))
    np.testing.assert_array_equal(old, np.ones(4))
    np.testing.assert_array_equal(a.value, np.full(4, 2.0))
    np.testing.assert_array_equal(b.value, np.full(4, 3.0))
    program()
    np.testing.assert_array_equal(a.value, np.full(4, 3.0))
    np.testing.assert_array_equal(b.value, np.full(4, 5.0))


def test_update_of_a_matrix_that_reads_itself_transposed_is_not_in_place() -> None:
    W = gc.param("W", (5, 5), init=np.arange(25.0).reshape(5, 5))
    program = gc.compile([], [], updates={W: W.T + 1.0})
    program()
    np.testing.assert_array_equal(W.value, np.arange(25.0).reshape(5, 5).T + 1)


def test_elementwise_update_is_in_place() -> None:
    W = gc.param("W", (64,), init=1.0)
    program = gc.compile([], [], updates={W: W * 0.5})
    assert program.plan.written and not program.plan.updates
    program()
    program()
    np.testing.assert_array_equal(W.value, np.full(64, 0.25))
    assert W.version >= 2


def test_gradient_step_reads_weights_before_it_overwrites_them() -> None:
    rng = np.random.default_rng(3)
    x = gc.input("x", ("N", 5))
    W1, W2 = gc.param("W1", (5, 7)), gc.param("W2", (7, 2))
    loss = gc.sum(gc.tanh(x @ W1) @ W2)
    g1, g2 = gc.grad(loss, [W1, W2])
    program = gc.compile([x], [loss], updates={W1: W1 - 0.1 * g1, W2: W2 - 0.1 * g2}, dims={"N": 4})
    data, w1, w2 = rng.standard_normal((4, 5)), W1.value.astype(float), W2.value.astype(float)
    program(data)
    hidden = np.tanh(data @ w1)
    back = (np.ones((4, 2)) @ w2.T) * (1 - hidden**2)
    np.testing.assert_allclose(W2.value, w2 - 0.1 * hidden.T @ np.ones((4, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(W1.value, w1 - 0.1 * data.T @ back, rtol=1e-4, atol=1e-6)


def test_two_programs_share_a_parameter() -> None:
    x, W, b = linear()
    t = gc.input("t", ("N", 3))
    loss = gc.mean((x @ W + b - t) * (x @ W + b - t))
    gW, gb = gc.grad(loss, [W, b])
    train = gc.compile([x, t], [loss], updates={W: W - 0.1 * gW, b: b - 0.1 * gb}, dims={"N": 8})
    predict = gc.compile([x], [x @ W + b], dims={"N": 8})
    rng = np.random.default_rng(1)
    data, target = rng.standard_normal((8, 6)), rng.standard_normal((8, 3))
    for _ in range(5):
        before = float(train(data, target)[0])
        (y,) = predict(data)
        np.testing.assert_allclose(y, data.astype(np.float32) @ W.value + b.value, rtol=1e-5, atol=1e-6)
        assert np.mean((y - target) ** 2) < before


def test_learning_rate_is_a_runtime_scalar() -> None:
    W, lr = gc.param("W", (3,), init=1.0), gc.state("lr", (), init=0.5)
    program = gc.compile([], [], updates={W: W - lr * W})
    program()
    lr.value = 0.0
    program()
    np.testing.assert_array_equal(W.value, np.full(3, 0.5))


def test_random_values_differ_between_steps_and_repeat_by_seed() -> None:
    def draws(seed: int) -> list[np.ndarray]:
        u, v = gc.random.uniform((50,)), gc.random.uniform((50,))
        program = gc.compile([], [u, v], seed=seed)
        return [array for _ in range(2) for array in program()]

    first, again, other = draws(7), draws(7), draws(8)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])
    assert len({array.tobytes() for array in first}) == 4  # two streams, two steps
    assert all(0 <= array.min() and array.max() < 1 for array in first)


def test_labels_out_of_range_stop_before_the_first_update() -> None:
    x, W, b = linear()
    t = gc.input("t", ("N",), dtype="int32")
    loss = gc.cross_entropy(x @ W + b, t)
    program = gc.compile([x, t], [loss], updates={W: W - 0.1 * gc.grad(loss, W)}, dims={"N": 4})
    before = W.value
    for bad in (3, -1):
        with pytest.raises(InputError, match=str(bad)):
            program(np.ones((4, 6)), np.array([0, 1, bad, 2]))
    np.testing.assert_array_equal(W.value, before)
    program(np.ones((4, 6)), np.array([0, 1, 2, 2], np.uint8))
    assert not np.array_equal(W.value, before)


@pytest.mark.parametrize("shape", [(4, 5), (4,), (17, 6), (4, 6, 1)])
def test_wrong_shapes_are_named(shape: tuple[int, ...]) -> None:
    x, W, b = linear()
    program = gc.compile([x], [x @ W + b], dims={"N": 16})
    with pytest.raises(InputError, match="x"):
        program(np.zeros(shape, np.float32))


def test_counts_must_agree_between_inputs() -> None:
    x, y = gc.input("x", ("N", 2)), gc.input("y", ("N", 2))
    program = gc.compile([x, y], [x + y], dims={"N": 8})
    with pytest.raises(InputError, match="N"):
        program(np.zeros((3, 2)), np.zeros((4, 2)))


def test_unknown_target_dims_and_threads() -> None:
    x = gc.input("x", ("N",))
    with pytest.raises(CompileError, match="target"):
        gc.compile([x], [x], target="tpu")
    with pytest.raises(GraphcError, match="M"):
        gc.compile([x], [x + 1.0], dims={"N": 4, "M": 3})
    with pytest.raises(CompileError, match="threads"):
        gc.compile([x], [x], threads=0)


def test_results_are_fresh_arrays() -> None:
    x = gc.input("x", (3,))
    program = gc.compile([x], [x + 1.0, x])
    first = program(np.zeros(3))
    program(np.ones(3))
    np.testing.assert_array_equal(first[0], np.ones(3))
    np.testing.assert_array_equal(first[1], np.zeros(3))


def test_stages_and_kernels_can_be_read() -> None:
    x, W, b = linear()
    program = gc.compile([x], [gc.relu(x @ W + b)], dims={"N": 16})
    assert {"stability", "differentiate"} <= {stage.name for stage in program.stages}
    assert "matmul" in program.stages[-1].after_text
    (kernel,) = program.kernels.values()
    assert "tile" in kernel.source and "matmul" in kernel.form and kernel.origins
    assert "define" in kernel.llvm() and kernel.schedule


SECOND_PROCESS = """
import sys
import numpy as np
import graphc as gc
x, t = gc.input("x", ("N", 6)), gc.input("t", ("N",), dtype="int32")
W = gc.param("W", (6, 3))
loss = gc.cross_entropy(gc.relu(x @ W), t)
step = gc.compile([x, t], [loss], updates={W: W - 0.1 * gc.grad(loss, W)}, dims={"N": 4})
(value,) = step(np.ones((4, 6)), np.array([0, 1, 2, 0]))
loaded = [m for m in ("numba", "sympy", "graphc.autodiff", "graphc.passes", "graphc.codegen.build") if m in sys.modules]
print(float(value), W.value.sum(), step.from_cache, loaded)
"""


def run_python(code: str, cache: pathlib.Path) -> str:
    paths = ":".join(p for p in sys.path if p)
    env = {"PYTHONSAFEPATH": "1", "GRAPHC_CACHE": str(cache), "PATH": "/usr/bin:/bin", "PYTHONPATH": paths}
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_second_process_runs_from_the_cache_without_the_compiler(tmp_path: pathlib.Path) -> None:
    cold, warm = run_python(SECOND_PROCESS, tmp_path / "c"), run_python(SECOND_PROCESS, tmp_path / "c")
    assert cold.split()[2] == "False" and warm.split()[2] == "True"
    assert cold.split()[:2] == warm.split()[:2]
    assert warm.endswith("[]")


def test_cached_stages_are_recomputed(tmp_path: pathlib.Path) -> None:
    code = SECOND_PROCESS + "\nprint(len(step.stages) > 3, list(step.kernels)[0] in step.kernels)"
    run_python(code, tmp_path / "c")
    assert run_python(code, tmp_path / "c").endswith("True True")


def test_a_program_is_one_object_with_a_useful_repr() -> None:
    x = gc.input("x", ("N", 3))
    program = gc.compile([x], [x * 2.0], name="double")
    assert isinstance(program, Program) and "double" in repr(program) and "not compiled" in repr(program)
    with pytest.raises(CompileError, match="not compiled yet"):
        _ = program.kernels


def test_programs_that_share_a_variable_take_turns_between_threads() -> None:
    W = gc.param("W", (64, 64), init=0.0)
    programs = [gc.compile([], [], updates={W: W.T + float(k)}) for k in (1, 2)]
    errors: list[BaseException] = []

    def work(program: Program) -> None:
        try:
            for _ in range(200):
                program()
        except BaseException as error:  # pragma: no cover - only on failure
            errors.append(error)

    threads = [threading.Thread(target=work, args=(program,)) for program in programs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    np.testing.assert_array_equal(W.value, np.full((64, 64), 600.0))


def test_results_that_are_views_of_updated_variables_keep_their_shapes() -> None:
    a = gc.state("a", (4, 6), init=np.arange(24.0).reshape(4, 6))
    new = a + 1.0
    flat, whole, rows = gc.compile([], [new.reshape(24), new, new.reshape(2, 12)], {a: new})()
    np.testing.assert_array_equal(flat, np.arange(24.0) + 1)
    np.testing.assert_array_equal(whole, (np.arange(24.0) + 1).reshape(4, 6))
    np.testing.assert_array_equal(rows, (np.arange(24.0) + 1).reshape(2, 12))


@pytest.mark.parametrize("repeats", [1, 5])
def test_a_profile_changes_nothing(repeats: int) -> None:
    W, x = gc.param("W", (3,), init=1.0), gc.input("x", ("N",))
    program = gc.compile([x], [gc.sum(x)], {W: W * 0.5})
    times = program.profile(np.ones(4), repeats=repeats)
    np.testing.assert_array_equal(W.value, np.ones(3))
    assert [t.calls for t in times] == [1] * len(times) and all(t.best <= t.seconds for t in times)


@pytest.mark.parametrize("shift", [-1, 2])
def test_labels_that_are_shifted_are_checked_too(shift: int) -> None:
    z, t = gc.input("z", ("N", 5)), gc.input("t", ("N",), dtype="int32")
    program = gc.compile([z, t], [gc.cross_entropy(z, t + shift, reduction="none")], dims={"N": 4})
    logits = np.random.default_rng(0).standard_normal((2, 5)).astype(np.float32)
    inside = np.array([-shift, 4 - shift])
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(program(logits, inside)[0], -np.log(p[[0, 1], [0, 4]]), rtol=1e-5)
    for bad in (-shift - 1, 5 - shift):
        with pytest.raises(InputError, match="cross_entropy"):
            program(logits, np.array([-shift, bad]))


def test_the_reader_of_a_label_is_named_not_what_was_fused_before_it() -> None:
    x, t = gc.input("x", ("N", 5)), gc.input("t", ("N",), dtype="int32")
    program = gc.compile([x, t], [gc.gather(gc.relu(x), t)], dims={"N": 4})
    with pytest.raises(InputError, match="needed by gather"):
        program(np.ones((1, 5)), np.array([9]))


MOVED = """
import numpy as np
import graphc as gc
{blank}
x = gc.input("x", ("N", 3))
program = gc.compile([x], [gc.tanh(x) * 2.0], dims={{"N": 4}})
(kernel,) = program.kernels.values()
print(program.from_cache, *kernel.origins)
"""


def test_a_program_from_the_cache_shows_the_lines_of_this_script(tmp_path: pathlib.Path) -> None:
    first = run_python(MOVED.format(blank=""), tmp_path / "c")
    second = run_python(MOVED.format(blank="\n\n\n"), tmp_path / "c")
    assert first.startswith("False") and second.startswith("True")
    assert ":6" in first and ":9" in second and ":6" not in second


def test_growing_batches_compile_a_few_times_only() -> None:
    x = gc.input("x", ("N", 3))
    program = gc.compile([x], [x * 2.0])
    capacities = []
    for n in range(1, 12):
        program(np.ones((n, 3)))
        capacities.append(program.plan.extents["N"])
    assert sorted(set(capacities)) == [1, 2, 4, 8, 16]


def test_missing_and_unknown_inputs_are_named_before_sizes() -> None:
    x = gc.input("x", ("N", 3))
    program = gc.compile([x], [x * 2.0])
    with pytest.raises(InputError, match="missing: x"):
        program()
    with pytest.raises(InputError, match="no input 'z'.*its inputs are: x"):
        program(z=np.ones((2, 3)))


def test_a_call_inside_a_step_is_refused() -> None:
    x = gc.input("x", (3,))
    program = gc.compile([x], [x * 2.0])

    class Array:
        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            program(np.ones(3))
            return np.ones(3)

    with pytest.raises(InputError, match="under way"):
        program(Array())
    np.testing.assert_array_equal(program(np.ones(3))[0], np.full(3, 2.0))
