"""A finished program as data: a table of kernel calls, loops and barriers over one memory plan.

    Plan    = name, Buffer*, Preparation*, Entry*, extents, results, Peak
    Preparation = variable*, Entry*
    Entry   = Call(kernel, Buffer name*) | Barrier
            | Branch(predicate, then Entry*, orelse Entry*)
            | Loop(name, count, Entry*) | While(name, test Entry*, predicate, body Entry*)
    Buffer  = name : dtype [shape], region, offset in its region, layout

Code generation makes a plan, the runtime carries it out; neither knows the other. A plan plus the machine code of
its kernels is all that a program cache holds, so everything here is plain data (`to_json`, `from_json`).

Every kernel has the C signature `void kernel(const int64_t *args, int64_t thread, int64_t threads)`. `args` holds an
address for each operand of the call, in order, then one address for each runtime extent of the kernel (an int64
count), in the order of `Call.extents`. Machine code therefore holds no addresses and no offsets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeAlias

ARENA = ("scratch", "prepared", "input")  # regions of the memory that a program allocates


@dataclass(frozen=True)
class Buffer:
    """A tensor's place.

    region: `scratch` (in the arena, at `offset`), `prepared` (in the arena too, kept between calls), `input` (filled at
    every call, lives in the arena at `offset`),
    `variable` (a parameter or state, owned outside; `offset` is its index in `Plan.variables`),
    `constant` (read-only; `offset` is its index in `Plan.constants`), `rng` (int64 [seed, step] of the program).
    `start` is where in its variable, constant or rng the buffer begins, in bytes (a slice that a loop begins with).
    `shape` is the capacity; `dims` is the shape as text with its symbols (`N,784`). Elements lie row-major, but for
    those with a `layout`: its parts in the order of memory, and the padding of its rows (`[6][28][28][N]+11`).
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    region: str
    offset: int = 0
    nbytes: int = 0
    dims: str = ""
    start: int = 0
    layout: str = ""

    @property
    def in_arena(self) -> bool:
        """True if `offset` is one in the arena."""
        return self.region in ARENA


@dataclass(frozen=True)
class Call:
    """Run a kernel once: `kernel` is its symbol, `operands` are buffer names, `extents` runtime counts by name.

    `shared`: the nanoseconds that one thread would take, estimated at all capacities, if threads share the work; 0 if
    thread 0 does it alone. `updates`: it writes a variable.
    """

    kernel: str
    operands: tuple[str, ...]
    extents: tuple[str, ...] = ()
    shared: int = 0
    updates: bool = False


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


@dataclass(frozen=True)
class Branch:
    """Run `then` if the buffer `predicate` (a bool) holds 1, else `orelse`; all threads read it and go the same way."""

    predicate: str
    then: tuple[Entry, ...]
    orelse: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class While:
    """Run `test`, leave if the buffer `predicate` (a bool) holds 0, else run `body` and begin again.

    After `bound` turns it is left without another test; -1 stands for no bound.
    """

    name: str
    test: tuple[Entry, ...]
    predicate: str
    body: tuple[Entry, ...]
    bound: int = -1


Entry: TypeAlias = Call | Barrier | Loop | Branch | While


@dataclass(frozen=True)
class Preparation:
    """Entries that run ahead of a step if any of `variables` (buffers) was written since they ran, and at the first.

    What the step, or a later preparation, reads of what they write is `prepared`.
    """

    variables: tuple[str, ...]
    entries: tuple[Entry, ...]


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
class Peak:
    """Where most of the arena is in use: bytes alive, the entry of the table, and the values.

    `total` is what all values would need if each had memory of its own.
    """

    nbytes: int = 0
    entry: str = ""
    values: tuple[str, ...] = ()
    total: int = 0


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
    peak: Peak = Peak()
    preparations: tuple[Preparation, ...] = ()

    def buffer(self, name: str) -> Buffer:
        """The buffer called `name`. Raises KeyError if there is none."""
        return {b.name: b for b in self.buffers}[name]

    def calls(self) -> Iterator[Call]:
        """Every kernel call, those in loops and branches included, in order; preparations come first."""
        yield from (entry for entry in walk(self.all_entries()) if isinstance(entry, Call))

    def all_entries(self) -> Iterator[Entry]:
        """The entries of the preparations, then those of the step."""
        for preparation in self.preparations:
            yield from preparation.entries
        yield from self.entries

    def call_counts(self) -> list[tuple[Call, int, int | None]]:
        """Every kernel call with the least and the greatest number of times that a step runs it; None: no bound.

        The least is 0 in a preparation, which most steps do not run.
        """
        prepared = (entry for preparation in self.preparations for entry in preparation.entries)
        return [*_counted(prepared, 0, 1), *_counted(self.entries, 1, 1)]

    def to_json(self) -> dict[str, Any]:
        """Plain lists, dicts, strings and numbers."""
        data = asdict(self)
        data["entries"] = _to_json(self.entries)
        data["preparations"] = [{"variables": list(p.variables), "entries": _to_json(p.entries)}
                                for p in self.preparations]
        return data

    @staticmethod
    def from_json(data: dict[str, Any]) -> Plan:
        """The plan that `to_json` wrote. Raises KeyError or TypeError for data of another form."""
        simple = {name: tuple(data[name]) for name in ("inputs", "results", "variables", "constants", "written")}
        return Plan(
            name=data["name"],
            buffers=tuple(Buffer(**{**b, "shape": tuple(b["shape"])}) for b in data["buffers"]),
            entries=_from_json(data["entries"]),
            preparations=tuple(Preparation(tuple(p["variables"]), _from_json(p["entries"]))
                               for p in data["preparations"]),
            arena_bytes=data["arena_bytes"],
            extents=dict(data["extents"]),
            updates=tuple(Update(**u) for u in data["updates"]),
            checks=tuple(Check(**c) for c in data["checks"]),
            peak=Peak(**{**data["peak"], "values": tuple(data["peak"]["values"])}),
            **simple,
        )


def _counted(entries: Iterable[Entry], least: int, most: int | None) -> Iterator[tuple[Call, int, int | None]]:
    for entry in entries:
        if isinstance(entry, Call):
            yield entry, least, most
        elif isinstance(entry, Loop):
            yield from _counted(entry.body, least * entry.count, _times(most, entry.count))
        elif isinstance(entry, Branch):
            yield from _counted((*entry.then, *entry.orelse), 0, most)
        elif isinstance(entry, While):
            turns = None if entry.bound < 0 else entry.bound
            yield from _counted(entry.test, least if entry.bound else 0, _times(most, turns))
            yield from _counted(entry.body, 0, _times(most, turns))


def _times(most: int | None, turns: int | None) -> int | None:
    return None if most is None or turns is None else most * turns


def nested(entry: Entry) -> tuple[tuple[Entry, ...], ...]:
    """The lists of entries that an entry holds, in order: none for calls and barriers."""
    if isinstance(entry, Loop):
        return (entry.body,)
    if isinstance(entry, Branch):
        return entry.then, entry.orelse
    return (entry.test, entry.body) if isinstance(entry, While) else ()


def walk(entries: Iterable[Entry]) -> Iterator[Entry]:
    """The entries and all that they hold, in order."""
    for entry in entries:
        yield entry
        for inner in nested(entry):
            yield from walk(inner)


def with_nested(entry: Entry, lists: Sequence[tuple[Entry, ...]]) -> Entry:
    """The entry with other lists of entries, as many as `nested` gives."""
    if isinstance(entry, Loop):
        return replace(entry, body=lists[0])
    if isinstance(entry, Branch):
        return replace(entry, then=lists[0], orelse=lists[1])
    return replace(entry, test=lists[0], body=lists[1]) if isinstance(entry, While) else entry


def _to_json(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    return [_entry_to_json(entry) for entry in entries]


def _entry_to_json(entry: Entry) -> dict[str, Any]:
    if isinstance(entry, Loop):
        strides = [list(s) for s in entry.strides]
        return {"loop": entry.name, "count": entry.count, "body": _to_json(entry.body), "strides": strides}
    if isinstance(entry, Branch):
        return {"branch": entry.predicate, "then": _to_json(entry.then), "orelse": _to_json(entry.orelse)}
    if isinstance(entry, While):
        test, body = _to_json(entry.test), _to_json(entry.body)
        return {"while": entry.name, "test": test, "predicate": entry.predicate, "body": body, "bound": entry.bound}
    if isinstance(entry, Call):
        return {"call": entry.kernel, "operands": list(entry.operands), "extents": list(entry.extents),
                "shared": entry.shared, "updates": entry.updates}
    return {"barrier": True}


def _from_json(entries: Iterable[dict[str, Any]]) -> tuple[Entry, ...]:
    return tuple(_entry_from_json(entry) for entry in entries)


def _entry_from_json(data: dict[str, Any]) -> Entry:
    if "loop" in data:
        return Loop(data["loop"], data["count"], _from_json(data["body"]), tuple((n, s) for n, s in data["strides"]))
    if "branch" in data:
        return Branch(data["branch"], _from_json(data["then"]), _from_json(data["orelse"]))
    if "while" in data:
        test, body = _from_json(data["test"]), _from_json(data["body"])
        return While(data["while"], test, data["predicate"], body, data["bound"])
    if "call" in data:
        operands, extents = tuple(data["operands"]), tuple(data["extents"])
        return Call(data["call"], operands, extents, data["shared"], data["updates"])
    return Barrier()
