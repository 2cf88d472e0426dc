"""Schedules as text."""

from __future__ import annotations

import pytest

from graphc.errors import InputError
from graphc.kernel.schedule import Schedule, parse_schedule


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule(),
        Schedule("vector", "j", (("j", 64),), ("i", "j"), parallel="i"),
        Schedule("dot", "k", (("n", 2), ("o", 8), ("k", 16)), ("o", "n"), (("k", 256),)),
        Schedule("transposed", "b", (("a", 16), ("b", 16)), ("a", "b")),
    ],
)
def test_parsing_is_the_inverse_of_printing(schedule: Schedule) -> None:
    assert parse_schedule(str(schedule)) == schedule


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "starts with ''"),
        ("inner; vector i", "starts with 'inner'"),
        ("outer; tiles i:4", "'tiles i:4' is none of vector, tile"),
        ("outer; tile i:4; tile j:4", "'tile j:4' is none of"),
        ("outer; tile i", "sizes such as i:8"),
        ("outer; tile i:0", "sizes such as i:8"),
        ("outer; order", "'order' is none of"),
        ("outer; ; order i", "'' is none of vector, tile"),
        ("outer; vector i j", "more than one axis"),
    ],
)
def test_what_is_no_schedule_is_refused(text: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        parse_schedule(text)
