"""When values are alive, and offsets in one arena so that values alive together never overlap."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from graphc.codegen.regions import Block, Region
from graphc.codegen.storage import Storage
from graphc.kernel.form import Kernel

ALIGNMENT = 64  # bytes: one cache line, one AVX-512 vector


@dataclass(frozen=True)
class Lifetimes:
    """First and last position of each memory, by its owner, and the kernel or block that stands at each position."""

    spans: Mapping[str, tuple[int, int]]
    entries: tuple[str, ...]

    def of(self, owners: Collection[str]) -> Lifetimes:
        """Those of some memories."""
        return Lifetimes({name: span for name, span in self.spans.items() if name in owners}, self.entries)

    def alive(self, sizes: Mapping[str, int]) -> dict[int, int]:
        """Bytes alive at each position, from -1 (before the first kernel) to the end."""
        alive = {at: 0 for at in range(-1, len(self.entries) + 1)}
        for name, (first, last) in self.spans.items():
            for at in range(first, last + 1):
                alive[at] += sizes[name]
        return alive

    def peak(self, sizes: Mapping[str, int]) -> tuple[int, int, tuple[str, ...]]:
        """Where most bytes are alive: how many, the position, and the memories. No arena can be smaller."""
        alive = self.alive(sizes)
        at = max(alive, key=lambda position: (alive[position], -position))
        values = tuple(name for name, (first, last) in self.spans.items() if first <= at <= last)
        return alive[at], at, values


def lifetimes(
    region: Region, storage: Storage, inputs: Iterable[str], outlive: Iterable[str]
) -> Lifetimes:
    """First and last position in the table of each memory that kernels use, by its owner.

    `inputs` live from before the first kernel, what `outlive` the kernels to the end. A value that a loop uses and
    that is not made anew in each of its turns lives through the whole loop.
    """
    line = _Timeline(storage)
    line.pass_through(region, ())
    spans = line.spans()
    end = len(line.entries)
    for name in outlive:
        owner = storage.owner(name)
        spans[owner] = (spans.get(owner, (0, end))[0], end)
    spans |= {name: (-1, spans.get(name, (-1, -1))[1]) for name in inputs}
    return Lifetimes(spans, tuple(line.entries))


@dataclass(eq=False)
class _Span:
    """The positions of a loop, and its name."""

    loop: str
    first: int
    last: int = -1


@dataclass
class _Timeline:
    """Every use of every memory: its owner, the position, and the loops around it, outermost first."""

    storage: Storage
    entries: list[str] = field(default_factory=list)
    uses: list[tuple[str, int, tuple[_Span, ...]]] = field(default_factory=list)

    def use(self, name: str, loops: tuple[_Span, ...]) -> None:
        self.uses.append((self.storage.owner(name), len(self.entries), loops))

    def pass_through(self, region: Region, loops: tuple[_Span, ...]) -> None:
        for item in region.items:
            if isinstance(item, Kernel):
                for operand in item.operands:
                    self.use(operand.name, loops)
                self.entries.append(item.name)
            else:
                self._pass_through_block(item, loops)

    def _pass_through_block(self, block: Block, loops: tuple[_Span, ...]) -> None:
        if block.kind == "branch":
            self._ask(block, loops)
            for side in block.regions:
                self.pass_through(side, loops)
            return
        span = _Span(block.name, len(self.entries))
        self.entries.append(block.name)
        for part in block.regions:
            self.pass_through(part, (*loops, span))
            if block.kind == "while" and part is block.regions[0]:
                self._ask(block, (*loops, span))
        span.last = len(self.entries)
        self.entries.append(block.name)

    def _ask(self, block: Block, loops: tuple[_Span, ...]) -> None:
        self.use(block.predicate, loops)
        self.entries.append(block.name)

    def spans(self) -> dict[str, tuple[int, int]]:
        found: dict[str, tuple[int, int]] = {}
        for owner, position, loops in self.uses:
            home = self.storage.home.get(owner)
            own = home.loops if home else ()
            around = next((span for span in loops if span.loop not in own), None)
            first, last = (position, position) if around is None else (around.first, around.last)
            known = found.get(owner, (first, last))
            found[owner] = (min(known[0], first), max(known[1], last))
        return found


def assign_offsets(sizes: Mapping[str, int], spans: Mapping[str, tuple[int, int]]) -> tuple[dict[str, int], int]:
    """Byte offsets in one arena so that values alive together never overlap, and the arena's size.

    Greedy by size, first fit (Pisarchyk and Lee 2020, "Efficient Memory Management for Deep Neural Net Inference").
    """
    offsets: dict[str, int] = {}
    end = 0
    for name in sorted(sizes, key=lambda n: (-sizes[n], spans[n], n)):
        first, last = spans[name]
        size = max(sizes[name], 1)
        neighbours = sorted(
            (offsets[o], offsets[o] + max(sizes[o], 1))
            for o in offsets
            if spans[o][0] <= last and first <= spans[o][1]
        )
        offset = 0
        for start, stop in neighbours:
            if offset + size <= start:
                break
            offset = max(offset, -(-stop // ALIGNMENT) * ALIGNMENT)
        offsets[name] = offset
        end = max(end, offset + size)
    return offsets, -(-end // ALIGNMENT) * ALIGNMENT


