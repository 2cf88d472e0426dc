"""How many threads a program gets when nobody says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from graphc.errors import CompileError, InputError
from graphc.runtime.cores import (
    MOST_THREADS,
    apart,
    available_cores,
    chosen_threads,
    cpu_quota,
    default_threads,
    physical_cores,
)


def test_no_more_than_the_cpus_there_are() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)
    assert default_threads({}) == min(available_cores(), MOST_THREADS)


def test_hardware_threads_of_a_core_count_once(tmp_path: Path) -> None:
    for cpu in range(4):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{cpu % 2},{cpu % 2 + 2}\n")
    assert physical_cores({0, 1, 2, 3}, tmp_path) == 2
    assert physical_cores({0, 2}, tmp_path) == 1
    assert physical_cores({0, 1}, tmp_path) == 2
    assert physical_cores({0, 7, 8}, tmp_path) == 3  # what is not told counts as a core
    assert apart({0, 1, 2, 3}, 2, tmp_path) == [1]
    assert apart({0, 2, 3}, 1, tmp_path) == [0]
    assert apart({0, 7, 8}, 7, tmp_path) == [0, 8]


@pytest.mark.parametrize(
    ("text", "quota"), [("150000 100000\n", 1.5), ("max 100000\n", None), ("", None), ("1 0", None), ("?", None)]
)
def test_the_quota_of_a_container(tmp_path: Path, text: str, quota: float | None) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(text)
    assert cpu_quota(file) == quota
    assert cpu_quota(tmp_path / "absent") is None


def test_the_environment_says_how_many() -> None:
    assert default_threads({"GRAPHC_THREADS": " 3 "}) == 3
    assert chosen_threads(None, {"GRAPHC_THREADS": "3"}) == 3
    assert chosen_threads(5, {"GRAPHC_THREADS": "3"}) == 5


@pytest.mark.parametrize("text", ["0", "-1", "many", "2.5", "257"])
def test_nonsense_in_the_environment(text: str) -> None:
    with pytest.raises(InputError, match="GRAPHC_THREADS must be a number of threads, 1 ... 256, got"):
        default_threads({"GRAPHC_THREADS": text})


@pytest.mark.parametrize("threads", [0, -2, 257, 2.0, "2", True])
def test_nonsense_as_an_argument(threads: object) -> None:
    with pytest.raises(CompileError, match="threads must be a number from 1 to 256"):
        chosen_threads(threads, {})  # type: ignore[arg-type]
