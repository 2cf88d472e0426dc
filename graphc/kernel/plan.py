"""A finished program as data: a table of kernel calls, loops and barriers over one memory plan.

    Plan    = name, Buffer*, Entry*, extents, results
    Entry   = Call(kernel, Buffer name*) | Loop(name, count, Entry*) | Barrier
    Buffer  = name : dtype [shape], region, offset in its region, layout

Code generation makes a plan, the runtime carries it out; neither knows the other. A plan plus the machine code of
its kernels is all that a program cache holds, so everything here is plain data (`to_json`, `from_json`).

Every kernel has the C signature `void kernel(const int64_t *args, int64_t thread, int64_t threads)`. `args` holds an
address for each operand of the call, in order, then one address for each runtime extent of the kernel (an int64
count), in the order of `Call.extents`. Machine code therefore holds no addresses and no offsets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

REGIONS = ("arena", "input", "variable", "constant", "rng")


@dataclass(frozen=True)
class Buffer:
    """A tensor's place.

    region: `arena` (scratch, at `offset`), `input` (filled at every call, lives in the arena at `offset`),
    `variable` (a parameter or state, owned outside; `offset` is its index in `Plan.variables`),
    `constant` (read-only; `offset` is its index in `Plan.constants`), `rng` (int64 [seed, step] of the program).
    `shape` is the capacity, row-major; `dims` is the shape as text with its symbols (`N,784`).
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    region: str
    offset: int = 0
    nbytes: int = 0
    dims: str = ""


@dataclass(frozen=True)
class Call:
    """Run a kernel once: `kernel` is its symbol, `operands` are buffer names, `extents` runtime counts by name."""

    kernel: str
    operands: tuple[str, ...]
    extents: tuple[str, ...] = ()


@dataclass(frozen=True)
class Barrier:
    """All threads meet here before the next entry."""


@dataclass(frozen=True)
class Loop:
    """Repeat `body` `count` times; the int64 loop index is the runtime extent called `name`.

    `strides` moves operands between turns: buffer name -> bytes added to its address each turn (scan sequences).
    """

    name: str
    count: int
    body: tuple[Entry, ...]
    strides: tuple[tuple[str, int], ...] = ()


Entry: TypeAlias = Call | Barrier | Loop


@dataclass(frozen=True)
class Update:
    """After the kernels: copy `source` (a buffer) into the variable `target`; for updates not written in place."""

    target: str
    source: str


@dataclass(frozen=True)
class Check:
    """Before the kernels: every element of input `input` must satisfy lower <= element < upper (labels)."""

    input: str
    lower: int
    upper: int
    origin: str = ""


@dataclass(frozen=True)
class Plan:
    """A program. `extents` maps runtime extents to capacities; `inputs`, `results` and `variables` name buffers."""

    name: str
    buffers: tuple[Buffer, ...]
    entries: tuple[Entry, ...]
    arena_bytes: int
    inputs: tuple[str, ...]
    results: tuple[str, ...]
    variables: tuple[str, ...]
    constants: tuple[str, ...] = ()  # names of buffers whose bytes the program image holds
    extents: dict[str, int] = field(default_factory=dict)
    updates: tuple[Update, ...] = ()
    written: tuple[str, ...] = ()  # variables that kernels write in place
    checks: tuple[Check, ...] = ()

    def buffer(self, name: str) -> Buffer:
        """The buffer called `name`. Raises KeyError if there is none."""
        return {b.name: b for b in self.buffers}[name]

    def calls(self) -> Iterator[Call]:
        """Every kernel call, loops' bodies included, in order."""
        yield from _calls(self.entries)

    def to_json(self) -> dict[str, Any]:
        """Plain lists, dicts, strings and numbers."""
        data = asdict(self)
        data["entries"] = [_entry_to_json(e) for e in self.entries]
        return data

    @staticmethod
    def from_json(data: dict[str, Any]) -> Plan:
        """The plan that `to_json` wrote. Raises KeyError or TypeError for data of another form."""
        simple = {name: tuple(data[name]) for name in ("inputs", "results", "variables", "constants", "written")}
        return Plan(
            name=data["name"],
            buffers=tuple(Buffer(**{**b, "shape": tuple(b["shape"])}) for b in data["buffers"]),
            entries=tuple(_entry_from_json(e) for e in data["entries"]),
            arena_bytes=data["arena_bytes"],
            extents=dict(data["extents"]),
            updates=tuple(Update(**u) for u in data["updates"]),
            checks=tuple(Check(**c) for c in data["checks"]),
            **simple,
        )


def _calls(entries: tuple[Entry, ...]) -> Iterator[Call]:
    for entry in entries:
        if isinstance(entry, Call):
            yield entry
        elif isinstance(entry, Loop):
            yield from _calls(entry.body)


def _entry_to_json(entry: Entry) -> dict[str, Any]:
    if isinstance(entry, Loop):
        body = [_entry_to_json(e) for e in entry.body]
        return {"loop": entry.name, "count": entry.count, "body": body, "strides": [list(s) for s in entry.strides]}
    if isinstance(entry, Call):
        return {"call": entry.kernel, "operands": list(entry.operands), "extents": list(entry.extents)}
    return {"barrier": True}


def _entry_from_json(data: dict[str, Any]) -> Entry:
    if "loop" in data:
        body = tuple(_entry_from_json(e) for e in data["body"])
        return Loop(data["loop"], data["count"], body, tuple((n, s) for n, s in data["strides"]))
    if "call" in data:
        return Call(data["call"], tuple(data["operands"]), tuple(data["extents"]))
    return Barrier()
