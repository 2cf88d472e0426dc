"""Every op of the registry as CUDA source, and (slow) its samples in the simulator against the kernel interpreter."""

from __future__ import annotations

import importlib.util
import warnings

import numpy as np
import pytest

import graphc.ops  # noqa: F401  (fills the registry)
from graphc.codegen.cuda import GridSchedule, choose, emit
from graphc.errors import CompileError
from graphc.ir.builder import Builder
from graphc.ir.graph import Value
from graphc.ir.op import OPS, Op, Sample
from graphc.ir.types import TensorType, as_dtype
from graphc.kernel import interpret
from graphc.kernel.form import Kernel

CASES = [
    pytest.param(op, sample, id=f"{op.name}-{k}")
    for op in OPS.values()
    if not op.expanded and not op.nested and op.samples
    for k, sample in enumerate(op.samples())
]
SMALL = {"map": GridSchedule("map", (4, 1)), "reduce": GridSchedule("reduce", (4, 1)),
         "contract": GridSchedule("contract", (2, 2), (4, 4), 4)}  # fmt: skip
LARGEST = 300  # points that the simulator is asked to compute


def lowered(op: Op, sample: Sample) -> tuple[Kernel, dict[str, np.ndarray]]:
    """The kernel of a sample, and its inputs; float64 samples as float32."""
    arrays = [np.asarray(a) for a in sample.inputs]
    arrays = [a.astype(np.float32) if a.dtype == np.float64 else a for a in arrays]
    inputs = [Value(TensorType(as_dtype(a.dtype), a.shape), name=f"x{k}") for k, a in enumerate(arrays)]
    found = Builder().apply(op, inputs, dict(sample.attributes))
    node = (found[0] if isinstance(found, tuple) else found).producer
    assert node is not None
    kernel = op.lower(node)
    return kernel, {o.name: a for o, a in zip(kernel.inputs, arrays, strict=False)}


@pytest.mark.parametrize(("op", "sample"), CASES)
def test_source_or_a_reason(op: Op, sample: Sample) -> None:
    kernel, _ = lowered(op, sample)
    try:
        source = emit(kernel, choose(kernel))
    except CompileError as error:
        assert "has no CUDA code yet" in str(error)
    else:
        compile(source, "<kernel>", "exec")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("numba_cuda") is None, reason="needs the extra 'cuda' (numba-cuda)")
@pytest.mark.parametrize(("op", "sample"), CASES)
def test_samples_in_the_simulator(op: Op, sample: Sample) -> None:
    from graphc.codegen.cuda.simulate import simulate

    kernel, inputs = lowered(op, sample)
    if len(inputs) != len(kernel.inputs) or sum(a.size for a in inputs.values()) > LARGEST:
        pytest.skip("the sample does not give all operands, or has more elements than can be simulated in time")
    try:
        schedule = SMALL[choose(kernel).kind]
        source = emit(kernel, schedule)
    except CompileError as error:
        pytest.skip(str(error))  # says what the CUDA emitter does not cover
    wanted = interpret.run(kernel, inputs, float64=True)
    if not all(np.isfinite(a).all() for a in (*inputs.values(), *wanted.values()) if a.dtype.kind == "f"):
        pytest.skip("infinity or NaN: the simulator uses Python's math module, which raises there, unlike CUDA")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NumPy warns where an integer wraps around
        found = simulate(kernel, schedule, source, inputs, {})
    for name, value in found.items():
        np.testing.assert_allclose(value, wanted[name], rtol=1e-4, atol=1e-5, err_msg=f"{name}\n{source}")
