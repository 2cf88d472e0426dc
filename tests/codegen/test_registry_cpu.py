"""Every op of the registry, compiled for the CPU, against its NumPy reference: one program for each op."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc.ops  # noqa: F401 - fills the registry
from graphc.codegen.build import build
from graphc.codegen.memory import Signature
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Value
from graphc.ir.op import OPS, Op, Sample
from graphc.ir.types import TensorType, as_dtype
from graphc.runtime.executable import Executable

COMPILED = [name for name, op in OPS.items() if not op.expanded]
TOLERANCES = {"float32": 2e-6, "float64": 1e-12}


def samples_of(op: Op) -> list[Sample]:
    assert op.samples is not None
    return list(op.samples())


def program_of(op: Op, samples: list[Sample]) -> Executable:
    """One program that applies `op` to each of its samples, whose arrays are inputs `s0_0 s0_1 ...`."""
    builder, inputs, outputs = Builder(), [], []
    for k, sample in enumerate(samples):
        values = []
        for i, array in enumerate(sample.inputs):
            type_ = TensorType(as_dtype(np.asarray(array).dtype), np.shape(array))
            values.append(Value(type_, name=f"s{k}_{i}"))
        result = builder.apply(op, values, dict(sample.attributes))
        inputs += values
        outputs += [result] if isinstance(result, Value) else list(result)
    graph = Graph(op.name, tuple(inputs), tuple(outputs))
    built = build(graph, Signature(frozenset(), ()), {}, check=True)
    objects = {kernel.symbol: kernel.machine_code for kernel in built.kernels.values()}
    return Executable(built.plan, objects, {}, built.constants, 0)


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_op_equals_its_reference(name: str) -> None:
    op = OPS[name]
    samples = [s for s in samples_of(op) if not any(np.size(a) == 0 for a in s.inputs)]
    program = program_of(op, samples)
    arrays = {f"s{k}_{i}": np.asarray(a) for k, s in enumerate(samples) for i, a in enumerate(s.inputs)}
    got = program(arrays)
    expected: list[Any] = []
    assert op.reference is not None
    for sample in samples:
        attributes = op.complete(dict(sample.attributes))
        with np.errstate(all="ignore"):
            expected += op.reference([np.asarray(a) for a in sample.inputs], attributes)
    assert len(got) == len(expected)
    for position, (mine, oracle) in enumerate(zip(got, expected, strict=True)):
        oracle = np.asarray(oracle)
        assert mine.shape == oracle.shape, (name, position)
        tolerance = TOLERANCES.get(str(mine.dtype), 0.0)
        message = f"{name}, output {position}"
        np.testing.assert_allclose(mine, oracle, rtol=tolerance, atol=tolerance, err_msg=message, equal_nan=True)
