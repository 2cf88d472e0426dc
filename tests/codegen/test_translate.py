"""The front end for kernel source: loops, branches, types, and what it leaves to Numba."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

import numpy as np
import pytest

from graphc.codegen.host import host
from graphc.codegen.machine import compile_source
from graphc.codegen.translate import KernelTypeError, Unsupported, translate
from graphc.errors import CompileError

Link = Callable[[str, str], Callable[..., None]]


def kernel(body: str, above: str = "") -> str:
    indented = textwrap.indent(textwrap.dedent(body).strip(), "    ")
    return f"{above}def kernel(args, thread, threads):\n{indented}\n"


def run(link: Link, body: str, *arrays: np.ndarray, thread: int = 0, threads: int = 1, above: str = "") -> None:
    source = kernel(body, above)
    translate(source, "kernel", "entry")  # the front end itself, not what it leaves to Numba
    addresses = np.array([a.ctypes.data for a in arrays], np.int64)
    link(source, "kernel")(addresses.ctypes.data, thread, threads)


@pytest.mark.parametrize(("bounds", "n", "wanted"), [
    ("5", 0, range(5)), ("2, 9, 3", 0, range(2, 9, 3)), ("n", 4, range(4)), ("n", 0, range(0)), ("3, n", 3, range(0)),
    ("3, n", 5, range(3, 5)), ("n, 0, -2", 5, range(5, 0, -2)), ("4, 5", 0, range(4, 5)), ("4, 4", 0, range(0)),
    ("0, 10, n", 4, range(0, 10, 4)), ("10, 0, n", -3, range(10, 0, -3)), ("0, 10, n", -3, range(0)),
])  # fmt: skip
def test_loops_run_as_in_python(link: Link, bounds: str, n: int, wanted: range) -> None:
    found = np.full(12, -1, np.int64)
    run(link, f"""
        out = operand_i64(args, 0)
        n = extent(args, 1)
        last = 0
        for i in range({bounds}):
            store_scalar(out, last, i)
            last = last + 1
        store_scalar(out, 11, last)
        """, found, np.array([n]))  # fmt: skip
    assert found[: len(wanted)].tolist() == list(wanted) and found[11] == len(wanted)
    assert (found[len(wanted) : 11] == -1).all()


def test_values_carried_by_nested_loops_and_branches(link: Link) -> None:
    found = np.zeros(3, np.int64)
    run(link, """
        out = operand_i64(args, 0)
        n = extent(args, 1)
        total = 0
        even = 0
        for i in range(n):
            for j in range(i):
                total = total + j
            if total % 2 == 0:
                even = even + 1
            else:
                even = even + 100
        store_scalar(out, 0, total)
        store_scalar(out, 1, even)
        """, found, np.array([6]))  # fmt: skip
    total = even = 0
    for i in range(6):
        total += sum(range(i))
        even += 1 if total % 2 == 0 else 100
    assert found[:2].tolist() == [total, even]


def test_tiles_are_carried_by_loops_and_chosen_by_branches(link: Link) -> None:
    lanes = host().lanes
    x, y = np.arange(3 * lanes, dtype=np.float32), np.zeros(lanes, np.float32)
    for n, wanted in ((0, np.full(lanes, 5.0)), (3, x.reshape(3, lanes).sum(axis=0))):
        run(link, f"""
            x = operand_f32(args, 0)
            n = extent(args, 2)
            acc = tile_zeros_f32(1, 1)
            for i in range(n):
                acc = acc + tile_load(x, i * {lanes}, 0, 1, 1)
            if n == 0:
                acc = acc + 5.0
            tile_store(operand_f32(args, 1), 0, 0, acc)
            """, x, y, np.array([n]))  # fmt: skip
        np.testing.assert_array_equal(y, wanted)


def test_a_return_ends_the_kernel(link: Link) -> None:
    found = np.zeros(1, np.int64)
    body = """
        if thread != 1:
            return
        store_scalar(operand_i64(args, 0), 0, threads)
        """
    run(link, body, found, thread=0, threads=7)
    assert found[0] == 0
    run(link, body, found, thread=1, threads=7)
    assert found[0] == 7


@pytest.mark.parametrize("expression", [
    "n // 4", "n % 4", "n // 3", "n % 3", "n // -3", "n % -3", "n // m", "n % m", "-n", "n - -m", "n * 1 + 0", "0 - n",
    "n << 2", "n >> 1", "n & m", "n | m", "n ^ m", "(n + m) * 2 - 7 // 2 + 7 % 4", "i64(f64(n) / m * 8.0)",
    "i64(n > m)", "i64((n > 0) & (m > 0))", "i64((n > 0) ^ (m >= 3))", "i64(not n == m)", "i64((n != m) | (n <= 2))",
])  # fmt: skip
@pytest.mark.parametrize(("n", "m"), [(7, 3), (-7, 3), (8, -3), (0, 5)])
def test_integers_compute_as_in_python(link: Link, expression: str, n: int, m: int) -> None:
    found = np.zeros(1, np.int64)
    source = f"""
        n = extent(args, 1)
        m = extent(args, 2)
        store_scalar(operand_i64(args, 0), 0, {expression})
        """
    run(link, source, found, np.array([n]), np.array([m]))
    assert found[0] == eval(expression, {"i64": int, "f64": float, "n": n, "m": m})


def test_division_by_zero_gives_zero(link: Link) -> None:
    found = np.ones(2, np.int64)
    run(link, """
        n = extent(args, 1)
        store_scalar(operand_i64(args, 0), 0, 5 // n)
        store_scalar(operand_i64(args, 0), 1, 5 % n)
        """, found, np.array([0]))  # fmt: skip
    assert found.tolist() == [0, 0]


def test_dtypes_mix_by_numba_s_rules(link: Link) -> None:
    found = np.zeros(4)
    run(link, """
        x = load_scalar(operand_f32(args, 1), 0)
        k = load_scalar(operand_i32(args, 2), 0)
        out = operand_f64(args, 0)
        store_scalar(out, 0, x * x)
        store_scalar(out, 1, x * 0.1)
        store_scalar(out, 2, x + k)
        store_scalar(out, 3, k * k)
        """, found, np.array([1.1], np.float32), np.array([2**20], np.int32))  # fmt: skip
    x = np.float32(1.1)
    assert found.tolist() == [float(x * x), float(x) * 0.1, float(x) + 2**20, 2.0**40]


def test_a_sum_that_outgrows_its_first_type_has_the_wider_one(link: Link) -> None:
    found = np.zeros(2, np.float64)
    run(link, """
        k = load_scalar(operand_i32(args, 1), 0)
        total = i32(0)
        mean = 0
        for i in range(extent(args, 2)):
            total = total + k
            mean = mean + k / 4
        store_scalar(operand_f64(args, 0), 0, total)
        store_scalar(operand_f64(args, 0), 1, mean)
        """, found, np.array([2**30], np.int32), np.array([4]))  # fmt: skip
    assert found.tolist() == [2.0**32, 2.0**30]


def test_constants_above_the_kernel(link: Link) -> None:
    found = np.zeros(4, np.float32)
    run(link, """
        out = operand_f32(args, 0)
        for i in range(3):
            store_scalar(out, i, f32(TABLE[i]))
        store_scalar(out, 3, -f32(inf))
        """, found, above='inf = float("inf")\nTABLE = (3, -1, 4)\n')  # fmt: skip
    assert found.tolist() == [3.0, -1.0, 4.0, -np.inf]


@pytest.mark.parametrize(("line", "message"), [
    ("y = tile_load(x, 0, 0, threads, 1)", "line 3: rows must be a positive integer literal"),
    ("y = tile_load(x, 0)", "line 3: tile_load takes 5 arguments, not 2"),
    ("y = tile_load_strided(x, 0)", "line 3: tile_load_strided takes 6 to 7 arguments"),
    ("y = store_scalar(x, 0, f32(1.0))", "line 3: .* has no value"),
    ("y = x + 1", r"line 3: add is not defined for float32\*"),
    ("y = tile_zeros_f32(1, 1) + tile_zeros_f64(1, 1)", "line 3: add: dtypes of"),
    ("store_scalar(x, x, f32(1.0))", r"line 3: float32\* is not int64"),
])  # fmt: skip
def test_wrong_types_are_told_with_their_line(line: str, message: str) -> None:
    source = kernel(f"x = operand_f32(args, 0)\n{line}")
    with pytest.raises(KernelTypeError, match=message):
        translate(source, "kernel", "entry")
    with pytest.raises(CompileError, match=f"kernel kernel .*{message}"):
        compile_source(source, "kernel")


@pytest.mark.parametrize("body", [
    "x = tile_nothing(args)", "while thread:\n    pass", "x = [threads]", "x = thread and threads", "x: int = 0",
    "for i in (1, 2):\n    pass", "for i in range(3):\n    pass\nelse:\n    pass", "x = 1 if thread else 2",
    "for i in range(3):\n    return", "x = y", "for i in range(threads):\n    x = 1\ny = x", "x = 2 ** thread",
    "x = tile_zeros_f32(1, 1)\nfor i in range(threads):\n    x = tile_zeros_f32(2, 1)", "x = 'text'",
    "x = thread < threads < 3", "x = tile_zeros_f32(rows=1, vectors=1)",
])  # fmt: skip
def test_any_other_python_is_left_to_numba(body: str) -> None:
    with pytest.raises(Unsupported):
        translate(kernel(body), "kernel", "entry")


def test_what_is_left_to_numba_runs(link: Link) -> None:
    found = np.zeros(1, np.int64)
    addresses = np.array([found.ctypes.data], np.int64)
    source = kernel("store_scalar(operand_i64(args, 0), 0, 5 if thread == 0 and threads == 2 else 7)")
    link(source, "kernel")(addresses.ctypes.data, 0, 2)
    assert found[0] == 5


@pytest.mark.parametrize(("inner", "outer", "loops"), [("2", "2", 0), ("3", "3", 0), ("4", "3", 1), ("2", "n", 1)])
def test_small_loops_of_known_length_are_unrolled(link: Link, inner: str, outer: str, loops: int) -> None:
    body = f"""
        x = operand_f32(args, 0)
        n = extent(args, 1)
        best = load_scalar(x, 0)
        for i in range({outer}):
            for j in range({inner}):
                best = tile_maximum(best, load_scalar(x, i * {inner} + j))
        store_scalar(x, 0, best)
        """
    assert str(translate(kernel(body), "kernel", "entry")).count("phi  i64") == loops
    x = np.array([1, 5, 2, 7, 3, 6, 0, 4, 8, 9, 12, 11], np.float32)
    wanted = x[: int(inner) * (2 if outer == "n" else int(outer))].max()
    run(link, body, x, np.array([2]))
    assert x[0] == wanted


def test_equal_sources_give_equal_text() -> None:
    source = kernel("for i in range(threads):\n    store_scalar(operand_f32(args, 0), i, f32(0.5))")
    assert str(translate(source, "kernel", "a")) == str(translate(source, "kernel", "a"))
