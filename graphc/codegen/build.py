"""The compiler behind a cache miss: declared graph -> passes -> kernel forms -> plan -> source -> machine code."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from graphc.codegen.choose import choose
from graphc.codegen.cpu import emit
from graphc.codegen.host import Host, host
from graphc.codegen.limits import check_points, check_sizes
from graphc.codegen.lower import Names, lower_graph
from graphc.codegen.machine import MachineCode, emit_object, translate_source
from graphc.codegen.memory import PlannedProgram, Signature, plan_program
from graphc.codegen.override import check_override
from graphc.codegen.rows import Scheduled
from graphc.codegen.sharing import TURNS, estimated_work, share_work
from graphc.errors import CompileError
from graphc.ir.graph import Graph
from graphc.kernel.compose import anonymous
from graphc.kernel.form import Kernel
from graphc.kernel.plan import Call, Entry, Plan, nested, with_nested
from graphc.kernel.schedule import Schedule
from graphc.kernel.text import print_kernel
from graphc.kernel.verify import verify
from graphc.ops.scan import length_symbols
from graphc.passes.manager import Stage, run
from graphc.passes.pipeline import default_pipeline

PLANNING = ("layouts", "split", "prepare")  # what can be switched off behind the passes


@dataclass(frozen=True)
class CompiledKernel:
    """A kernel with everything that it went through; `symbol` names its machine code."""

    form: Kernel
    schedule: Schedule
    source: str
    symbol: str
    machine_code: bytes

    @property
    def form_text(self) -> str:
        """The kernel form as text."""
        return print_kernel(self.form)


@dataclass(frozen=True)
class Tunable:
    """A kernel with the schedule that it would have, and the estimated nanoseconds of all its calls in a step."""

    form: Kernel
    schedule: Schedule
    nanoseconds: float


@dataclass(frozen=True)
class Tuned:
    """Schedules that a tuner has found better, by kernel, and what is to be said of them."""

    schedules: Mapping[str, Schedule] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


Tuner: TypeAlias = Callable[[Sequence[Tunable]], Tuned]


@dataclass(frozen=True)
class Build:
    """A compiled program: the plan (its calls name symbols), kernels by name, constants, and the passes' record."""

    plan: Plan
    kernels: Mapping[str, CompiledKernel]
    constants: Mapping[str, np.ndarray]
    variables: Mapping[str, str]  # buffer name -> name of the declared variable
    stages: Sequence[Stage]
    remarks: tuple[str, ...]
    tuned: Tuned = Tuned()


def optimise(
    graph: Graph, *, sizes: Mapping[str, int] | None = None, without: Sequence[str] = (), check: bool = False
) -> tuple[Graph, tuple[Stage, ...]]:
    """Run the default pipeline on a declared graph.

    `sizes` fixes dimension symbols, `without` switches passes off by name, `PLANNING` aside, `check` verifies the graph
    after each.
    """
    passes = tuple(name for name in without if name not in PLANNING)
    return run(graph, default_pipeline(sizes or {}, without=passes), verify=check)


def build(
    graph: Graph,
    signature: Signature,
    capacities: dict[str, int],
    *,
    without: Sequence[str] = (),
    memory_limit: int | None = None,
    check: bool = False,
    schedules: Mapping[str, Schedule] | None = None,
    tuner: Tuner | None = None,
) -> Build:
    """Compile a declared graph for this machine. `schedules` overrides the chosen schedule of kernels by name; raises
    CompileError for kernels that are not there, and for schedules that they have no code for. `tuner` is asked for
    better schedules of all other kernels.

    `without` switches off passes, and parts of `PLANNING`, by name. Symbols in the lengths of loops are fixed at their
    capacities. `check` verifies the graph after each pass. `memory_limit` is the most bytes that the arena may take;
    see `graphc.codegen.memory.plan_program`.
    """
    lengths = {name: capacities[name] for name in length_symbols(graph)}
    capacities = {name: size for name, size in capacities.items() if name not in lengths}
    final, stages = optimise(graph, sizes=lengths, without=without, check=check)
    names = Names()
    lowered = lower_graph(final, capacities, names)
    machine = host()
    planned = plan_program(
        final, lowered, names, signature, capacities, memory_limit, machine=machine, without=without
    )
    check_sizes(planned.plan)
    remarks = [*(remark for stage in stages for remark in stage.remarks), *planned.remarks]
    remarks += _checked_overrides(planned, schedules or {}, machine)
    fixed = {**planned.schedules, **(schedules or {})}
    scheduled = {form.name: Scheduled(form, fixed.get(form.name) or choose(form, machine)) for form in planned.kernels}
    tuned = Tuned()
    if tuner is not None:
        tuned = tuner([k for k in _tunable(planned, scheduled, machine) if k.form.name not in (schedules or {})])
        scheduled |= {name: replace(scheduled[name], schedule=s) for name, s in tuned.schedules.items()}
        remarks += tuned.remarks
    sharing = share_work(planned.plan, scheduled, machine, fixed=set(schedules or {}))
    given = [(form, sharing.schedules.get(form.name, scheduled[form.name].schedule)) for form in planned.kernels]
    compiled = {kernel.form.name: kernel for kernel in compile_kernels(given, machine)}
    symbols = {name: kernel.symbol for name, kernel in compiled.items()}
    preparations = (replace(p, entries=_with_symbols(p.entries, symbols)) for p in sharing.plan.preparations)
    entries = _with_symbols(sharing.plan.entries, symbols)
    plan = replace(sharing.plan, entries=entries, preparations=tuple(preparations))
    constants = {
        name: value.producer.attributes["value"].array for name, value in planned.constants.items() if value.producer
    }
    return Build(plan, compiled, constants, planned.variables, stages, tuple(remarks), tuned)


def _tunable(planned: PlannedProgram, kernels: Mapping[str, Scheduled], machine: Host) -> Iterator[Tunable]:
    """The kernels with the estimated work of all their calls in a step, at capacity."""
    calls: Counter[str] = Counter()
    for call, least, most in planned.plan.call_counts():
        calls[call.kernel] += max(least, TURNS) if most is None else most
    for name, kernel in kernels.items():
        yield Tunable(kernel.form, kernel.schedule, calls[name] * estimated_work(kernel, machine))


def _checked_overrides(planned: PlannedProgram, schedules: Mapping[str, Schedule], machine: Host) -> list[str]:
    """Check a user's schedules; returns remarks on them."""
    forms = {form.name: form for form in planned.kernels}
    for name in schedules:
        if name not in forms:
            close = difflib.get_close_matches(name, forms, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            raise CompileError(f"program {planned.plan.name!r} has no kernel {name!r} whose schedule could be "
                               f"overridden{hint} Its kernels are: {', '.join(forms)}")
    remarks = (check_override(forms[name], schedule, machine) for name, schedule in schedules.items())
    return [remark for remark in remarks if remark]


def compile_kernel(form: Kernel, machine: Host, *, schedule: Schedule | None = None) -> CompiledKernel:
    """Compile one kernel, with the schedule that is chosen for it unless one is given. Raises as `compile_kernels`."""
    (compiled,) = compile_kernels([(form, schedule or choose(form, machine))], machine)
    return compiled


def compile_kernels(kernels: Sequence[tuple[Kernel, Schedule]], machine: Host) -> list[CompiledKernel]:
    """Verify forms, emit their sources by their schedules, and compile them.

    A second thread lets LLVM emit machine code while this one translates the next kernels. Kernels that differ in names
    only are compiled once. Raises VerifyError for a form that breaks a rule: planning makes forms of its own, and code
    of a wrong one would compute wrong values in silence; CompileError for a schedule that there is no code for.
    """
    sources: list[tuple[str, Future[MachineCode]]] = []
    codes: dict[tuple[str, str], Future[MachineCode]] = {}
    with ThreadPoolExecutor(1) as emitting:
        try:
            for form, schedule in kernels:
                verify(form)
                check_points(form)
                source = emit(form, schedule, machine)
                key = (print_kernel(anonymous(form)), str(schedule))
                if key not in codes:
                    codes[key] = emitting.submit(emit_object, translate_source(source, form.name))
                sources.append((source, codes[key]))
            emitted = [(source, code.result()) for source, code in sources]
        except BaseException:
            emitting.shutdown(cancel_futures=True)
            raise
    return [
        CompiledKernel(form, schedule, source, code.symbol, code.object_bytes)
        for (form, schedule), (source, code) in zip(kernels, emitted, strict=True)
    ]


def _with_symbols(entries: Sequence[Entry], symbols: Mapping[str, str]) -> tuple[Entry, ...]:
    def named(entry: Entry) -> Entry:
        if isinstance(entry, Call):
            return replace(entry, kernel=symbols[entry.kernel])
        return with_nested(entry, [_with_symbols(inner, symbols) for inner in nested(entry)])

    return tuple(named(entry) for entry in entries)
