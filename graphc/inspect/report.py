"""What a compiled program is made of, as plain data for JSON and as text: stages, kernels, memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from graphc.errors import InputError
from graphc.ir.dims import evaluate
from graphc.ir.graph import Graph
from graphc.ir.text import print_graph
from graphc.kernel.counts import bytes_moved, flops
from graphc.kernel.plan import Plan
from graphc.kernel.text import parse_kernel
from graphc.passes.manager import Stage

DECLARED = "declared"


class Kernel(Protocol):
    """What a kernel of a compiled program shows of itself; `graphc.program.KernelView` does."""

    name: str
    form: str
    schedule: str
    source: str
    symbol: str
    origins: tuple[str, ...]

    def llvm(self) -> str:
        """The optimised LLVM assembly."""

    def asm(self) -> str:
        """The machine code as assembly."""


class Compiled(Protocol):
    """What a report reads of a compiled program; `gc.Program` has it."""

    name: str
    from_cache: bool

    @property
    def graph(self) -> Graph:
        """The graph as declared."""

    @property
    def stages(self) -> Sequence[Stage]:
        """Every pass."""

    @property
    def kernels(self) -> Mapping[str, Any]:
        """`Kernel`s by name, in the order in which they run."""

    @property
    def plan(self) -> Plan:
        """The table of calls and the memory plan."""

    @property
    def remarks(self) -> Sequence[str]:
        """Why what was not fused was not."""


def overview(program: Compiled) -> dict[str, Any]:
    """Everything that `graphc inspect` lists: stages, kernels in the order of the table, and memory."""
    return {
        "program": program.name,
        "from_cache": program.from_cache,
        "extents": dict(program.plan.extents),
        "stages": [stage_summary(name, stage) for name, stage in stages(program).items()],
        "kernels": [
            {**kernel_summary(kernel), "calls": list(counts)}
            for kernel, (_, *counts) in zip(program.kernels.values(), program.plan.call_counts(), strict=True)
        ],
        "memory": memory(program.plan),
        "remarks": list(program.remarks),
    }


def stages(program: Compiled) -> dict[str, Stage]:
    """The stages by name."""
    return {stage.name: stage for stage in program.stages}


def stage_summary(name: str, stage: Stage) -> dict[str, Any]:
    """A pass in one line: nodes before and after it, and how many rewrites it made."""
    return {"name": name, "before": len(stage.before.nodes), "after": len(stage.after.nodes),
            "rewrites": len(stage.rewrites)}


def stage_detail(program: Compiled, name: str) -> dict[str, Any]:
    """The graph after the pass `name` ("declared": before the first), its diff and rewrites.

    Raises InputError for a name that no pass has.
    """
    if name == DECLARED:
        return {"name": name, "graph": print_graph(program.graph), "diff": "", "rewrites": []}
    stage = _named(name, stages(program), "pass", DECLARED)
    rewrites = [{"rule": r.rule, "before": r.before, "after": r.after, "why": r.why, "origin": str(r.origin)}
                for r in stage.rewrites]
    return {"name": name, "graph": stage.after_text, "diff": stage.diff, "rewrites": rewrites}


def kernel_summary(kernel: Kernel) -> dict[str, Any]:
    """A kernel in one line: its schedule, its work at full capacity, and what it computes."""
    form = parse_kernel(kernel.form)
    return {"name": kernel.name, "schedule": kernel.schedule, "flop": evaluate(flops(form), form.capacities),
            "bytes": evaluate(bytes_moved(form), form.capacities), "source_lines": len(kernel.source.splitlines()),
            "symbol": kernel.symbol, "origins": list(kernel.origins)}


def kernel_detail(program: Compiled, name: str) -> dict[str, Any]:
    """Form, schedule, source and origins of the kernel `name`. Raises InputError for a name that no kernel has."""
    kernel = named_kernel(program, name)
    return {**kernel_summary(kernel), "form": kernel.form, "source": kernel.source}


def named_kernel(program: Compiled, name: str) -> Kernel:
    """The kernel `name`. Raises InputError, listing them, for a name that no kernel has."""
    return _named(name, program.kernels, "kernel")


def memory(plan: Plan) -> dict[str, Any]:
    """Bytes by region, and where every buffer lies; buffers of one arena that overlap live at different times."""
    buffers = [{"name": b.name, "type": f"{b.dtype}[{b.dims}]", "region": b.region, "offset": b.offset,
                "bytes": b.nbytes} for b in plan.buffers]
    regions: dict[str, int] = {}
    for b in plan.buffers:
        regions[b.region] = regions.get(b.region, 0) + b.nbytes
    return {
        "arena_bytes": plan.arena_bytes,
        "bytes": regions,
        "buffers": buffers,
        "written_in_place": list(plan.written),
        "copied_after_the_step": [update.target for update in plan.updates],
    }


def overview_text(found: Mapping[str, Any]) -> str:
    """`overview` for people."""
    extents = ", ".join(f"{name} <= {size}" for name, size in found["extents"].items())
    lines = [f"program {found['program']}" + (f", {extents}" if extents else "")]
    stages = [(s["name"], str(s["before"]), str(s["after"]), str(s["rewrites"])) for s in found["stages"]]
    lines += ["", *_table(("pass", "nodes before", "after", "rewrites"), stages)]
    lines += ["", *_kernel_table(found["kernels"])]
    held = found["memory"]
    rows = [(region, f"{size:,}") for region, size in held["bytes"].items()]
    lines += ["", *_table(("memory", "bytes"), rows)]
    lines += [f"arena: {held['arena_bytes']:,} bytes, which inputs and scratch buffers share by lifetime"]
    lines += [f"written in place: {', '.join(held['written_in_place']) or 'nothing'}"]
    if held["copied_after_the_step"]:
        lines += [f"copied after the step: {', '.join(held['copied_after_the_step'])}"]
    if found["remarks"]:
        lines += ["", "remarks", *(f"  {remark}" for remark in found["remarks"])]
    return "\n".join(lines)


def _kernel_table(kernels: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line a kernel; how often a step calls it is told where there are loops or branches."""
    title, last = f"kernel ({len(kernels)})", ("bytes", "schedule")
    work = [(f"{k['flop']:,}", f"{k['bytes']:,}", k["schedule"]) for k in kernels]
    if all(k["calls"] == [1, 1] for k in kernels):
        return _table((title, "FLOP", *last), [(k["name"], *w) for k, w in zip(kernels, work, strict=True)])
    rows = [(k["name"], _calls(*k["calls"]), *w) for k, w in zip(kernels, work, strict=True)]
    return _table((title, "calls", "FLOP a call", *last), rows)


def _calls(least: int, most: int | None) -> str:
    """How often a step calls a kernel: `64`, or `0-64` where branches and tests decide."""
    if most is None:
        return f"{least} or more"
    return str(most) if least == most else f"{least}-{most}"


def stage_text(found: Mapping[str, Any], *, diff: bool) -> str:
    """`stage_detail` for people: the graph, or with `diff` what changed, and why."""
    if not diff:
        return str(found["graph"]).rstrip()
    rewrites = [f"{r['rule']}: {r['before']}  ->  {r['after']}\n    {r['why']}" for r in found["rewrites"]]
    return "\n".join([found["diff"] or "nothing changed", "", *rewrites]).rstrip()


def kernel_text(found: Mapping[str, Any]) -> str:
    """`kernel_detail` for people: the source, whose docstring is the form with its origins and the schedule."""
    return str(found["source"]).rstrip()


def _named(name: str, known: Mapping[str, Any], kind: str, *more: str) -> Any:
    if name not in known:
        raise InputError(f"there is no {kind} {name!r}; there are: {', '.join([*more, *known])}")
    return known[name]


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lines with columns as wide as their longest cell; columns of numbers to the right."""
    columns = list(zip(head, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    numbers = [all(cell.replace(",", "").isdigit() for cell in column[1:]) and len(column) > 1 for column in columns]

    def line(cells: tuple[str, ...]) -> str:
        padded = [c.rjust(w) if n else c.ljust(w) for c, w, n in zip(cells, widths, numbers, strict=True)]
        return "  ".join(padded).rstrip()

    return [line(head), *map(line, rows)]
