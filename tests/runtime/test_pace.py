"""On how many threads steps run, on a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from graphc.runtime.pace import PROBATION, TRIALS, WARM_UP, WORTH, Pace, levels

Cost = Callable[[float, int], float]  # (time now, threads) -> seconds of the step


def steps(pace: Pace, cost: Cost, until: float) -> list[tuple[float, int, float]]:
    """(time, threads, seconds) of each step until a time."""
    now, found = 0.0, []
    while now < until:
        threads = pace.threads
        seconds = cost(now, threads)
        found.append((now, threads, seconds))
        pace.took(seconds)
        now += seconds
    return found


def share(history: list[tuple[float, int, float]], threads: int, start: float, end: float) -> float:
    """The part of the time from start to end in steps on so many threads."""
    return sum(s for now, n, s in history if n == threads and start <= now < end) / (end - start)


def quiet(now: float, threads: int) -> float:
    return 1.9e-3 / threads if threads == 1 else 2e-3 / threads


def taken(now: float, threads: int) -> float:
    """A neighbour has one of two cores: every other millisecond a step on two threads waits for a time slice."""
    return 1.9e-3 if threads == 1 else quiet(now, threads) + 4e-3 * (int(now / 1e-3) % 2)


def test_levels() -> None:
    assert levels(2, 2) == (2, 1)
    assert levels(4, 2) == (4, 3, 2, 1)
    assert levels(8, 8) == (8, 7, 4, 1)
    assert levels(16, 6) == (16, 15, 8, 6, 1)


def test_a_quiet_machine_runs_on_all_threads() -> None:
    used = [threads for _, threads, _ in steps(Pace(2, 2), quiet, 2.0)]
    begin = WARM_UP + 2 * (1 + TRIALS)
    assert used[:begin] == [2] * (WARM_UP + 1 + TRIALS) + [1] * (1 + TRIALS)
    assert set(used[begin:]) == {2}


def test_a_step_on_one_thread_that_is_quicker_is_preferred() -> None:
    history = steps(Pace(2, 2), lambda _, threads: 1e-3 if threads == 1 else 1.1e-3, 5.0)
    assert share(history, 1, 0.0, 5.0) > 0.95


def test_more_threads_than_cores_are_not_used() -> None:
    history = steps(Pace(4, 2), lambda _, threads: 4e-3 / threads if threads < 3 else 3e-3, 5.0)
    times = [s for now, _, s in history if now > 0.2]
    assert share(history, 2, 0.2, 5.0) > 0.9 and sum(times) / len(times) < (1 + WORTH) * 2e-3


def test_a_taken_core_is_avoided() -> None:
    times = [s for _, _, s in steps(Pace(2, 2), taken, 10.0)]
    assert sum(times) / len(times) < 2.2e-3
    assert sorted(times)[len(times) // 2] == 1.9e-3


def test_one_core_of_eight_is_left_to_the_neighbour() -> None:
    def cost(now: float, threads: int) -> float:
        disturbed = 4e-3 if threads == 8 and now > 0.3 else 0.0
        return 8e-3 / threads + disturbed

    history = steps(Pace(8, 8), cost, 5.0)
    assert share(history, 8, 0.1, 0.3) > 0.9
    assert share(history, 7, 0.5, 5.0) > 0.9
    assert all(threads > 1 for now, threads, _ in history if now > 0.3)  # one thread cannot be quicker


@pytest.mark.parametrize("end", [0.5, 5.0])
def test_a_core_that_is_given_back_is_used_again(end: float) -> None:
    def cost(now: float, threads: int) -> float:
        return taken(now, threads) if 0.1 < now < end else quiet(now, threads)

    history = steps(Pace(2, 2), cost, end + 5.0)
    assert share(history, 1, 0.2, end) > 0.7
    failed = 4e-3 + 1e-3  # seconds that an attempt costs at most, which ended at a step that waited for a slice
    assert share(history, 2, end + failed / WORTH + PROBATION, end + 5.0) > 0.98


@pytest.mark.parametrize("slice_", [1e-3, 3e-3, 4e-3, 8e-3])
def test_attempts_cost_little_while_a_neighbour_stays(slice_: float) -> None:
    """Whatever its time slices are: steps go well for one, and the next one is waited for."""
    def cost(now: float, threads: int) -> float:
        waits = slice_ - now % slice_ if int(now / slice_) % 2 else 0.0
        return 1.9e-3 if threads == 1 else 1e-3 + waits

    times = [s for _, _, s in steps(Pace(2, 2), cost, 10.0)]
    assert sum(times) / len(times) < (1 + 2 * WORTH) * 1.9e-3


def test_long_steps_are_attempted_rarely() -> None:
    history = steps(Pace(2, 2), lambda now, threads: 0.2 if threads == 1 or now < 1.0 else 0.5, 60.0)
    assert share(history, 2, 2.0, 60.0) < 0.15


def test_one_core_of_four_is_left_to_a_neighbour_that_takes_it_from_one_thread() -> None:
    """From one thread up: all four fail, and then numbers between are surveyed."""
    def cost(now: float, threads: int) -> float:
        if now < 1.0:
            return 0.8e-3 if threads == 1 else 2e-3
        return 0.8e-3 / threads + (1e-3 if threads == 4 else 0.0)

    history = steps(Pace(4, 4), cost, 10.0)
    assert share(history, 1, 0.5, 1.0) > 0.5
    assert share(history, 3, 5.0, 10.0) > 0.8


def test_one_slow_step_changes_nothing() -> None:
    pace = Pace(2, 2)
    for number in range(200):
        surveyed = WARM_UP + 1 + TRIALS <= number < WARM_UP + 2 * (1 + TRIALS)
        assert pace.threads == (1 if surveyed else 2)
        pace.took(0.05 if number == 60 else quiet(0, pace.threads))


def test_work_that_grows_is_not_mistaken_for_a_taken_core_for_long() -> None:
    history = steps(Pace(2, 2), lambda now, threads: quiet(now, threads) * (1 if now < 0.5 else 4), 5.0)
    assert share(history, 1, 0.5, 5.0) < 0.05


def test_long_steps_are_not_tried_on_one_thread_for_nothing() -> None:
    history = steps(Pace(16, 16), lambda _, threads: 16.0 / threads, 60.0)
    assert {threads for _, threads, _ in history} == {16}


def test_surveys_become_rare() -> None:
    history = steps(Pace(2, 2), lambda _, threads: 1e-3 if threads == 1 else 5e-3, 30.0)
    assert share(history, 2, 0.0, 30.0) < 0.05


def test_a_least_time_from_a_bad_start_is_no_reason_to_stay_on_one_thread() -> None:
    """The first steps ran while another process held a core: all threads were no quicker than one."""
    pace = Pace(2, 2)
    for _ in range(40):
        pace.took(1.3e-3 if pace.threads == 2 else 1e-3)
    assert pace.threads == 1
    for _ in range(200):
        pace.took(0.5e-3 if pace.threads == 2 else 1e-3)
    assert pace.threads == 2
