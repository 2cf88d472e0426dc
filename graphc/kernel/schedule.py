"""How a kernel form runs on a CPU, as data: vector axis, register tile, loop order, blocks, parallel axis.

A schedule changes no result beyond the order of a reduction; `graphc.codegen.choose` picks one, a user may
override it, and it prints with the kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graphc.errors import InputError

KINDS = ("scalar", "vector", "transposed", "outer", "dot")
_FIELDS = {"vector": "vector_axis", "tile": "tile", "block": "blocks", "order": "order", "parallel": "parallel"}


@dataclass(frozen=True)
class Schedule:
    """A CPU schedule.

    kind: `scalar` plain loops; `vector` lanes along one axis of a map or a reduction; `transposed` square tiles of a
    map whose operands are contiguous along one or the other of two axes; `outer` a contraction
    whose vector axis is an output axis (broadcast times row); `dot` a contraction whose vector axis is a
    reduce axis (lane sums at the end).
    tile: register tile, axis -> size in elements. blocks: cache blocks, axis -> size. order: loops around the
    register tile, outermost first. parallel: the axis shared out among threads, or None (thread 0 does all).
    unit: points of the parallel axis that one thread has together, a multiple of the tile; 0: any tiles. Kernels that
    share equal rows in equal units leave each thread its own rows, see `graphc.codegen.rows`.
    """

    kind: str = "scalar"
    vector_axis: str | None = None
    tile: tuple[tuple[str, int], ...] = ()
    order: tuple[str, ...] = ()
    blocks: tuple[tuple[str, int], ...] = ()
    parallel: str | None = None
    unit: int = 0

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
            parts.append(f"parallel {self.parallel}" + (f":{self.unit}" if self.unit else ""))
        return "; ".join(parts)


def parse_schedule(text: str) -> Schedule:
    """The schedule whose `str` is `text`. Raises InputError, naming the part that says nothing known."""
    kind, *parts = text.strip().split("; ")
    if kind not in KINDS:
        raise InputError(f"schedule {text!r} starts with {kind!r}; a schedule is {', '.join(KINDS)}")
    fields: dict[str, Any] = {}
    for part in parts:
        label, *words = part.split() or [""]
        if label not in _FIELDS or not words or _FIELDS[label] in fields:
            raise InputError(f"schedule {text!r}: {part!r} is none of {', '.join(_FIELDS)} and what belongs to it")
        if label in ("tile", "block"):
            pairs = [word.rpartition(":")[::2] for word in words]
            if not all(axis and size.isdecimal() and int(size) > 0 for axis, size in pairs):
                raise InputError(f"schedule {text!r}: {part!r} needs sizes such as i:8")
            fields[_FIELDS[label]] = tuple((axis, int(size)) for axis, size in pairs)
        elif label == "order":
            fields["order"] = tuple(words)
        elif label == "parallel" and len(words) == 1 and ":" in words[0]:
            fields["parallel"], _, size = words[0].rpartition(":")
            if not (fields["parallel"] and size.isdecimal() and int(size) > 0):
                raise InputError(f"schedule {text!r}: {part!r} needs a size such as i:8")
            fields["unit"] = int(size)
        elif len(words) == 1:
            fields[_FIELDS[label]] = words[0]
        else:
            raise InputError(f"schedule {text!r}: {part!r} names more than one axis")
    return Schedule(kind, **fields)
