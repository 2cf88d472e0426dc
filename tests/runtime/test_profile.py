"""Times of kernels, and that taking them leaves no trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphc.errors import InputError
from graphc.kernel.plan import Buffer, Call, Loop, Plan
from graphc.runtime.executable import Executable
from graphc.runtime.profile import profile

PLAN = Plan(
    "p",
    (Buffer("g", "f32", (4,), "input", 0, 16, "4"), Buffer("w", "f32", (4,), "variable", 0, 16, "4"),
     Buffer("n", "i64", (), "variable", 1, 8)),
    (Call("nothing", ()), Call("spin", ("n",)), Loop("t", 3, (Call("subtract", ("w", "g")),)), Call("nothing", ())),
    64, ("g",), ("w",), ("w", "n"), written=("w", "n"),
)


def test_times_by_call_site_and_no_trace(executable: Callable[..., Executable], variable: Callable[..., Any]) -> None:
    owners = {"w": variable([1, 2, 3, 4], "f4"), "n": variable(5, "i8")}
    program = executable(PLAN, owners)
    program({"g": np.ones(4)})
    before = {name: owner.array.copy() for name, owner in owners.items()}
    times = profile(program, {"g": np.ones(4)}, repeats=5, warmup=1)
    assert [(t.kernel, t.calls) for t in times] == [("nothing", 1), ("spin", 1), ("subtract", 3), ("nothing", 1)]
    assert times[2].operands == ("w", "g")
    assert all(0 <= t.best <= t.seconds < 1 for t in times)
    assert times[1].best > 100 * times[0].best and times[1].best > 1e-4  # 3 million stores
    for name, owner in owners.items():
        np.testing.assert_array_equal(owner.array, before[name])
    assert program.steps == 1
    # Later calls are not timed and go on where the program was.
    np.testing.assert_array_equal(program({"g": np.zeros(4)})[0], before["w"])


def test_bad_calls_are_refused(executable: Callable[..., Executable], variable: Callable[..., Any]) -> None:
    program = executable(PLAN, {"w": variable([1, 2, 3, 4], "f4"), "n": variable(5, "i8")})
    with pytest.raises(InputError, match="repeats=0"):
        profile(program, {"g": np.ones(4)}, repeats=0)
    with pytest.raises(InputError, match="input 'g' is missing"):
        profile(program, {})
    with pytest.raises(InputError, match="axis 0 is 5"):
        profile(program, {"g": np.ones(5)})
    np.testing.assert_array_equal(program({"g": np.zeros(4)})[0], [1, 2, 3, 4])
