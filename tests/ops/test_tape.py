"""Recorded expressions of elementwise ops: they are current, and give exactly what SymPy gives."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import OPS, NotDifferentiable, Op, Sample
from graphc.ir.printer import print_graph
from graphc.ir.types import TensorType, as_dtype, f32, tensor
from graphc.kernel.text import print_kernel
from graphc.ops import scalar, tape

SCALAR_OPS = [op for op in OPS.values() if op.scalar is not None and op.name != "scalar_function"]
CASES = [pytest.param(op, s, id=f"{op.name}-{k}") for op in SCALAR_OPS for k, s in enumerate(op.samples())]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    path = Path(__file__).parent.parent.parent / "tools" / "write_tapes.py"
    spec = importlib.util.spec_from_file_location("write_tapes", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_file_is_current(tool: ModuleType) -> None:
    """Out of date, it is ignored: nothing breaks, but programs compile a quarter of a second longer."""
    assert tape.FILE.read_text(encoding="utf-8") == tool.text(), "run `python tools/write_tapes.py`"


def test_the_digest_covers_every_expression() -> None:
    """An op defined in another file would change without its tape being noticed."""
    modules = set()
    for op in SCALAR_OPS:
        function = op.scalar
        modules.add("scalar.py" if isinstance(function, scalar.Primitive) else _file_of(function))
    assert modules <= set(tape.SOURCES)


def _file_of(function: object) -> str:
    return Path(sys.modules[function.__module__].__file__ or "").name


def _node(op: Op, sample: Sample) -> Node:
    arrays = [np.asarray(array) for array in sample.inputs]
    inputs = [Value(TensorType(as_dtype(a.dtype), a.shape), name=f"x{k}") for k, a in enumerate(arrays)]
    output = Builder().apply(op, inputs, dict(sample.attributes))
    assert isinstance(output, Value) and output.producer
    return output.producer


def _everything(op: Op, sample: Sample) -> tuple[str, str, bytes]:
    """The kernel, the gradient and the value of a sample, as text and bytes."""
    node = _node(op, sample)
    (value,) = op.reference([np.asarray(a) for a in sample.inputs], node.attributes)
    if isinstance(op.gradient, NotDifferentiable):
        return print_kernel(op.lower(node)), "", value.tobytes()
    cotangent = Value(node.output.type, name="g")
    assert callable(op.gradient)
    slopes = [s for s in op.gradient(node, [cotangent], Builder()) if s is not None]
    graph = Graph("slopes", (*node.inputs, cotangent), tuple(slopes))
    return print_kernel(op.lower(node)), print_graph(graph) if slopes else "", value.tobytes()


@pytest.mark.parametrize(("op", "sample"), CASES)
def test_tapes_give_what_sympy_gives(op: Op, sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tape.find(op, op.complete(sample.attributes), "value") is not None
    recorded = _everything(op, sample)
    monkeypatch.setattr(tape, "find", lambda op, attributes, use: None)
    assert recorded == _everything(op, sample)


def test_other_attributes_and_functions_are_left_to_sympy() -> None:
    elu = OPS["elu"]
    assert tape.find(elu, elu.complete({}), "slope0") and not tape.find(elu, {"alpha": 0.75}, "slope0")
    node = Builder().elementwise("elu", Value(tensor("f32", (3,)), name="x"), alpha=0.75).producer
    assert node is not None and "0.75" in print_kernel(elu.lower(node))
    exp = Builder().exp(Value(tensor("f32"), name="x")).producer
    assert exp is not None and scalar.recorded_for(exp, scalar.exp, "kernel")
    assert scalar.recorded_for(exp, scalar.log, "kernel") is None


def test_an_op_of_the_same_name_has_no_tape() -> None:
    assert tape.find(None, {}, "value") is None
    assert tape.find(_renamed(OPS["exp"]), {}, "value") is None


def _renamed(op: Op) -> Op:
    import dataclasses

    return dataclasses.replace(op)


def test_tapes_of_other_sources_are_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stale = tmp_path / "tapes.txt"
    stale.write_text(tape.FILE.read_text(encoding="utf-8").replace("sources ", "sources 0", 1), encoding="utf-8")
    for file in (stale, tmp_path / "missing.txt"):
        monkeypatch.setattr(tape, "FILE", file)
        tape.recorded.cache_clear()
        assert tape.recorded() == {}
    tape.recorded.cache_clear()


def test_a_recorder_writes_what_replay_reads() -> None:
    (x,) = scalar.operand_symbols(1)
    recorder = tape.Recorder()
    written = recorder.tape(scalar.fold_shared(scalar.exp(x) ** 2 + 2.5 * scalar.exp(x), recorder, {x: "x"}))
    assert written == "exp x; let t0 %0; mul %1 %1; constant 2.5; mul %3 %1; add %2 %4 -> %5"
    value = tape.replay(written, scalar.NumpyTarget(f32.numpy), {"x": np.float32(0.0)})
    assert value == np.float32(3.5)
    assert tape.replay("-> x", scalar.NumpyTarget(f32.numpy), {"x": 7}) == 7


def test_compiling_a_network_needs_no_sympy() -> None:
    code = """
import sys
import numpy as np
import graphc as gc
from graphc import nn, optim
model = nn.Sequential(nn.Linear(8, 6), nn.GELU(), nn.Linear(6, 3), nn.Sigmoid())
x, t = gc.input("x", ("N", 8)), gc.input("t", ("N", 3))
loss = gc.mean((model(x) - t) ** 2)
step = gc.compile([x, t], [loss], optim.Adam().updates(loss, model.parameters()), cache=False)
step(np.ones((4, 8), np.float32), np.ones((4, 3), np.float32))
print(sorted({"sympy", "numba", "mpmath"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "[]\n", done.stderr + done.stdout
