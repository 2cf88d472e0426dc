"""How a kernel form runs on a CPU, as data: vector axis, register tile, loop order, blocks, parallel axis.

A schedule changes no result beyond the order of a reduction; `graphc.codegen.choose` picks one, a user may
override it, and it prints with the kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

KINDS = ("scalar", "vector", "transposed", "outer", "dot")


@dataclass(frozen=True)
class Schedule:
    """A CPU schedule.

    kind: `scalar` plain loops; `vector` lanes along one axis of a map or a reduction; `transposed` square tiles of a
    map whose operands are contiguous along one or the other of two axes; `outer` a contraction
    whose vector axis is an output axis (broadcast times row); `dot` a contraction whose vector axis is a
    reduce axis (lane sums at the end).
    tile: register tile, axis -> size in elements. blocks: cache blocks, axis -> size. order: loops around the
    register tile, outermost first. parallel: the axis shared out among threads, or None (thread 0 does all).
    """

    kind: str = "scalar"
    vector_axis: str | None = None
    tile: tuple[tuple[str, int], ...] = ()
    order: tuple[str, ...] = ()
    blocks: tuple[tuple[str, int], ...] = ()
    parallel: str | None = None

    def __str__(self) -> str:
        parts = [self.kind]
        if self.vector_axis:
            parts.append(f"vector {self.vector_axis}")
        for label, pairs in (("tile", self.tile), ("block", self.blocks)):
            if pairs:
                parts.append(label + " " + " ".join(f"{axis}:{size}" for axis, size in pairs))
        if self.order:
            parts.append("order " + " ".join(self.order))
        if self.parallel:
            parts.append(f"parallel {self.parallel}")
        return "; ".join(parts)
