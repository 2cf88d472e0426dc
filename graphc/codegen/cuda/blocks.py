"""Kernel source for one block a point: its threads share out reductions and inner loops, and add up together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from graphc.codegen.cpu.values import Context, Value
from graphc.codegen.cuda.expressions import NUMBA, Scope
from graphc.codegen.cuda.nest import Points
from graphc.codegen.cuda.schedule import grid_axes
from graphc.errors import CompileError
from graphc.kernel.expr import loads
from graphc.kernel.form import Accumulate, Axis, Kernel, Stage
from graphc.kernel.scope import StageScope


class Blocks(Points):
    """A block for each point of the kernel's space, the threads of which share out what is inside."""

    def __init__(self, kernel: Kernel, context: Context, threads: int) -> None:
        super().__init__(kernel, context)
        if threads & (threads - 1):
            raise CompileError(f"a block that reduces has a power of two of threads, not {threads}")
        self.threads = threads
        self.thread = context.names.fresh("worker")
        self.written = {store.operand for stage in kernel.stages for store in stage.stores}

    def write(self) -> None:
        """The loop over blocks with everything in it."""
        stages = list(zip(self.kernel.stages, self.scopes, strict=True))
        buffers = [self._buffers(stage, visible) for stage, visible in stages]
        self.source.line(f"{self.thread} = cuda.threadIdx.x")
        shared = grid_axes(self.kernel)
        with self._blocks(shared), self.plain_loops([axis for axis in self.kernel.space if axis not in shared]):
            scope = Scope(self.context)
            for number, ((stage, visible), parts) in enumerate(zip(stages, buffers, strict=True), start=1):
                self.count(stage)
                self._stage(stage, visible, scope, parts)
                if stage.stores and number < len(stages):
                    scope.values.clear()  # what follows may read what this stage has stored
                    self.source.line("cuda.syncthreads()")

    @contextmanager
    def _blocks(self, axes: Sequence[Axis]) -> Iterator[None]:
        if axes:
            with self.shared_loop(axes, "cuda.blockIdx.x", "cuda.gridDim.x"):
                yield
        else:
            with self.source.block("if cuda.blockIdx.x == 0:"):
                yield

    def _buffers(self, stage: Stage, visible: StageScope) -> list[list[str]]:
        """Shared memory for the accumulators of a stage that the whole block reduces, one element a thread."""
        found = []
        for accumulate in stage.accumulates if stage.reduce and not stage.space else ():
            names = [self.context.names.fresh(f"{name}_parts") for name in accumulate.names]
            for name, buffer in zip(accumulate.names, names, strict=True):
                dtype = NUMBA[visible.names[name]]
                self.source.line(f"{buffer} = cuda.shared.array({self.threads}, {dtype})")
            found.append(names)
        return found

    def _stage(self, stage: Stage, visible: StageScope, scope: Scope, buffers: list[list[str]]) -> None:
        if stage.space:
            leading = [axis for axis in stage.space if axis.extent is not None and not axis.sequential]
            with self.shared_loop(leading, self.thread, str(self.threads)) if leading else self._first_thread():
                with self.plain_loops([axis for axis in stage.space if axis not in leading]):
                    self.point(stage, visible, scope.inner())
            return
        if stage.reduce:
            self._reduce(stage, visible, scope, buffers)
        else:
            self.bind_once(stage, scope)
        self.lets(stage.results, scope)
        if stage.stores:
            if self._reads_what_is_written(stage):
                self.source.line("cuda.syncthreads()")  # all threads have read before one writes
            with self._first_thread():
                self.stores(stage.stores, scope.inner())

    @contextmanager
    def _first_thread(self) -> Iterator[None]:
        with self.source.block(f"if {self.thread} == 0:"):
            yield

    def _reads_what_is_written(self, stage: Stage) -> bool:
        return any(load.operand in self.written for expr in stage.expressions() for load in loads(expr))

    def _reduce(self, stage: Stage, visible: StageScope, scope: Scope, buffers: list[list[str]]) -> None:
        """Each thread its share; then half of the threads add the other half's sums to theirs, and half of those."""
        accumulators = self.start(stage, visible)
        shared = [axis for axis in stage.reduce if axis.extent is not None]
        around = [axis for axis in stage.reduce if axis.extent is None]
        with self.shared_loop(shared, self.thread, str(self.threads)) if shared else self._first_thread():
            with self.plain_loops(around):
                self.accumulate(stage, accumulators, scope.inner())
        for accumulate, values, names in zip(stage.accumulates, accumulators, buffers, strict=True):
            self._fold(accumulate, values, names)
        self.bind(stage, accumulators, scope)

    def _fold(self, accumulate: Accumulate, values: Sequence[Value], buffers: Sequence[str]) -> None:
        line, thread, span = self.source.line, self.thread, self.context.names.fresh("span")
        for value, buffer in zip(values, buffers, strict=True):
            line(f"{buffer}[{thread}] = {value.text}")
        line("cuda.syncthreads()")
        line(f"{span} = {self.threads // 2}")
        with self.source.block(f"while {span} > 0:"):
            with self.source.block(f"if {thread} < {span}:"):
                pairs = list(zip(values, buffers, strict=True))
                left = [Value(f"{buffer}[{thread}]", value.dtype) for value, buffer in pairs]
                right = [Value(f"{buffer}[{thread} + {span}]", value.dtype) for value, buffer in pairs]
                for buffer, text in zip(buffers, self.combined(accumulate.combiner, left, right), strict=True):
                    line(f"{buffer}[{thread}] = {text}")
            line("cuda.syncthreads()")
            line(f"{span} //= 2")
        for value, buffer in zip(values, buffers, strict=True):
            line(f"{value.text} = {buffer}[0]")
        line("cuda.syncthreads()")  # before the next point fills the buffers again
