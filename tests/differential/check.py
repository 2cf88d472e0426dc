"""Compile a case for this machine, run it at its counts, and compare every output with the interpreter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from graphc.codegen.build import Build, build
from graphc.codegen.memory import Signature
from graphc.ir.buffers import Elements, aligned_copy
from graphc.ir.graph import Graph, Value
from graphc.ir.text import parse, print_graph
from graphc.kernel.text import parse_kernel
from graphc.kernel.verify import verify
from graphc.runtime.executable import Executable

from .case import RNG, Case
from .noise import Runs, Trials, allowed, computed


@dataclass(frozen=True)
class Failure:
    """What went wrong: `kind` is `values` or the name of an exception, `position` the output at fault."""

    kind: str
    message: str
    position: int = 0

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


def check(case: Case, without: Sequence[str] = ()) -> Failure | None:
    """Compile with the passes in `without` switched off, run, compare. Anything that the compiler raises is a failure.

    Raises GraphcError if the interpreter cannot run the case: then it is no case at all.
    """
    trials = case.trials
    if parse(print_graph(case.graph)) != case.graph:
        return Failure("text", "the graph's text reads back as another graph")
    try:
        program = Compiled(case, without)
        for position, count in enumerate(case.counts):
            found = program(count)
            failure = compare(case, trials, position, found)
            if failure is not None:
                return Failure(failure.kind, f"{failure.message}; {program.blame(position, trials)}", failure.position)
            for k, (one, two) in enumerate(zip(found, program(count, threads=2), strict=True)):
                if one.tobytes() != two.tobytes():
                    return Failure("threads", f"output {k} has other bits on two threads with N = {count}", k)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a failure to be shrunk and shown
        return Failure(type(error).__name__, str(error))
    return None


def check_graph(case: Case, rewritten: Callable[[Graph], Graph]) -> Failure | None:
    """Compare the case's graph with what passes make of it, both in the interpreter: nothing is compiled."""
    trials = case.trials
    try:
        graph = rewritten(case.graph)
        for position, count in enumerate(case.counts):
            found = computed(graph, case.rows(count))
            failure = compare(case, trials, position, found)
            if failure is not None:
                return failure
    except Exception as error:  # noqa: BLE001
        return Failure(type(error).__name__, str(error))
    return None


def compare(case: Case, trials: Trials, position: int, found: Sequence[np.ndarray]) -> Failure | None:
    """The first output that deviates from the interpreter's by more than noise explains."""
    for k, (output, mine) in enumerate(zip(case.expanded.outputs, found, strict=True)):
        problem = _deviation(output, trials.values[output][position], mine)
        if problem:
            return Failure("values", f"output {k} ({output.type}) with N = {case.counts[position]}: {problem}", k)
    return None


def _deviation(output: Value, runs: Runs, found: np.ndarray) -> str:
    exact = runs[0]
    if found.shape != exact.shape:
        return f"shape {list(found.shape)}, expected {list(exact.shape)}"
    if exact.dtype.kind != "f":
        wrong = np.argwhere(found != exact)
        limit = 0.0
    else:
        limit = allowed(runs, output.type.dtype.name)
        wrong = np.argwhere(~(np.abs(found - exact) <= limit))
    if not len(wrong):
        return ""
    place = tuple(int(k) for k in wrong[0])
    first = f"[{place}] is {found[place]}, not {exact[place]} +- {limit:.2g}"
    return f"{len(wrong)} of {exact.size} elements differ, {first}"


class Compiled:
    """The program of a case; a call runs it from the case's arrays, in memory full of rubbish."""

    def __init__(self, case: Case, without: Sequence[str] = ()) -> None:
        self.case = case
        names = {value.name for value in case.graph.inputs}
        signature = Signature(frozenset(case.variables), case.updated, RNG if RNG in names else None)
        self.built: Build = build(case.graph, signature, case.capacities, without=without, check=True)
        for kernel in self.built.kernels.values():
            verify(parse_kernel(kernel.form_text))
        self.owners = {name: Elements(aligned_copy(case.arrays[name])) for name in case.variables}
        plan, built = self.built.plan, self.built
        owners = {buffer: self.owners[built.variables[buffer]] for buffer in plan.variables}
        objects = {kernel.symbol: kernel.machine_code for kernel in built.kernels.values()}
        seed = int(case.arrays[RNG][0]) if RNG in names else 0
        self.executable = Executable(plan, objects, owners, built.constants, seed, threads=2)
        self.rubbish = np.full(plan.arena_bytes, 0xFF, np.uint8)  # NaN and -1: what is read must have been written
        self.executable._arena[...] = self.rubbish
        self.passing = np.ones(plan.arena_bytes, bool)  # bytes that no call finds as the last one left them
        for buffer in plan.buffers:
            if buffer.region == "prepared":
                self.passing[buffer.offset : buffer.offset + buffer.nbytes] = False

    def __call__(self, count: int, threads: int = 1) -> list[np.ndarray]:
        """Results, then the updated variables."""
        case, rows = self.case, self.case.rows(count)
        for name in case.updated:
            self.owners[name].write(case.arrays[name])
        np.copyto(self.executable._arena, self.rubbish, where=self.passing)
        if RNG in rows:
            self.executable.steps = int(rows[RNG][1])
        with self.executable.lock:
            results = self.executable.step([rows[name] for name in self.built.plan.inputs], threads=threads)
        return [*results, *(self.owners[name].array.copy() for name in case.updated)]

    def blame(self, position: int, trials: Trials) -> str:
        """Which half of the compiler is at fault: the interpreter runs the graph that is lowered, too."""
        final = self.built.stages[-1].after if self.built.stages else self.case.graph
        found = computed(final, self.case.rows(self.case.counts[position]))
        wrong = compare(self.case, trials, position, found)
        return "the passes change it" if wrong else "the passes are right, the kernels or the plan are not"
