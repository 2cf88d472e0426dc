"""Where threads must meet, from what the entries of a plan touch: few barriers, none that no data asks for.

Two calls need a barrier between them if one writes what the other reads or writes, unless each byte of it belongs to
the same thread in both: thread 0's, or the same share of the same rows. One barrier serves all calls before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

from graphc.kernel.plan import Barrier, Branch, Call, Entry, Loop, While


@dataclass(frozen=True)
class Part:
    """How a call cuts a buffer among threads: rows of `stride` bytes, in tiles as `tiles` says."""

    tiles: str
    stride: int


FIRST_THREAD = Part("", 0)  # all of it is thread 0's


@dataclass(frozen=True)
class Touch:
    """Bytes `first` ... `last` of a memory that are read or written, in all turns of the loops around.

    `part` is None if any thread may touch any of them. Equal parts are the same bytes for each thread if they lie in
    the same `frame`: the place of the first row, and for what moves with a loop the bytes of a turn.
    """

    memory: str
    first: int
    last: int
    writes: bool
    part: Part | None
    frame: tuple[int, ...] = ()

    def conflicts(self, other: Touch) -> bool:
        """True if threads must meet between the two."""
        if self.memory != other.memory or not (self.writes or other.writes):
            return False
        if self.first >= other.last or other.first >= self.last:
            return False
        if self.part is None or self.part != other.part:
            return True
        return self.part != FIRST_THREAD and self.frame != other.frame


Pending: TypeAlias = frozenset[Touch]


def conflict(earlier: Iterable[Touch], later: Sequence[Touch]) -> bool:
    """True if any of the one needs a barrier before any of the other."""
    return any(a.conflicts(b) for a in earlier for b in later)


class Toucher(Protocol):
    """Tells what entries touch."""

    def of_call(self, call: Call, loops: Sequence[Loop]) -> Sequence[Touch]:
        """The operands of a call inside `loops`."""

    def of_predicate(self, name: str, loops: Sequence[Loop]) -> Sequence[Touch]:
        """A predicate that all threads read, to go the same way."""


def place_barriers(entries: Sequence[Entry], toucher: Toucher) -> tuple[tuple[Entry, ...], Pending]:
    """Entries with the fewest barriers for their order, and what may have been touched since the last of them."""
    return _Placement(toucher).entries(tuple(entries), frozenset(), ())


class _Placement:
    """`pending` is always what may have been touched since the last barrier, on any way to this point."""

    def __init__(self, toucher: Toucher) -> None:
        self._toucher = toucher

    def entries(
        self, entries: tuple[Entry, ...], pending: Pending, loops: tuple[Loop, ...]
    ) -> tuple[tuple[Entry, ...], Pending]:
        """A barrier before each entry that conflicts with what is pending."""
        placed: list[Entry] = []
        for entry in entries:
            if isinstance(entry, Barrier):
                pending = frozenset()
            elif isinstance(entry, Call):
                pending = self._met(self._toucher.of_call(entry, loops), pending, placed)
            elif isinstance(entry, Branch):
                pending = self._met(self._toucher.of_predicate(entry.predicate, loops), pending, placed)
                then, after_then = self.entries(entry.then, pending, loops)
                orelse, after_orelse = self.entries(entry.orelse, pending, loops)
                entry, pending = replace(entry, then=then, orelse=orelse), after_then | after_orelse
            else:
                entry, pending = self._repeated(entry, pending, loops, placed)
            placed.append(entry)
        return tuple(placed), pending

    def _met(self, touches: Sequence[Touch], pending: Pending, placed: list[Entry]) -> Pending:
        """What is pending after an entry that touches this; a barrier is added to `placed` if it needs one."""
        if conflict(pending, touches):
            placed.append(Barrier())
            pending = frozenset()
        return pending | frozenset(touches)

    def _repeated(
        self, loop: Loop | While, pending: Pending, loops: tuple[Loop, ...], placed: list[Entry]
    ) -> tuple[Loop | While, Pending]:
        """A loop: the end of a turn is before the next one. What only the first turn needs stands before the loop."""
        if isinstance(loop, Loop) and loop.count == 0:
            return loop, pending
        carried, after = Pending(), Pending()
        while True:  # each round adds a barrier, or something carried, or is the last
            known, begin = loop, carried
            loop, end, left = self._turn(known, begin, loops)
            carried, after = begin | end, after | left
            if loop == known and carried == begin:
                break
        first, _, left = self._turn(loop, pending, loops)
        if first != loop:
            placed.append(Barrier())
            return loop, after
        return loop, after | left

    def _turn(
        self, loop: Loop | While, pending: Pending, loops: tuple[Loop, ...]
    ) -> tuple[Loop | While, Pending, Pending]:
        """The loop with barriers for a turn that begins so, and what is pending at its end and where it is left."""
        if isinstance(loop, Loop):
            body, end = self.entries(loop.body, pending, (*loops, loop))
            return replace(loop, body=body), end, end
        test, tested = self.entries(loop.test, pending, loops)
        tail: list[Entry] = []
        tested = self._met(self._toucher.of_predicate(loop.predicate, loops), tested, tail)
        body, end = self.entries(loop.body, tested, loops)
        return replace(loop, test=(*test, *tail), body=body), end, tested | end
