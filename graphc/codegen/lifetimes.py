"""When values are alive, and offsets in one arena so that values alive together never overlap."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from graphc.codegen.regions import Block, Region
from graphc.codegen.storage import Storage
from graphc.kernel.form import Kernel

ALIGNMENT = 64  # bytes: one cache line, one AVX-512 vector


def lifetimes(
    region: Region, storage: Storage, inputs: Iterable[str], outlive: Iterable[str]
) -> dict[str, tuple[int, int]]:
    """First and last position in the table of each memory that kernels use, by its owner.

    `inputs` live always, what `outlive` the kernels to the end. A value that a loop uses and that is not made anew in
    each of its turns lives through the whole loop.
    """
    line = _Timeline(storage)
    line.pass_through(region, ())
    spans = line.spans()
    end = line.position
    for name in outlive:
        owner = storage.owner(name)
        spans[owner] = (spans.get(owner, (0, end))[0], end)
    return spans | dict.fromkeys(inputs, (-1, end))


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
    position: int = 0
    uses: list[tuple[str, int, tuple[_Span, ...]]] = field(default_factory=list)

    def use(self, name: str, loops: tuple[_Span, ...]) -> None:
        self.uses.append((self.storage.owner(name), self.position, loops))

    def pass_through(self, region: Region, loops: tuple[_Span, ...]) -> None:
        for item in region.items:
            if isinstance(item, Kernel):
                for operand in item.operands:
                    self.use(operand.name, loops)
                self.position += 1
            else:
                self._pass_through_block(item, loops)

    def _pass_through_block(self, block: Block, loops: tuple[_Span, ...]) -> None:
        if block.kind == "branch":
            self._ask(block, loops)
            for side in block.regions:
                self.pass_through(side, loops)
            return
        span = _Span(block.name, self.position)
        self.position += 1
        for part in block.regions:
            self.pass_through(part, (*loops, span))
            if block.kind == "while" and part is block.regions[0]:
                self._ask(block, (*loops, span))
        span.last = self.position
        self.position += 1

    def _ask(self, block: Block, loops: tuple[_Span, ...]) -> None:
        self.use(block.predicate, loops)
        self.position += 1

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


