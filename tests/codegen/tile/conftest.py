"""Compile kernel source, load the object as the runtime does, and call it."""

from __future__ import annotations

import ctypes
import textwrap
from collections.abc import Callable

import llvmlite.binding as llvm
import numpy as np
import pytest

from graphc.codegen.machine import MachineCode, compile_source

Run = Callable[..., MachineCode]


def load(code: MachineCode) -> Callable[..., None]:
    """The kernel's C entry point as a Python callable of arrays."""
    target = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code.object_bytes))
    engine.finalize_object()
    entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(
        engine.get_function_address(code.symbol))

    def call(*arrays: np.ndarray, thread: int = 0, threads: int = 1) -> None:
        assert engine is not None  # keeps the machine code alive
        addresses = np.array([array.ctypes.data for array in arrays], np.int64)
        entry(addresses.ctypes.data, thread, threads)

    return call


@pytest.fixture
def run() -> Run:
    """run(body, *arrays): `body` is a kernel's body; operands are bound to p0, p1, ... by the arrays' dtypes."""
    letters = {"float32": "f32", "float64": "f64", "int32": "i32", "int64": "i64", "uint8": "u8", "bool": "bool"}

    def run_body(body: str, *arrays: np.ndarray) -> MachineCode:
        lines = [f"p{i} = operand_{letters[a.dtype.name]}(args, {i})" for i, a in enumerate(arrays)]
        source = "def kernel(args, thread, threads):\n" + textwrap.indent(
            "\n".join(lines) + "\n" + textwrap.dedent(body).strip("\n") + "\n", "    ")
        code = compile_source(source, "kernel")
        load(code)(*arrays)
        return code

    return run_body


@pytest.fixture
def kernel_loader() -> Callable[[MachineCode], Callable[..., None]]:
    """The function that makes a MachineCode callable."""
    return load
