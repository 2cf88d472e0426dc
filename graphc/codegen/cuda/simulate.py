"""Running generated CUDA kernels in numba.cuda's simulator: one Python thread for each of theirs, tiny shapes only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc.codegen.cuda.compile import python_function
from graphc.codegen.cuda.schedule import GridSchedule, launch
from graphc.ir.dims import evaluate
from graphc.kernel.form import Kernel


def simulate(
    kernel: Kernel, schedule: GridSchedule, source: str, inputs: Mapping[str, Any], counts: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """The outputs of a kernel at their exact shapes, by name; buffers have their capacity, as on a device.

    Raises CompileError if the extra `cuda` is not installed.
    """
    function = python_function(kernel, source)
    from numba.cuda.simulator.kernel import FakeCUDAKernel

    buffers, views = [], {}
    for operand in kernel.operands:
        dtype = np.uint8 if operand.dtype.kind == "b" else operand.dtype.numpy
        whole = np.zeros(tuple(evaluate(d, kernel.capacities) for d in operand.shape), dtype)
        exact: tuple[Any, ...] = (*(slice(evaluate(d, counts)) for d in operand.shape), ...)  # a view, even of shape ()
        if operand.role != "out":
            whole[exact] = inputs[operand.name]
        buffers.append(whole.reshape(-1))
        views[operand.name] = whole[exact]
    blocks, threads = launch(kernel, schedule, counts)
    FakeCUDAKernel(function, False)[blocks, threads](*buffers, *(counts[n] for n in kernel.runtime_extents))
    return {o.name: views[o.name].astype(o.dtype.numpy) for o in kernel.outputs}
