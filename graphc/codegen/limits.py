"""What no program may exceed: sizes that 64-bit indices count, and draws that the random generator tells apart."""

from __future__ import annotations

from graphc.errors import CompileError, MemoryLimitError
from graphc.ir.buffers import format_bytes
from graphc.ir.dims import evaluate, product
from graphc.kernel.expr import Apply, walk
from graphc.kernel.form import Kernel
from graphc.kernel.philox import ELEMENT_LIMIT
from graphc.kernel.plan import Plan
from graphc.kernel.plan_text import largest

LARGEST_INDEX = 2**63 - 1


def check_sizes(plan: Plan) -> None:
    """Raises MemoryLimitError, naming the largest values, where one of them or all together have too many bytes."""
    total = max([plan.arena_bytes, *(b.nbytes for b in plan.buffers)], default=0)
    if total > LARGEST_INDEX:
        raise MemoryLimitError(
            f"program {plan.name!r} needs {format_bytes(total)}, more than 64-bit indices count; "
            f"its largest values are {', '.join(largest(plan.buffers))}"
        )


def check_points(kernel: Kernel) -> None:
    """Raises CompileError for a kernel with more points than indices count, or random draws than have counters."""
    limit = ELEMENT_LIMIT["float32"]
    for stage in kernel.stages:
        extents = [axis.extent for axis in (*kernel.space, *stage.space, *stage.reduce)]
        points = evaluate(product(e for e in extents if e is not None), kernel.capacities)
        if points > LARGEST_INDEX:
            raise CompileError(f"kernel {kernel.name!r} has {points} points, more than 64-bit indices count")
        draws = any(isinstance(e, Apply) and e.primitive == "uniform" for top in stage.expressions() for e in walk(top))
        if draws and points > limit:
            raise CompileError(
                f"kernel {kernel.name!r} draws {points} random numbers at once, of which only {limit} "
                "can differ; draw them in several tensors"
            )
