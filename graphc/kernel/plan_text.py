"""The text of a plan: its memory map and its table of kernel calls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from graphc.ir.buffers import format_bytes
from graphc.kernel.plan import ARENA, Branch, Buffer, Call, Entry, Loop, Plan, While, walk

MOST_NAMED = 8  # values of the peak that are shown


def print_plan(plan: Plan) -> str:
    """A plan as text: regions and offsets of buffers, then the table, then what happens before and after it."""
    extents = ", ".join(f"{name} <= {size}" for name, size in sorted(plan.extents.items()))
    lines = [f"plan {plan.name}{' where ' + extents if extents else ''} {{"]
    lines += ["  " + line for line in _summary(plan)] + ["  memory {"]
    lines += ["    " + line for line in _memory(plan)]
    lines += ["  }"]
    for preparation in plan.preparations:
        when = f"when {', '.join(preparation.variables)} changed" if preparation.variables else "once"
        lines += [f"  prepare {when} {{", *("    " + line for line in _entries(preparation.entries)), "  }"]
    lines += ["  table {", *("    " + line for line in _entries(plan.entries)), "  }"]
    for label, names in (("inputs", plan.inputs), ("results", plan.results), ("written", plan.written)):
        if names:
            lines.append(f"  {label} {', '.join(names)}")
    lines += [f"  check {c.lower} <= {c.input} < {c.upper}{_comment(c.origin)}" for c in plan.checks]
    lines += [f"  update {u.target} = {u.source}" for u in plan.updates]
    return "\n".join([*lines, "}"]) + "\n"


def _summary(plan: Plan) -> Iterator[str]:
    """The size of the arena beside that of the values in it, and where most of it is in use."""
    values = f", for values of {plan.peak.total} bytes" if plan.peak.total else ""
    kept = kept_bytes(plan)
    yield f"arena {plan.arena_bytes} bytes{values}{f', {kept} kept between calls' if kept else ''}"
    if plan.peak.entry:
        sizes = {b.name: b.nbytes for b in plan.buffers}
        names = sorted(plan.peak.values, key=lambda name: -sizes.get(name, 0))
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        yield f"peak {plan.peak.nbytes} bytes at {plan.peak.entry}: {', '.join(names[:MOST_NAMED])}{more}"


def kept_bytes(plan: Plan) -> int:
    """Bytes of the arena that are kept between calls: those of prepared values."""
    kept, end = 0, 0
    for first, last in sorted((b.offset, b.offset + b.nbytes) for b in plan.buffers if b.region == "prepared"):
        kept += max(0, last - max(first, end))  # views and slices are the same bytes
        end = max(end, last)
    return kept


def largest(buffers: Iterable[Buffer], count: int = 3) -> Iterator[str]:
    """The largest buffers as text: `h: f32[N,512] (2 MiB)`."""
    for buffer in sorted(buffers, key=lambda b: -b.nbytes)[:count]:
        dims = buffer.dims or ",".join(map(str, buffer.shape))
        yield f"{buffer.name}: {buffer.dtype}[{dims}] ({format_bytes(buffer.nbytes)})"


def _comment(text: str) -> str:
    return f"  # {text}" if text else ""


def _memory(plan: Plan) -> Iterator[str]:
    """One line a buffer, by region and offset, in columns."""
    regions = list(dict.fromkeys((*ARENA, *(b.region for b in plan.buffers))))
    ordered = sorted(plan.buffers, key=lambda b: (regions.index(b.region), b.offset, b.name))
    steps: dict[str, str] = {}
    for loop in (entry for entry in walk(plan.all_entries()) if isinstance(entry, Loop)):
        for name, step in loop.strides:
            steps[name] = f"{steps.get(name, '')}, {step:+} each {loop.name}"
    rows = [(b.name, _type(b), b.region, _place(b) + steps.get(b.name, "")) for b in ordered]
    widths = [max((len(row[k]) for row in rows), default=0) for k in range(3)]
    for row in rows:
        yield "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]])


def _type(buffer: Buffer) -> str:
    capacity = ",".join(map(str, buffer.shape))
    dims = f" as [{buffer.dims}]" if buffer.dims and buffer.dims != capacity else ""
    layout = f" laid {buffer.layout}" if buffer.layout else ""
    return f"{buffer.dtype}[{capacity}]{dims}{layout}"


def _place(buffer: Buffer) -> str:
    if buffer.in_arena:
        return f"{buffer.offset} .. {buffer.offset + buffer.nbytes}"
    start = f" from {buffer.start}" if buffer.start else ""
    return f"#{buffer.offset}, {buffer.nbytes} bytes{start}"


def _entries(entries: Iterable[Entry]) -> Iterator[str]:
    for entry in entries:
        if isinstance(entry, Loop):
            yield f"loop {entry.name} < {entry.count} {{"
            yield from _indented(entry.body)
            yield "}"
        elif isinstance(entry, Branch):
            yield f"if {entry.predicate} {{"
            yield from _indented(entry.then)
            if entry.orelse:
                yield "} else {"
                yield from _indented(entry.orelse)
            yield "}"
        elif isinstance(entry, While):
            yield f"repeat {entry.name}{f' at most {entry.bound} times' if entry.bound >= 0 else ''} {{"
            yield from _indented(entry.test)
            yield f"  leave unless {entry.predicate}"
            yield from _indented(entry.body)
            yield "}"
        elif isinstance(entry, Call):
            extents = f" where {', '.join(entry.extents)}" if entry.extents else ""
            yield f"{entry.kernel}({', '.join(entry.operands)}){extents}{' shared' if entry.shared else ''}"
        else:
            yield "barrier"


def _indented(entries: Iterable[Entry]) -> Iterator[str]:
    yield from ("  " + line for line in _entries(entries))
