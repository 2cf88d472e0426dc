"""When steps run on all threads and when on one, on a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from graphc.runtime.pace import LONGEST_PAUSE, SAMPLES, SHORTEST_PAUSE, TRIALS, WARM_UP, Pace

Cost = Callable[[float, bool], float]  # (time now, whether on one thread) -> seconds of the step


def steps(pace: Pace, cost: Cost, until: float, start: float = 0.0) -> Iterator[tuple[float, bool, float]]:
    """(time, alone, seconds) of each step until a time."""
    now = start
    while now < until:
        alone = pace.alone
        seconds = cost(now, alone)
        yield now, alone, seconds
        pace.took(seconds)
        now += seconds


def quiet(now: float, alone: bool) -> float:
    return 1.9e-3 if alone else 1e-3


def taken(now: float, alone: bool) -> float:
    """A neighbour has one of two cores: every other step on two threads waits for a time slice of 4 ms."""
    return 1.9e-3 if alone else 1e-3 + 4e-3 * (int(now / 1e-3) % 2)


def test_a_quiet_machine_runs_on_all_threads() -> None:
    alone = [a for _, a, _ in steps(Pace(2), quiet, 2.0)]
    assert alone[: WARM_UP + SAMPLES] == [False] * WARM_UP + [True] * SAMPLES
    assert not any(alone[WARM_UP + SAMPLES :])


def test_a_step_on_one_thread_that_is_quicker_is_preferred() -> None:
    history = list(steps(Pace(2), lambda _, alone: 1e-3 if alone else 1.1e-3, 5.0))
    share = sum(s for _, alone, s in history if alone) / 5.0
    assert share > 0.95


def test_a_taken_core_is_avoided() -> None:
    times = [s for _, _, s in steps(Pace(2), taken, 10.0)]
    assert sum(times) / len(times) < 2.2e-3
    assert sorted(times)[len(times) // 2] == 1.9e-3


@pytest.mark.parametrize("end", [0.5, 5.0])
def test_a_core_that_is_given_back_is_used_again(end: float) -> None:
    def cost(now: float, alone: bool) -> float:
        return taken(now, alone) if 0.1 < now < end else quiet(now, alone)

    pace = Pace(2)
    history = list(steps(pace, cost, end + 3.0))
    assert sum(s for now, alone, s in history if alone and 0.1 < now < end) > 0.7 * (end - 0.2)
    assert not any(alone for now, alone, _ in history if now > end + 1.2 * LONGEST_PAUSE)


def test_one_slow_step_changes_nothing() -> None:
    pace, late = Pace(2), WARM_UP + SAMPLES + TRIALS + 5
    for number in range(100):
        pace.took(0.05 if number == late else quiet(0, pace.alone))
        assert pace.alone == (WARM_UP <= number + 1 < WARM_UP + SAMPLES)


def test_work_that_grows_is_not_mistaken_for_a_taken_core_for_long() -> None:
    history = list(steps(Pace(2), lambda now, alone: quiet(now, alone) * (1 if now < 0.5 else 4), 5.0))
    assert sum(s for now, alone, s in history if alone and now > 0.5) < 0.5


def test_the_pause_is_bounded() -> None:
    pace = Pace(4)
    for _ in steps(pace, lambda _, alone: 1e-3 if alone else 5e-3, 30.0):
        assert SHORTEST_PAUSE <= pace._pause <= LONGEST_PAUSE
    starts = [now for now, alone, _ in steps(pace, lambda _, alone: 1e-3 if alone else 5e-3, 10.0) if not alone]
    assert len(starts) <= 12 * TRIALS
