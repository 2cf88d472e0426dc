"""Schedules of kernels by measurement: what code generation proposes, compiled and timed on this machine.

A kernel is tuned in two rounds. The first measures the cheapest register tiles by the cost model that are not much the
same, the second the loop orders of the fastest. The chooser's own schedule takes part in both and is kept unless
another one is clearly faster. Decisions are kept as notes beside the program cache, under the kernel's form without its
names.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphc.codegen.analysis import size_in_memory
from graphc.codegen.build import Tunable, Tuned, Tuner, compile_kernels
from graphc.codegen.candidates import candidates
from graphc.codegen.choose import tile_count, unevenness
from graphc.codegen.cpu.emit import schedulable
from graphc.codegen.host import host, host_key
from graphc.codegen.lower import label_sources
from graphc.codegen.override import check_override
from graphc.errors import CacheWarning, GraphcError
from graphc.fingerprint import compiler_fingerprint
from graphc.ir.dims import evaluate
from graphc.kernel.compose import anonymous
from graphc.kernel.form import Kernel, Operand
from graphc.kernel.schedule import Schedule, parse_schedule
from graphc.kernel.text import print_kernel
from graphc.runtime.cache import ProgramCache
from graphc.runtime.timing import ROUNDS, SAMPLE_SECONDS, Memory, least_seconds

LEAST_SHARE = 0.01  # of a step's estimated time that a kernel must take to be worth measuring
MOST_TILES, MOST_ORDERS = 8, 6  # that are measured beside the chooser's
MOST_ALIKE = 6  # of these tiles that differ in their sizes alone
NEAR = 1.2  # tiles are much the same if no side is so many times that of the other tile
NOISE = 0.95  # a schedule is better if it takes less than this share of the chooser's time
LESS_EVEN = 1.1  # how much less evenly two threads may share a schedule's tiles than those of the chooser's


@dataclass(frozen=True)
class Decision:
    """Of a kernel measured: the schedule that the chooser gave it, the better one (or the same), and their seconds."""

    default: Schedule
    best: Schedule
    default_seconds: float
    best_seconds: float

    def remark(self, kernel: str) -> str:
        """What has changed."""
        times = f"{self.best_seconds * 1e6:.4g} us instead of {self.default_seconds * 1e6:.4g} us"
        return f"tuning: {kernel} takes {times}, alone on one thread, as '{self.best}' instead of '{self.default}'"


class MeasuringTuner:
    """Measures contractions that take a share of the step, or looks up what was decided before."""

    def __init__(self, cache: ProgramCache | None) -> None:
        self._cache = cache

    def __call__(self, kernels: Sequence[Tunable]) -> Tuned:
        """The schedules that are better than those given, with a remark on each and on how many were looked at."""
        total = sum(kernel.nanoseconds for kernel in kernels)
        decided: dict[str, Decision | None] = {}
        changed: dict[str, Decision] = {}
        for kernel in kernels:
            if kernel.nanoseconds < LEAST_SHARE * total:
                continue
            key = self._key(kernel)
            if key not in decided:
                decided[key] = self._decision(key, kernel)
            found = decided[key]
            if found is not None and found.best != found.default:
                changed[kernel.form.name] = found
        measured = sum(decision is not None for decision in decided.values())
        summary = f"tuning: different kernels measured: {measured}; kernels that run in another way: {len(changed)}"
        remarks = (decision.remark(name) for name, decision in changed.items())
        return Tuned({name: decision.best for name, decision in changed.items()}, (*remarks, summary))

    def _key(self, kernel: Tunable) -> str:
        """Kernels that differ in names only are one."""
        parts = [_text(kernel.form), str(kernel.schedule), host_key(), compiler_fingerprint()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _decision(self, key: str, kernel: Tunable) -> Decision | None:
        note = None if self._cache is None else self._cache.load_note(key)
        found = None if note is None else _from_note(note, kernel)
        if note is not None and found is None:
            message = f"the note {key[:8]} on kernel {kernel.form.name!r} cannot be used; the kernel is measured again"
            warnings.warn(message, CacheWarning, stacklevel=2)
        if found is None:
            found = decide(kernel.form, kernel.schedule)
            if found is not None and self._cache is not None:
                self._cache.store_note(key, _to_note(found, kernel))
        return found


def recorded(tuned: Mapping[str, Any]) -> Tuner:
    """A tuner that says again what the image of a program tells of its tuning."""
    schedules = {name: parse_schedule(text) for name, text in tuned["schedules"].items()}
    return lambda kernels: Tuned(schedules, tuple(tuned["remarks"]))


# ---- decisions ------------------------------------------------------------------------------------------------------


def decide(kernel: Kernel, default: Schedule) -> Decision | None:
    """Measure a kernel under its default schedule and others; None if it is no contraction."""
    proposed = [c.schedule for c in candidates(kernel, host())]
    if not proposed:
        return None
    flat = schedulable(kernel)
    proposed = [s for s in proposed if _shares_as_evenly(flat, s, default)]
    fastest = _fastest(kernel, [default, *shortlist(proposed, default)])
    orders = [s for s in proposed if _tile(s) == _tile(fastest) and s not in (fastest, default)][:MOST_ORDERS]
    others = [s for s in dict.fromkeys((fastest, *orders)) if s != default]
    before, *seconds = measure(kernel, [default, *others])
    best = min(seconds, default=before)
    if best < NOISE * before:
        return Decision(default, others[seconds.index(best)], before, best)
    return Decision(default, default, before, before)


def _fastest(kernel: Kernel, schedules: Sequence[Schedule]) -> Schedule:
    seconds = measure(kernel, schedules)
    return schedules[seconds.index(min(seconds))]


def shortlist(proposed: Iterable[Schedule], default: Schedule) -> list[Schedule]:
    """The first few schedules with tiles that are not much the same as others', nor as the default's."""
    chosen: list[Schedule] = []
    for schedule in proposed:
        alike = [s for s in (default, *chosen) if _axes(s) == _axes(schedule)]
        if len(alike) <= MOST_ALIKE and not any(_near(s, schedule) for s in alike):
            chosen.append(schedule)
        if len(chosen) == MOST_TILES:
            break
    return chosen


def _tile(schedule: Schedule) -> tuple[object, ...]:
    return schedule.kind, schedule.vector_axis, schedule.tile


def _axes(schedule: Schedule) -> tuple[object, ...]:
    return schedule.kind, schedule.vector_axis, tuple(axis for axis, _ in schedule.tile)


def _near(one: Schedule, other: Schedule) -> bool:
    sizes = zip(dict(one.tile).values(), dict(other.tile).values(), strict=True)
    return all(max(pair) < NEAR * min(pair) for pair in sizes)


def _shares_as_evenly(flat: Kernel, schedule: Schedule, default: Schedule) -> bool:
    """True if threads can share a schedule about as evenly as the default: times are those of one thread."""
    if default.parallel is None or schedule.parallel is None:
        return default.parallel == schedule.parallel
    longest, before = (unevenness(tile_count(flat, str(s.parallel), s), 2) for s in (schedule, default))
    return longest <= LESS_EVEN * before


def _text(kernel: Kernel) -> str:
    return print_kernel(anonymous(kernel))


def _to_note(decision: Decision, kernel: Tunable) -> dict[str, object]:
    seconds = [decision.default_seconds, decision.best_seconds]
    return {"form": _text(kernel.form), "default": str(decision.default), "best": str(decision.best),
            "seconds": seconds}  # fmt: skip


def _from_note(note: Any, kernel: Tunable) -> Decision | None:
    """The decision in a note; None if it is of another kernel, or none that graphc would have written."""
    try:
        before, best = (float(seconds) for seconds in note["seconds"])
        found = Decision(parse_schedule(note["default"]), parse_schedule(note["best"]), before, best)
        check_override(kernel.form, found.best, host())
        own = note["form"] == _text(kernel.form) and found.default == kernel.schedule
    except (AttributeError, GraphcError, KeyError, TypeError, ValueError):
        return None
    return found if own else None


# ---- measuring ------------------------------------------------------------------------------------------------------


def measure(
    kernel: Kernel,
    schedules: Sequence[Schedule],
    *,
    rounds: int = ROUNDS,
    sample_seconds: float = SAMPLE_SECONDS,
) -> list[float]:
    """Seconds that a kernel takes at its capacities under each schedule: on one thread, the least of `rounds` rounds.

    Each sample takes at least `sample_seconds`. Raises CompileError for a schedule that there is no code for.
    """
    compiled = compile_kernels([(kernel, schedule) for schedule in schedules], host())
    codes = {code.symbol: code.machine_code for code in compiled}  # equal schedules share their code
    counts = [kernel.capacities[name] for name in kernel.runtime_extents]
    seconds = least_seconds(codes, memories(kernel), counts, rounds=rounds, sample_seconds=sample_seconds)
    by_symbol = dict(zip(codes, seconds, strict=True))
    return [by_symbol[code.symbol] for code in compiled]


def memories(kernel: Kernel) -> list[Memory]:
    """What the operands of a kernel are filled with: integers that are indices are within all bounds declared."""
    bounds = {operand.name: (0, 2) for operand in kernel.operands}
    indices: dict[str, list[tuple[int, int]]] = {}
    for name, constant, index in label_sources(kernel):
        low, high = (evaluate(bound, kernel.capacities) - constant for bound in (index.lower, index.upper))
        indices.setdefault(name, []).append((low, high))
    bounds |= {name: (max(low for low, _ in found), min(high for _, high in found)) for name, found in indices.items()}
    return [_memory(kernel, operand, bounds[operand.name]) for operand in kernel.operands]


def _memory(kernel: Kernel, operand: Operand, bounds: tuple[int, int]) -> Memory:
    elements = size_in_memory(operand, kernel.capacities)
    return Memory(operand.dtype, elements, *bounds, written=operand.role == "inout")
