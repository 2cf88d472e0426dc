"""What a user may ask of a program's compilation beside its target: checked once, part of the program cache's key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphc.errors import InputError
from graphc.ir.buffers import parse_bytes
from graphc.kernel.schedule import Schedule, parse_schedule


@dataclass(frozen=True)
class Options:
    """Options of `gc.compile`, see there.

    `without` names passes that are switched off, `memory_limit` is in bytes, `schedules` are by kernel.
    """

    without: tuple[str, ...] = ()
    memory_limit: int | None = None
    schedules: tuple[tuple[str, Schedule], ...] = ()
    tune: bool = False

    @staticmethod
    def of(
        without: str | Sequence[str] = (),
        memory_limit: int | str | None = None,
        schedules: Mapping[str, Schedule | str] | None = None,
        tune: bool = False,
    ) -> Options:
        """Options as users write them. Raises InputError for values that are none."""
        return Options(
            _without(without),
            None if memory_limit is None else parse_bytes(memory_limit),
            _schedules({} if schedules is None else schedules),
            checked_tune(tune),
        )

    def key(self) -> dict[str, Any]:
        """What distinguishes programs, as JSON."""
        return {
            "without": self.without,
            "memory_limit": self.memory_limit,
            "schedules": sorted((name, str(schedule)) for name, schedule in self.schedules),
            "tune": self.tune,
        }


def checked_tune(tune: Any) -> bool:
    """The option `tune`. Raises InputError for what is neither True nor False."""
    if not isinstance(tune, bool):
        raise InputError(f"tune must be True (measure schedules of kernels) or False, got {tune!r}")
    return tune


def _without(given: Any) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, Iterable) else (given,)
    for name in names:
        if not isinstance(name, str):
            raise InputError(f"without must name passes, ['fold', 'layouts'], got {given!r}")
    return names


def _schedules(given: Any) -> tuple[tuple[str, Schedule], ...]:
    if not isinstance(given, Mapping):
        raise InputError(f"schedules must map names of kernels to schedules, "
                         f"{{'matmul_add': 'outer; vector n; tile o:8 n:32'}}, got {type(given).__name__}")
    found = []
    for name, schedule in given.items():
        if not isinstance(name, str) or not isinstance(schedule, str | Schedule):
            raise InputError(f"schedules[{name!r}] must be a schedule or its text, as "
                             f"program.kernels[{name!r}].schedule prints it, got {schedule!r}")
        parsed = parse_schedule(str(schedule))
        if isinstance(schedule, Schedule) and parsed != schedule:
            raise InputError(f"schedules[{name!r}] = {schedule!r} holds what does not print; it would be "
                             f"{str(parsed)!r}")
        found.append((name, parsed))
    return tuple(found)
