"""A kernel form and a GPU schedule to the source of one kernel for numba.cuda: plain Python that people can read.

Arguments are the operands, flat, then the runtime counts (int32). Truth values lie in bytes.
"""

from __future__ import annotations

from graphc.codegen.cpu.values import Context
from graphc.codegen.cpu.writer import Names, Source
from graphc.codegen.cuda.blocks import Blocks
from graphc.codegen.cuda.contraction import Tiles
from graphc.codegen.cuda.expressions import NUMBA
from graphc.codegen.cuda.nest import Points
from graphc.codegen.cuda.schedule import GridSchedule, check, schedulable
from graphc.errors import CompileError
from graphc.kernel.form import Kernel
from graphc.kernel.text import print_kernel

SCOPE_NAMES = ("cuda", "math", *dict.fromkeys(NUMBA.values()))  # what the source finds in its globals


def emit(kernel: Kernel, schedule: GridSchedule) -> str:
    """Python source with one function of operands and runtime counts, deterministic; see `function_name`.

    Raises CompileError for a form that has no CUDA code yet, and for one that the schedule's kind does not fit.
    """
    check(kernel)
    flat = schedulable(kernel)
    source, names = Source(), Names()
    for name in SCOPE_NAMES:
        names.fresh(name)
    context = Context(source, names, {o.name: o.dtype for o in kernel.operands}, kernel.capacities, lanes=1)
    counts = [names.of("count", symbol) for symbol in kernel.runtime_extents]
    operands = [names.of("operand", operand.name) for operand in kernel.operands]
    for axis in flat.space:
        names.of("axis", axis.name)
    with source.block(f"def {function_name(kernel)}({', '.join([*operands, *counts])}):"):
        text = print_kernel(kernel).replace("\\", "\\\\").replace('"""', "'''").rstrip().splitlines()
        for line in (f'"""{text[0]}', *text[1:], "", f"schedule: {schedule}", '"""'):
            source.line(line)
        _body(flat, schedule, context)
    tables = "".join(f"{name} = {values!r}\n" for values, name in context.tables.items())
    return tables + source.text


def function_name(kernel: Kernel) -> str:
    """What the kernel's function is called: the kernel's name, unless it would hide something that source needs."""
    names = Names()
    for name in SCOPE_NAMES:
        names.fresh(name)
    return names.fresh(kernel.name)


def _body(flat: Kernel, schedule: GridSchedule, context: Context) -> None:
    if schedule.kind == "contract":
        Tiles(flat, context, schedule).write()
    elif schedule.kind == "reduce":
        Blocks(flat, context, schedule.threads[0]).write()
    elif schedule.kind == "map":
        Points(flat, context).write()
    else:
        raise CompileError(f"there is no GPU schedule of kind {schedule.kind!r}")
