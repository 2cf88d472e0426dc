"""What users get wrong, and what a compiler gets wrong at the edges: clear errors, nothing lost, right numbers."""

from __future__ import annotations

import errno
import os
import pathlib
import signal
import subprocess
import sys
import threading
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim
from graphc.errors import (
    CacheWarning,
    DataError,
    DTypeError,
    GradientError,
    GraphcError,
    InputError,
    ShapeError,
    StateError,
)
from graphc.interop.safetensors import save_arrays
from graphc.program import Program
from graphc.runtime import cache as program_cache

RNG = np.random.default_rng(0)


# ---- declarations -------------------------------------------------------------------------------------------------


class Narrow(nn.Module):
    """A layer for five features."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 3)

    def forward(self, x: Any) -> Any:
        return self.fc(x)


def test_a_shape_error_names_op_operands_module_and_line() -> None:
    with pytest.raises(ShapeError, match=r"matmul\(f32\[N,4\], f32\[3,5\]\) in module fc.*\n.*test_bad_input\.py:\d+"):
        Narrow()(gc.input("x", ("N", 4)))
    with pytest.raises(ShapeError, match=r"add\(f32\[N,4\], f32\[M,4\]\).*axis -2 has N and M(.|\n)*test_bad_input"):
        gc.input("x", ("N", 4)) + gc.input("y", ("M", 4))


def test_a_dtype_error_says_how_to_convert() -> None:
    with pytest.raises(DTypeError, match=r"add\(f32\[4\], f64\[4\]\).*astype(.|\n)*test_bad_input\.py"):
        gc.input("x", (4,)) + gc.input("y", (4,), dtype="float64")


@pytest.mark.parametrize("bad", ["-1", -1, 2.5, "N M", "N/2", "", "N[0]"])
def test_what_is_no_dimension_is_refused(bad: Any) -> None:
    with pytest.raises(ShapeError):
        gc.input("x", (bad, 3))


def test_a_one_hot_of_negative_depth_is_refused() -> None:
    with pytest.raises(ShapeError, match="one_hot.*-2"):
        gc.one_hot(gc.input("i", ("N",), dtype="int32"), -2)


def test_gradients_that_do_not_exist() -> None:
    w, other = gc.param("w", (3,)), gc.param("other", (3,))
    with pytest.raises(GradientError, match="scalar"):
        gc.grad(w * 2.0, w)
    with pytest.raises(GradientError, match="does not depend on other"):
        gc.grad(gc.sum(w), [w, other])
    with pytest.raises(GradientError, match="only through gt"):
        gc.grad(gc.sum((w > 0).astype("float32")), w)


# ---- compile and call ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [-1, 2.5, "4", True, None])
def test_dims_must_be_counts(size: Any) -> None:
    x = gc.input("x", ("N", 3))
    with pytest.raises(InputError, match="dims"):
        gc.compile([x], [x * 2.0], dims={"N": size})


def test_dims_must_be_a_mapping() -> None:
    x = gc.input("x", ("N", 3))
    for dims in ([("N", 4)], 4, ()):
        with pytest.raises(InputError, match=r"dims must map symbols to sizes, \{'N': 128\}, got "):
            gc.compile([x], [x * 2.0], dims=dims)  # type: ignore[arg-type]


def test_dims_may_be_numpy_integers() -> None:
    x = gc.input("x", ("N", 3))
    program = gc.compile([x], [x * 2.0], dims={"N": np.int64(4)})  # type: ignore[dict-item]
    np.testing.assert_array_equal(program(np.ones((3, 3)))[0], np.full((3, 3), 2.0))


def test_unknown_dims_are_refused_at_once() -> None:
    x = gc.input("x", ("N", 3))
    with pytest.raises(InputError, match="'M'"):
        gc.compile([x], [x], dims={"M": 2})


def test_dims_of_symbols_that_no_input_has() -> None:
    noise = gc.random.uniform(("N", 3))
    (drawn,) = gc.compile([], [noise], dims={"N": 4})()
    assert drawn.shape == (4, 3)
    with pytest.raises(InputError, match="no input tells the size of N"):
        gc.compile([], [noise])()


def test_a_capacity_that_makes_a_size_negative_is_refused() -> None:
    x, y = gc.input("x", ("N-5", 3)), gc.input("y", ("N", 3))
    with pytest.raises(InputError, match="negative"):
        gc.compile([x, y], [gc.sum(x) + gc.sum(y)], dims={"N": 3})


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, "a", None])
def test_seeds_must_be_integers_in_range(seed: Any) -> None:
    with pytest.raises(InputError, match="seed"):
        gc.compile([], [gc.random.uniform((3,))], seed=seed)


def test_updates_must_be_a_mapping_to_values_that_fit() -> None:
    w, x = gc.param("w", (3,)), gc.input("x", (3,))
    with pytest.raises(InputError, match="map"):
        gc.compile([], [], updates=[(w, w)])  # type: ignore[arg-type]
    bad: tuple[tuple[Any, Any], ...] = ((x, w), (w, gc.sum(w)), (w, [1.0, 2.0]), (w, "a"), (w, None))
    for variable, new in bad:
        with pytest.raises(StateError):
            gc.compile([x], [], updates={variable: new})


@pytest.mark.parametrize(
    "labels", [[0, 4, 1], [0, -1, 1], np.array([0, 2**32, 1]), np.array([0, 2**64 - 1, 1], np.uint64), [0.0, 1.0, 2.0]]
)
def test_bad_labels_change_nothing(labels: Any) -> None:
    x, t = gc.input("x", ("N", 4)), gc.input("t", ("N",), dtype="int32")
    steps = gc.state("steps", (), dtype="int64")
    program = gc.compile([x, t], [gc.cross_entropy(x, t)], updates={steps: steps + 1}, dims={"N": 5})
    with pytest.raises(InputError, match="'t'"):
        program(np.ones((3, 4)), labels)
    assert steps.value == 0


@pytest.mark.parametrize(
    "value", ["abc", None, [[1, 2], [3]], np.ones((3, 4)) + 1j, 1.0, np.ma.masked_array(np.ones((3, 4)), True)]
)
def test_what_is_no_array_of_the_shape_is_refused(value: Any) -> None:
    program = gc.compile([x := gc.input("x", ("N", 4))], [x * 2.0], dims={"N": 5})
    with pytest.raises(InputError, match="'x'"):
        program(value)


# ---- modules and files --------------------------------------------------------------------------------------------


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, 4))


def test_a_load_that_fails_changes_nothing(tmp_path: pathlib.Path) -> None:
    model, path = network(), tmp_path / "m.safetensors"
    model.save(path)
    good, saved = path.read_bytes(), model.state_dict()
    for parameter in model.parameters():
        parameter.value = parameter.value + 1
    before = {name: array.copy() for name, array in model.state_dict().items()}
    first, last = list(saved)[0], list(saved)[-1]
    without = {name: array for name, array in saved.items() if name != first}
    for arrays in (without, {**saved, "extra": np.ones(2)}, {**saved, last: np.ones(9)}, {}):
        save_arrays(tmp_path / "bad", arrays)
        with pytest.raises(StateError, match="Nothing was loaded"):
            model.load(tmp_path / "bad")
    for damaged in (b"", good[:4], good[:50], good[: len(good) // 2], good[:-1], good + b"1", b"\xff" * 8 + good[8:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError):
            model.load(path)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_bad_data_train_nothing() -> None:
    model = network()
    model.compile(loss="cross_entropy", optimizer=optim.SGD(lr=0.1))
    x, y = RNG.standard_normal((20, 8)), RNG.integers(0, 4, 20)
    before = {name: array.copy() for name, array in model.state_dict().items()}
    outside = np.where(np.arange(20) == 19, 4, y)
    options: tuple[tuple[Any, Any, dict[str, Any]], ...] = (
        (x, outside, {"batch_size": 5}), (x, y[:10], {}), (x[:0], y[:0], {}), (x[:, :5], y, {}), (x, y, {"epochs": -1}),
        (x, y, {"batch_size": 0}), (x, y, {"batch_size": 2.5}), (x, y, {"validation_data": (x, outside)}),
    )  # fmt: skip
    for data, labels, others in options:
        with pytest.raises(GraphcError):
            model.fit(data, labels, verbose=0, **others)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs signals by timer")
def test_an_interrupt_leaves_a_step_boundary_and_a_usable_model() -> None:
    a, b = gc.state("a", (4096,)), gc.state("b", (4096,))
    program = gc.compile([], [gc.sum(a)], updates={a: a + 1.0, b: b + 1.0})
    for _ in range(3):
        old = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
        try:
            with pytest.raises(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, 0.02)
                while True:
                    program()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old)
        assert len({*a.value, *b.value}) == 1
    program()


def test_an_interrupted_growth_can_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    x = gc.input("x", ("N", 3))
    program = gc.compile([x], [x * 3.0], cache=False)
    program(np.ones((2, 3)))

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Program, "_build", interrupted)
        with pytest.raises(KeyboardInterrupt):
            program(np.ones((4, 3)))
    np.testing.assert_array_equal(program(np.ones((4, 3)))[0], np.full((4, 3), 3.0))


# ---- the program cache --------------------------------------------------------------------------------------------


def declared() -> Program:
    x = gc.input("x", (6,))
    return gc.compile([x], [gc.tanh(x) * 3.0])


def run_once(folder: object) -> tuple[float, bool, list[str]]:
    """The result of a small program, whether it came from the cache, and the warnings, as in a new process."""
    os.environ["GRAPHC_CACHE"] = str(folder)
    program_cache._cache_at.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        program = declared()
        value = float(program(np.ones(6))[0][3])
    assert all(issubclass(w.category, CacheWarning) for w in caught)
    assert value == pytest.approx(3 * np.tanh(1.0))
    return value, program.from_cache, [str(w.message) for w in caught]


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("GRAPHC_CACHE", "off")  # put back afterwards
    return tmp_path / "cache"


def test_damaged_entries_are_compiled_again(folder: pathlib.Path) -> None:
    assert run_once(folder)[1:] == (False, [])
    (path,) = folder.iterdir()
    good = path.read_bytes()
    flips = [good[:o] + bytes([good[o] ^ 1]) + good[o + 1 :] for o in (0, 8, 12, 44, 51, 52, 500, len(good) - 1)]
    cuts = [good[:n] for n in (0, 1, 43, 44, 52, len(good) // 2, len(good) - 1)]
    for damaged in (*flips, *cuts, good + b"x", bytes(len(good)), b"text" * 100):
        path.write_bytes(damaged)
        _, from_cache, told = run_once(folder)
        assert not from_cache and len(told) == 1 and "compiled again" in told[0]
        assert run_once(folder)[1:] == (True, [])


def test_an_entry_of_another_compiler_with_a_right_digest_is_compiled_again(folder: pathlib.Path) -> None:
    run_once(folder)
    (path,) = folder.iterdir()
    image = program_cache.decode(path.read_bytes(), path.stem)
    objects = {symbol: b"\x7fELF" for symbol in image.objects}
    broken = (
        program_cache.ProgramImage(image.plan, objects, image.constants, image.extra),
        program_cache.ProgramImage(image.plan, {}, image.constants, image.extra),
        program_cache.ProgramImage(replace(image.plan, buffers=()), image.objects, image.constants, image.extra),
    )
    for foreign in broken:
        path.write_bytes(program_cache.encode(foreign, path.stem))
        _, from_cache, told = run_once(folder)
        assert not from_cache and len(told) == 1 and "compiled again" in told[0]
        assert run_once(folder)[1:] == (True, [])


@pytest.mark.parametrize("name", ["file", "file/below", "link", "writable"])
def test_a_folder_that_cannot_serve_is_told_once_and_programs_run(folder: pathlib.Path, name: str) -> None:
    (folder.parent / "file").touch()
    (folder.parent / "link").symlink_to(folder.parent)
    (folder.parent / "writable").mkdir()
    (folder.parent / "writable").chmod(0o777)
    _, from_cache, told = run_once(folder.parent / name)
    assert not from_cache and len(told) == 1 and "is not used" in told[0]


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a file system that takes no folders")
def test_a_folder_that_cannot_be_made_is_told() -> None:
    before = os.environ["GRAPHC_CACHE"]
    try:
        _, from_cache, told = run_once("/proc/no-such/cache")
    finally:
        os.environ["GRAPHC_CACHE"] = before
        program_cache._cache_at.cache_clear()
    assert not from_cache and len(told) == 1


def test_a_full_disk_is_told_and_leaves_no_file(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    _, from_cache, told = run_once(folder)
    assert not from_cache and len(told) == 1 and "No space" in told[0]
    assert not list(folder.iterdir())


def test_the_home_of_an_unknown_user_is_a_plain_folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_CACHE", "off")
    monkeypatch.chdir(tmp_path)
    assert run_once("~no-such-user/cache")[1] is False


@pytest.mark.slow
def test_processes_may_write_the_same_entry_at_once(folder: pathlib.Path) -> None:
    code = (
        "import numpy as np, graphc as gc\nx = gc.input('x', (6,))\n"
        "p = gc.compile([x], [gc.tanh(x) * 3.0])\nprint(float(p(np.ones(6))[0][0]))"
    )
    env = {**os.environ, "GRAPHC_CACHE": str(folder), "PYTHONPATH": ":".join(p for p in sys.path if p)}
    command = [sys.executable, "-W", "error", "-c", code]
    running = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert len({process.communicate()[0] for process in running}) == 1
    assert all(process.returncode == 0 for process in running)
    assert len(list(folder.iterdir())) == 1


# ---- programs of odd shape ----------------------------------------------------------------------------------------


def test_a_program_without_inputs_and_outputs() -> None:
    assert gc.compile([], [])() == []


def test_outputs_may_repeat_and_be_inputs_variables_and_constants() -> None:
    x, w = gc.input("x", ("N", 2)), gc.param("w", (2,), init=5.0)
    y = x + 1.0
    program = gc.compile([x], [y, y, x, w, gc.constant(3.0), w.reshape(2, 1)], updates={w: w * 2.0})
    first, second, same, old, three, column = program(np.zeros((3, 2)))
    first[:] = 9
    np.testing.assert_array_equal(second, np.ones((3, 2)))
    np.testing.assert_array_equal(same, np.zeros((3, 2)))
    np.testing.assert_array_equal(old, [5.0, 5.0])
    np.testing.assert_array_equal(column, [[5.0], [5.0]])
    assert three == 3 and w.value[0] == 10


def state(name: str, value: Any) -> Any:
    return gc.state(name, np.shape(value), init=value)


def test_rotation_of_three_variables() -> None:
    a, b, c = (state(n, np.full(33, float(i))) for i, n in enumerate("abc"))
    program = gc.compile([], [a, b, c], updates={a: b, b: c, c: a})
    assert [r[0] for r in program()] == [0, 1, 2]
    assert [v.value[32] for v in (a, b, c)] == [1, 2, 0]


def test_updates_read_old_values_through_matmul_transposes_and_views() -> None:
    first, second = (RNG.standard_normal((17, 17)).astype(np.float32) * 0.3 for _ in range(2))
    a, b, c = state("a", first), state("b", second), state("c", np.arange(289.0))
    updates = {a: a @ b, b: b @ a + a.T, c: a.reshape(289) + c}
    program = gc.compile([], [a, gc.sum(c)], updates=updates)
    x, y, z = first.astype(float), second.astype(float), np.arange(289.0)
    for _ in range(3):
        old, total = program()
        np.testing.assert_allclose(old, x, atol=1e-5)
        np.testing.assert_allclose(total, z.sum(), rtol=1e-5)
        x, y, z = x @ y, y @ x + x.T, x.reshape(289) + z
        np.testing.assert_allclose(a.value, x, atol=1e-5)
        np.testing.assert_allclose(b.value, y, atol=1e-5)
        np.testing.assert_allclose(c.value, z, rtol=1e-5)


def test_updates_that_share_a_value_or_swap_views() -> None:
    a, b, c = state("a", np.arange(24.0).reshape(4, 6)), state("b", np.ones(24)), state("c", np.ones((4, 6)))
    new = a * 2.0
    (out,) = gc.compile([], [new], updates={a: new, c: new, b: a.reshape(24)})()
    expected = np.arange(24.0).reshape(4, 6)
    for got in (out, a.value, c.value):
        np.testing.assert_array_equal(got, 2 * expected)
    np.testing.assert_array_equal(b.value, expected.reshape(24))
    gc.compile([], [], updates={a: b.reshape(4, 6), b: a.reshape(24)})()
    np.testing.assert_array_equal(a.value, expected)
    np.testing.assert_array_equal(b.value, 2 * expected.reshape(24))


def test_an_update_through_a_reduction_of_itself() -> None:
    a, b = state("a", np.arange(40.0)), state("b", 2.0)
    gc.compile([], [], updates={a: a - gc.mean(a) * b, b: gc.sum(a)})()
    np.testing.assert_allclose(a.value, np.arange(40.0) - 39.0)
    assert b.value == 780


@pytest.mark.parametrize("symbol", ["for", "é", "args", "i0", "thread", "x", "in0", "None"])
def test_names_that_mean_something_elsewhere(symbol: str) -> None:
    x, w = gc.input("x", (symbol, 3)), gc.param("args", (3,), init=2.0)
    (y, total) = gc.compile([x], [x * w, gc.sum(x)], name="a name! é")(np.ones((2, 3)))
    assert y.shape == (2, 3) and y[1, 1] == 2 and total == 6


@pytest.mark.parametrize("name", ["in", "where", "image.x", "image-x", "1x", "é"])
def test_inputs_keep_their_names(name: str) -> None:
    """Also those that kernels cannot use; beside one that is called as kernels call it."""
    x, other = gc.input(name, ("N",)), gc.input("image_x", ("N",))
    program = gc.compile([x, other], [x - other], dims={"N": 2})
    for found in (program([3.0, 4.0], [1.0, 1.0]), program(**{"image_x": [1.0, 1.0], name: [3.0, 4.0]})):
        np.testing.assert_array_equal(found[0], [2.0, 3.0])
    with pytest.raises(InputError, match=f"input '{name}' expected"):
        program(np.ones((2, 2)), [1.0, 1.0])
    labels = gc.input(name, ("N",), dtype="int32")
    with pytest.raises(InputError, match=f"input '{name}'"):
        gc.compile([labels], [gc.take(gc.param("w", (3, 2)), labels, axis=0)], dims={"N": 2})([0, 7])


# ---- sizes --------------------------------------------------------------------------------------------------------


def test_two_runtime_counts() -> None:
    x, y = gc.input("x", ("N", 5)), gc.input("y", ("M", 5))
    k = gc.matmul(x, y, transpose_b=True)
    outputs = [k, gc.sum(k, axis=0), k.T, k.reshape(-1), k.T.reshape(-1), gc.mean(k), gc.softmax(k, axis=0),
               gc.max(k, axis=1)]  # fmt: skip
    program = gc.compile([x, y], outputs, dims={"N": 7, "M": 9})
    for n, m in ((7, 9), (3, 9), (7, 2), (4, 5), (1, 1)):
        a, b = RNG.standard_normal((n, 5)), RNG.standard_normal((m, 5))
        c = a @ b.T
        expected = (c, c.sum(0), c.T, c.reshape(-1), c.T.reshape(-1), c.mean(), np.exp(c) / np.exp(c).sum(0), c.max(1))
        for got, wanted in zip(program(a, b), expected, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_counts_inside_expressions() -> None:
    x, y = gc.input("x", ("2*N", 3)), gc.input("y", ("N", 6))
    program = gc.compile([x, y], [x.reshape(-1, 6) + y, y.reshape(-1, 3) - x, gc.sum(x)], dims={"N": 5})
    for n in (5, 2, 0):
        a, b = RNG.standard_normal((2 * n, 3)), RNG.standard_normal((n, 6))
        for got, wanted in zip(program(a, b), (a.reshape(-1, 6) + b, b.reshape(-1, 3) - a, a.sum()), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match="2\\*N"):
        program(np.ones((3, 3)), np.ones((1, 6)))


def test_a_runtime_count_through_transposes_and_reshapes() -> None:
    x = gc.input("x", ("N", 6))
    parts = x.reshape(-1, 2, 3)
    outputs = [x.T.reshape(-1) * 2.0, (x.T + 1.0).T, x.T @ x, parts.transpose(2, 0, 1), gc.max(x.T, axis=1),
               parts.transpose(1, 0, 2).reshape(2, -1), gc.sum(x.reshape(-1) * x.T.reshape(-1))]  # fmt: skip
    program = gc.compile([x], outputs, dims={"N": 9})
    for n in (9, 4, 1):
        a = RNG.standard_normal((n, 6))
        b = a.reshape(-1, 2, 3)
        expected = (a.T.reshape(-1) * 2, a + 1, a.T @ a, b.transpose(2, 0, 1), a.max(0),
                    b.transpose(1, 0, 2).reshape(2, -1), (a.reshape(-1) * a.T.reshape(-1)).sum())  # fmt: skip
        for got, wanted in zip(program(a), expected, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_axes_of_size_0() -> None:
    x, w = gc.input("x", (3, 0)), gc.param("w", (0, 4))
    y, total, rows = gc.compile([x], [x @ w, gc.sum(x), gc.sum(x, axis=1)])(np.zeros((3, 0)))
    np.testing.assert_array_equal(y, np.zeros((3, 4)))
    np.testing.assert_array_equal(rows, np.zeros(3))
    assert total == 0
    with pytest.raises(ShapeError, match="size 0"):
        gc.max(x, axis=1)


def test_an_empty_batch() -> None:
    x, t, w = gc.input("x", ("N", 3)), gc.input("t", ("N",), dtype="int64"), gc.param("w", (3, 2))
    loss = gc.cross_entropy(x @ w, t)
    program = gc.compile([x, t], [loss, gc.sum(x), x @ w, gc.sum(gc.grad(loss, w))], dims={"N": 4})
    value, total, logits, gradient = program(np.zeros((0, 3)), np.zeros(0, int))
    assert np.isnan(value) and total == 0 and logits.shape == (0, 2) and gradient == 0


# ---- numbers ------------------------------------------------------------------------------------------------------


def test_integer_programs_wrap_and_compare_exactly() -> None:
    x = np.array([2**31 - 1, -(2**31), 5], np.int32)
    y = np.array([2**63 - 1, -(2**63), 7], np.int64)
    a, b = gc.input("a", (3,), dtype="int32"), gc.input("b", (3,), dtype="int64")
    outputs = [a + a, a * a, a.astype("int64") * 2, b + b, gc.max(b), gc.argmax(b), gc.maximum(b, 0), a / 2]
    with np.errstate(over="ignore"):
        expected = [x + x, x * x, x.astype(np.int64) * 2, y + y, y.max(), y.argmax(), np.maximum(y, 0), x / 2]
    for got, wanted in zip(gc.compile([a, b], outputs)(x, y), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-7)


def test_nan_and_infinities_go_through() -> None:
    values = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 3e38, 1e4, -1e4], np.float32)
    x, y = (np.ascontiguousarray(m.ravel()) for m in np.meshgrid(values, values))
    a, b = gc.input("a", ("N",)), gc.input("b", ("N",))
    outputs = [gc.maximum(a, b), gc.minimum(a, b), gc.relu(a), gc.tanh(a), gc.sigmoid(a), gc.softplus(a), a * b,
               gc.where(a > b, a, b)]  # fmt: skip
    with np.errstate(all="ignore"):
        sigmoid = 1 / (1 + np.exp(-x.astype(float)))
        expected = [np.maximum(x, y), np.minimum(x, y), np.where(np.isnan(x), x, np.maximum(x, 0)), np.tanh(x), sigmoid,
                    np.logaddexp(0, x.astype(float)), x * y, np.where(x > y, x, y)]  # fmt: skip
    for got, wanted in zip(gc.compile([a, b], outputs, dims={"N": 128})(x, y), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6)


@pytest.mark.parametrize("n", [1, 5, 16, 17, 40, 200])
def test_reductions_find_nan_and_the_first_of_equals(n: int) -> None:
    data = RNG.standard_normal((4, n)).astype(np.float32)
    data[1, n // 2], data[2, n - 1] = np.nan, np.inf
    data[3] = 2.0
    x = gc.input("x", (4, n))
    outputs = [gc.max(x, axis=1), gc.min(x, axis=1), gc.argmax(x, axis=1), gc.argmax(x.T, axis=0), gc.max(x)]
    expected = [data.max(1), data.min(1), data.argmax(1), data.argmax(1), data.max()]
    for got, wanted in zip(gc.compile([x], outputs)(data), expected, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_huge_logits() -> None:
    logits = np.zeros((3, 10), np.float32)
    logits[0, 3], logits[1], logits[2, 5] = 1e4, 3e38, -1e4
    t = gc.input("t", (3,), dtype="int32")
    w = gc.param("w", (3, 10), init=logits)
    rows = gc.cross_entropy(w, t, reduction="none")
    value, gradient = gc.compile([t], [rows, gc.grad(gc.sum(rows), w)])([0, 0, 5])
    np.testing.assert_allclose(value, [1e4, np.log(10), 1e4 + np.log(9)], rtol=1e-6)
    np.testing.assert_allclose(gradient.sum(1), 0, atol=1e-6)
    assert np.isfinite(gradient).all() and gradient[0, 3] == 1


# ---- randomness, graphs, threads ----------------------------------------------------------------------------------


def test_random_numbers_go_on_when_a_program_grows() -> None:
    x = gc.input("x", ("N", 3))
    program = gc.compile([x], [gc.random.uniform(("N", 3)) + 0.0 * x], seed=5)
    first, second = (program(np.zeros((2, 3)))[0] for _ in range(2))
    (grown,) = program(np.zeros((4, 3)))
    assert len({part.tobytes() for part in (first, second, grown[:2])}) == 3


def test_a_dropout_mask_is_one_mask_forward_and_backward() -> None:
    x = gc.input("x", ("N", 50))
    mask = gc.where(gc.random.uniform(("N", 50)) < 0.5, 2.0, 0.0)
    y = x * mask
    program = gc.compile([x], [y, gc.grad(gc.sum(y * y), x), mask], dims={"N": 20})
    for n in (20, 13):
        data = RNG.standard_normal((n, 50)).astype(np.float32) + 3
        forward, backward, drawn = program(data)
        np.testing.assert_allclose(forward, data * drawn)
        np.testing.assert_allclose(backward, 2 * data * drawn**2, rtol=1e-5)


def test_a_million_uniform_numbers() -> None:
    program = gc.compile([], [gc.random.uniform((1_000_000,))], seed=3)
    (first,), (second,) = program(), program()
    u, v = first.astype(float), second.astype(float)
    counts, _ = np.histogram(u, 100, (0, 1))
    assert 0 <= u.min() and u.max() < 1 and abs(u.mean() - 0.5) < 2e-3 and abs(u.var() - 1 / 12) < 1e-3
    assert 50 < ((counts - 1e4) ** 2 / 1e4).sum() < 160  # chi square with 99 degrees of freedom
    assert abs(np.corrcoef(u, v)[0, 1]) < 5e-3 and abs(np.corrcoef(u[1:], u[:-1])[0, 1]) < 5e-3


def test_a_deep_chain_and_a_doubling_graph() -> None:
    x = gc.input("x", ("N", 4))
    chain: gc.Symbol = x
    double: gc.Symbol = x
    for i in range(100):
        chain = gc.tanh(chain * 1.01 + 0.01) if i % 2 else gc.sigmoid(chain) - 0.3
    for _ in range(40):  # a tree of 2**40 leaves, were it not a graph
        double = double + double
    data = RNG.standard_normal((3, 4)).astype(np.float32)
    got, doubled = gc.compile([x], [chain, double], dims={"N": 5})(data)
    expected = data.astype(float)
    for i in range(100):
        expected = np.tanh(expected * 1.01 + 0.01) if i % 2 else 1 / (1 + np.exp(-expected)) - 0.3
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(doubled, data * 2.0**40)


def test_a_value_with_fifty_readers() -> None:
    x = gc.input("x", ("N", 10))
    y = gc.tanh(x)
    outputs = [y * float(i + 1) for i in range(40)] + [gc.sum(y * float(i + 1), axis=i % 2) for i in range(10)]
    data = RNG.standard_normal((7, 10))
    got, expected = gc.compile([x], outputs, dims={"N": 9})(data), np.tanh(data)
    for i in range(40):
        np.testing.assert_allclose(got[i], expected * (i + 1), rtol=1e-4, atol=1e-6)
    for i in range(10):
        np.testing.assert_allclose(got[40 + i], (expected * (i + 1)).sum(i % 2), rtol=1e-4, atol=1e-4)


def test_python_threads_may_share_a_program_that_grows() -> None:
    x, w, steps = gc.input("x", ("N", 8)), gc.param("w", (8,), init=0.5), gc.state("steps", (), dtype="int64")
    program = gc.compile([x], [x * w], updates={steps: steps + 1})
    wrong: list[object] = []

    def work(k: int) -> None:
        for i in range(30):
            data = np.full((1 + (7 * i + k) % 9, 8), k + i / 100, np.float32)
            try:
                np.testing.assert_array_equal(program(data)[0], data / 2)
            except Exception as error:  # noqa: BLE001 - collected for the main thread
                wrong.append(error)

    workers = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong and steps.value == 120


def test_gradient_of_a_gradient_runs() -> None:
    x, w = gc.input("x", ("N", 3)), gc.param("w", (3,), init=np.array([0.5, -1.0, 2.0]))
    first = gc.grad(gc.mean((x * w) ** 2), w)
    program = gc.compile([x], [first, gc.grad(gc.sum(first * first), w)], dims={"N": 50})
    for n in (50, 37, 1):
        data = RNG.standard_normal((n, 3))
        scale = (2 * data * data).sum(0) / (3 * n)
        got = program(data)
        np.testing.assert_allclose(got[0], scale * w.value, rtol=1e-5)
        np.testing.assert_allclose(got[1], 2 * scale**2 * w.value, rtol=1e-5)
