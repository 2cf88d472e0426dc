"""What threads share, and which of it keeps to the same thread."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import graphc as gc
from graphc.codegen import sharing
from graphc.codegen.choose import choose
from graphc.codegen.host import Host, host
from graphc.codegen.rows import Scheduled
from graphc.codegen.sharing import parts, share_work, work_estimate
from graphc.kernel.form import Kernel
from graphc.kernel.parser import parse_kernel
from graphc.kernel.plan import Barrier, Buffer, Call, Loop, Plan, walk
from graphc.kernel.plan_text import _entries
from graphc.kernel.schedule import Schedule

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


def strides(kernel: Kernel, schedule: Schedule) -> list[int | None]:
    """The rows that each operand is cut by, in bytes."""
    return [part and part.stride for part in parts(Scheduled(kernel, schedule), host())]


def by_rows(tile: int) -> Schedule:
    return Schedule("outer", "j", (("i", tile), ("j", 64)), ("i", "j"), parallel="i")


def test_shares_of_whole_rows_are_known() -> None:
    assert strides(ROWS, by_rows(8)) == [2048, None, 2048]
    assert strides(ROWS, Schedule("outer", "j", (("i", 8), ("j", 64)), ("j", "i"), parallel="j")) == [None, None, None]
    assert strides(ROWS, by_rows(5)) == [None, None, None]  # the last tile reaches into another thread's
    assert strides(TRANSPOSE, Schedule("vector", "j", (("j", 64),), ("i", "j"), parallel="i")) == [2048, None]
    assert parts(Scheduled(ROWS, by_rows(8)), host())[0] != parts(Scheduled(ROWS, by_rows(4)), host())[0]


def plan_of(*kernels: str) -> Plan:
    """x -> y -> z, by kernels of these names in turn."""
    names = ("x", "y", "z", "u")
    buffers = [Buffer(name, "f32", (64, 512), "scratch", place * 131072, 131072) for place, name in enumerate(names)]
    buffers.append(Buffer("w", "f32", (512, 512), "variable", 0, 1048576))
    calls = [Call(kernel, (names[i], "w", names[i + 1])) for i, kernel in enumerate(kernels)]
    return Plan("p", tuple(buffers), tuple(calls), 4 * 131072, (), (), ("w",))


def shown(plan: Plan, tile: int) -> list[str]:
    """Calls and barriers where `rows` has tiles of so many rows, and `more` of 8."""
    kernels = {"rows": Scheduled(ROWS, by_rows(tile)), "more": Scheduled(ROWS, by_rows(8))}
    placed = share_work(plan, kernels, host()).plan.entries
    assert all(e.shared for e in walk(placed) if isinstance(e, Call))
    return [line.split("(")[0].strip() for line in _entries(placed)]


def test_equal_shares_of_equal_rows_need_no_barrier() -> None:
    assert shown(plan_of("rows", "rows"), 8) == ["rows", "rows"]
    assert shown(plan_of("rows", "more"), 8) == ["rows", "more"]
    assert shown(plan_of("rows", "more"), 16) == ["rows", "barrier", "more"]
    assert shown(plan_of("rows", "rows"), 5) == ["rows", "barrier", "rows"]


def test_bytes_that_are_other_rows_need_one() -> None:
    plan = plan_of()
    calls = (Call("rows", ("x", "w", "y")), Call("rows", ("x", "w", "z")))
    for start, expected in ((2048, ["rows", "barrier", "rows"]), (131072, ["rows", "rows"])):
        moved = [replace(b, offset=131072 + start) if b.name == "z" else b for b in plan.buffers]
        assert shown(replace(plan, buffers=tuple(moved), entries=calls), 8) == expected


@pytest.mark.parametrize("direction", [1, -1])
def test_a_loop_over_rows_of_the_same_thread_needs_none(direction: int) -> None:
    """h[t + 1] = f(h[t]): each thread goes through all turns with its rows of every h."""
    size = 131072
    first, second = (0, size) if direction > 0 else (9 * size, 8 * size)
    places = {"h": (first, 64), "g": (second, 64), "all": (0, 640)}
    buffers = (plan_of().buffer("w"), *(Buffer(name, "f32", (rows, 512), "scratch", offset, rows * 2048)
                                        for name, (offset, rows) in places.items()))
    turn = (Call("rows", ("h", "w", "g")),)
    strides = (("h", direction * size), ("g", direction * size))
    plan = Plan("p", buffers, (Loop("t", 9, turn, strides), Call("rows", ("h", "w", "all"))), 10 * size, (), (), ("w",))
    assert shown(plan, 8)[1:] == ["rows", "}", "barrier", "rows"]
    overlapping = replace(plan.entries[0], strides=tuple((name, step // 2) for name, step in strides))
    assert shown(replace(plan, entries=(overlapping,)), 8)[1:] == ["barrier", "rows", "}"]


def test_what_sharing_saves_pays_for_its_barriers(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of("rows", "small", "rows")
    small = Schedule("outer", "j", (("i", 16), ("j", 64)), ("i", "j"), parallel="i")
    narrow = replace(ROWS, name="small")
    work = {"rows": 100_000, "small": 1_000}
    monkeypatch.setattr(sharing, "work_estimate", lambda kernel, host: work[kernel.form.name])
    kernels = {"rows": Scheduled(ROWS, by_rows(8)), "small": Scheduled(narrow, small)}

    def table() -> list[str]:
        return [line.split("(")[0] + line[-7:].replace("shared", "*")[-1]
                for line in _entries(share_work(plan, kernels, host()).plan.entries)]

    assert table() == ["rows*", "barrierr", "small)", "barrierr", "rows*"]
    work["small"] = 20_000
    assert table() == ["rows*", "barrierr", "small*", "barrierr", "rows*"]
    work["rows"] = work["small"] = 1_000
    assert table() == ["rows)", "small)", "rows)"]


def test_no_work_is_estimated_where_none_can_be_shared() -> None:
    assert work_estimate(Scheduled(ROWS, by_rows(8)), host()) > 10_000
    assert work_estimate(Scheduled(ROWS, replace(by_rows(8), parallel=None)), host()) == 0
    assert 0 < work_estimate(Scheduled(SCALE, choose_shared(SCALE)), host()) < 5_000
    plan = share_work(plan_of("rows"), {"rows": Scheduled(ROWS, Schedule("scalar"))}, host()).plan
    assert plan.entries == plan_of("rows").entries


def choose_shared(kernel: Kernel) -> Schedule:
    found = choose(kernel, Host("x86-64", "", 16, 32))
    assert found.parallel is not None
    return found


# ---- compiled programs ----------------------------------------------------------------------------------------------


def test_a_compiled_step_meets_where_its_data_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "SMALLEST_SHARED", (1,))
    monkeypatch.setattr(sharing, "MEETING", 0)
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
    monkeypatch.setattr(sharing, "SMALLEST_SHARED", (1,))
    monkeypatch.setattr(sharing, "MEETING", 0)
    x = gc.input("x", (512, 256))
    program = gc.compile([x], [gc.random.bernoulli(x)], threads=2, cache=False)
    assert isinstance(program.plan.entries[-1], Barrier)
