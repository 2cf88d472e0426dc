"""Where threads meet: in plans made by hand, and in compiled ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

import graphc as gc
from graphc.codegen import sharing
from graphc.codegen.choose import choose
from graphc.codegen.host import Host, host
from graphc.codegen.sharing import FIRST_THREAD, Part, Touch, Touches, parts, place_barriers, share_work, work_estimate
from graphc.kernel.parser import parse_kernel
from graphc.kernel.plan import Barrier, Branch, Buffer, Call, Entry, Loop, Plan, While
from graphc.kernel.plan_text import _entries
from graphc.kernel.schedule import Schedule


class Named(Touches):
    """A call named `ab>c` reads a and b, and writes c; shared calls may touch all of it from any thread."""

    def __init__(self) -> None:
        super().__init__(Plan("p", (), (), 0, (), (), ()), {})

    def of_call(self, call: Call, loops: Sequence[Loop]) -> list[Touch]:
        reads, writes = call.kernel.split(">")
        part = None if call.shared else FIRST_THREAD
        return [Touch(name, 0, 8, False, part) for name in reads] + [Touch(name, 0, 8, True, part) for name in writes]

    def of_predicate(self, name: str, loops: Sequence[Loop]) -> list[Touch]:
        return [Touch(name, 0, 8, False, None)]


def shared(name: str) -> Call:
    return Call(name, (), shared=1)


def alone(name: str) -> Call:
    return Call(name, ())


def text(*entries: Entry) -> list[str]:
    """The plan's table with barriers, without the calls' brackets."""
    placed, _ = place_barriers(entries, Named())
    return [line.replace("()", "").replace(" shared", "") for line in _entries(placed)]


def test_what_one_call_writes_and_another_touches_is_parted() -> None:
    assert text(shared("a>b"), shared("b>c")) == ["a>b", "barrier", "b>c"]  # read after write
    assert text(shared("a>b"), shared("c>a")) == ["a>b", "barrier", "c>a"]  # write after read
    assert text(shared("a>b"), shared("c>b")) == ["a>b", "barrier", "c>b"]  # write after write
    assert text(shared("a>b"), shared("a>c")) == ["a>b", "a>c"]


def test_thread_0_needs_no_barrier_with_itself() -> None:
    assert text(alone("a>b"), alone("b>c"), alone("c>a")) == ["a>b", "b>c", "c>a"]
    assert text(shared("a>b"), alone("b>c"), alone("c>d"), shared("d>e")) == [
        "a>b", "barrier", "b>c", "c>d", "barrier", "d>e"]  # fmt: skip


def test_one_barrier_serves_all_that_came_before() -> None:
    assert text(shared("a>b"), shared("a>c"), shared("b>d"), shared("c>e"), shared("d>f")) == [
        "a>b", "a>c", "barrier", "b>d", "c>e", "barrier", "d>f"]  # fmt: skip


def test_barriers_that_are_there_count() -> None:
    assert text(shared("a>b"), Barrier(), shared("b>c")) == ["a>b", "barrier", "b>c"]


def test_a_loops_turns_are_parted() -> None:
    assert text(Loop("t", 3, (shared("a>b"), shared("b>c"))), shared("c>d")) == [
        "loop t < 3 {", "  barrier", "  a>b", "  barrier", "  b>c", "}", "barrier", "c>d"]  # fmt: skip
    # Nothing of a turn is touched by the next.
    assert text(Loop("t", 3, (shared("a>b"), shared("a>c")))) == ["loop t < 3 {", "  barrier", "  a>b", "  a>c", "}"]
    assert text(Loop("t", 3, (shared("a>"),)), shared("a>")) == ["loop t < 3 {", "  a>", "}", "a>"]
    # A carried value.
    assert text(shared(">h"), Loop("t", 3, (shared("h>g"), shared("g>h"))), shared("h>")) == [
        ">h", "loop t < 3 {", "  barrier", "  h>g", "  barrier", "  g>h", "}", "barrier", "h>"]  # fmt: skip


def test_nested_loops() -> None:
    inner = Loop("s", 2, (shared("a>b"),))
    assert text(Loop("t", 3, (inner, shared("b>a")))) == [
        "loop t < 3 {", "  loop s < 2 {", "    barrier", "    a>b", "  }", "  barrier", "  b>a", "}"]  # fmt: skip


def test_a_branch_reads_its_predicate_on_all_threads() -> None:
    assert text(alone("a>p"), Branch("p", (shared("a>b"),), (alone("a>b"),)), shared("b>c")) == [
        "a>p", "barrier", "if p {", "  a>b", "} else {", "  a>b", "}", "barrier", "b>c"]  # fmt: skip
    # What one side needs, the other does not pay for.
    assert text(shared("a>b"), Branch("q", (shared("b>c"),), (shared("a>d"),))) == [
        "a>b", "if q {", "  barrier", "  b>c", "} else {", "  a>d", "}"]  # fmt: skip


def test_a_predicate_is_not_written_while_a_thread_still_reads_it() -> None:
    assert text(Branch("p", (shared("a>b"),)), alone("a>p")) == ["if p {", "  a>b", "}", "barrier", "a>p"]


def test_a_loop_that_ends_by_a_test() -> None:
    loop = While("w", (alone("n>p"),), "p", (shared("h>g"), alone("n>n")))
    assert text(alone(">n"), loop, shared("g>k")) == [
        ">n", "repeat w {", "  barrier", "  n>p", "  barrier", "  leave unless p", "  h>g", "  n>n", "}", "barrier",
        "g>k",
    ]  # fmt: skip


# ---- parts ----------------------------------------------------------------------------------------------------------

SCALE = parse_kernel("""
kernel scale(x: f32[64,512]) -> (y: f32[64,512]) {
  space i < 64, j < 512
  stage {
    y[i, j] = x[i, j] * 2.0
  }
}
""")
TRANSPOSE = parse_kernel("""
kernel transpose(x: f32[64,512]) -> (y: f32[512,64]) {
  space i < 64, j < 512
  stage {
    y[j, i] = x[i, j]
  }
}
""")
ROWS = parse_kernel("""
kernel rows(x: f32[64,512], w: f32[512,512]) -> (y: f32[64,512]) {
  space i < 64, j < 512
  stage {
    reduce k < 512
    acc: f32 = sum(x[i, k] * w[k, j])
    y[i, j] = acc
  }
}
""")


def test_shares_of_whole_rows_are_known() -> None:
    by_rows = Schedule("outer", "j", (("i", 8), ("j", 64)), ("i", "j"), parallel="i")
    assert parts(ROWS, by_rows) == [Part("64", 8, 2048), None, Part("64", 8, 2048)]
    by_columns = Schedule("outer", "j", (("i", 8), ("j", 64)), ("j", "i"), parallel="j")
    assert parts(ROWS, by_columns) == [None, None, None]
    uneven = Schedule("outer", "j", (("i", 5), ("j", 64)), ("i", "j"), parallel="i")
    assert parts(ROWS, uneven) == [None, None, None]
    columns = Schedule("vector", "j", (("j", 64),), ("i", "j"), parallel="i")
    assert parts(TRANSPOSE, columns) == [Part("64", 1, 2048), None]


def plan_of(*kernels: str) -> Plan:
    """x -> y -> z, by kernels of these names in turn."""
    names = ("x", "y", "z", "u")
    buffers = [Buffer(name, "f32", (64, 512), "scratch", place * 131072, 131072) for place, name in enumerate(names)]
    buffers.append(Buffer("w", "f32", (512, 512), "variable", 0, 1048576))
    operands = {"rows": lambda a, b: (a, "w", b)}
    calls = [Call(kernel, operands.get(kernel, lambda a, b: (a, b))(names[i], names[i + 1]))
             for i, kernel in enumerate(kernels)]
    return Plan("p", tuple(buffers), tuple(calls), 4 * 131072, (), (), ("w",))


def shown(plan: Plan, by_rows: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(sharing, "SMALLEST_SHARED", 1)
    schedule = Schedule("outer", "j", (("i", by_rows), ("j", 64)), ("i", "j"), parallel="i")
    second = Schedule("outer", "j", (("i", 8), ("j", 64)), ("i", "j"), parallel="i")
    kernels = {"rows": (ROWS, schedule), "more": (ROWS, second)}
    return [type(e).__name__ if isinstance(e, Barrier) else e.kernel for e in share_work(plan, kernels, host()).entries]


def test_equal_shares_of_equal_rows_need_no_barrier(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of("rows", "rows")
    assert shown(plan, 8, monkeypatch) == ["rows", "rows"]
    assert shown(plan, 16, monkeypatch) == ["rows", "rows"]


def test_other_shares_need_one(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [Call("rows", ("x", "w", "y")), Call("more", ("y", "w", "z"))]
    plan = Plan("p", plan_of().buffers, tuple(calls), 4 * 131072, (), (), ("w",))
    assert shown(plan, 8, monkeypatch) == ["rows", "more"]
    assert shown(plan, 16, monkeypatch) == ["rows", "Barrier", "more"]
    # Two values that share bytes, but not rows.
    buffers = [replace(b, offset=plan.buffer("y").offset + 2048) if b.name == "z" else b for b in plan.buffers]
    overlapping = replace(plan, buffers=tuple(buffers), entries=(calls[0], Call("rows", ("x", "w", "z"))))
    assert shown(overlapping, 8, monkeypatch) == ["rows", "Barrier", "rows"]


def test_too_little_work_is_not_shared() -> None:
    schedule = Schedule("outer", "j", (("i", 8), ("j", 64)), ("i", "j"), parallel="i")
    assert work_estimate(ROWS, schedule, host()) > 10 * sharing.SMALLEST_SHARED
    assert work_estimate(ROWS, Schedule("outer", "j", (("i", 8), ("j", 64)), ("i", "j")), host()) == 0
    assert 0 < work_estimate(SCALE, choose_shared(SCALE), host()) < sharing.SMALLEST_SHARED
    plan = share_work(plan_of("rows"), {"rows": (ROWS, Schedule("scalar"))}, host())
    assert plan.entries == plan_of("rows").entries


def choose_shared(kernel: object) -> Schedule:
    found = choose(kernel, Host("x86-64", "", 16, 32))  # type: ignore[arg-type]
    assert found.parallel is not None
    return found


# ---- compiled programs ----------------------------------------------------------------------------------------------


def test_a_compiled_step_meets_where_its_data_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "SMALLEST_SHARED", 1)
    x, W, V = gc.input("x", ("N", 256)), gc.param("W", (256, 256)), gc.param("V", (256, 256))
    hidden = gc.relu(x @ W)
    loss = (hidden @ V).sum()
    gW, gV = gc.grad(loss, [W, V])
    step = gc.compile([x], [loss], {W: W - 0.1 * gW, V: V - 0.1 * gV}, dims={"N": 256}, threads=2, cache=False)
    lines = step.memory.split("table {\n")[1].splitlines()
    kinds = [line.split("(")[0].strip() for line in lines]
    assert "barrier" in kinds and any(line.endswith(" shared") for line in lines)
    assert 2 <= kinds.count("barrier") < len(step.kernels)
    step(np.ones((256, 256), np.float32))


def test_random_state_is_counted_after_all_have_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "SMALLEST_SHARED", 1)
    x = gc.input("x", (512, 256))
    program = gc.compile([x], [gc.random.bernoulli(x)], threads=2, cache=False)
    assert isinstance(program.plan.entries[-1], Barrier)
