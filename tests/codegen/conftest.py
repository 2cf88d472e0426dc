"""Compiles kernels, runs their machine code on guarded buffers and compares with the kernel interpreter."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest

from graphc.codegen.analysis import size_in_memory, strides
from graphc.codegen.choose import choose
from graphc.codegen.cpu import emit
from graphc.codegen.host import host
from graphc.codegen.machine import compile_source
from graphc.ir.dims import evaluate
from graphc.kernel import interpret
from graphc.kernel.form import Kernel, Operand
from graphc.kernel.parser import parse_kernel
from graphc.kernel.schedule import Schedule
from graphc.kernel.verify import verify

MARGIN = 64  # elements before and after every buffer that no kernel may touch


def _rubbish(operand: Operand) -> Any:
    if operand.dtype.is_float:
        return np.nan
    return True if operand.dtype.kind == "b" else np.iinfo(operand.dtype.numpy).max


@dataclass
class CompiledKernel:
    """A kernel with its schedule, source and entry point. `engine` keeps the code alive."""

    form: Kernel
    schedule: Schedule
    source: str
    entry: Callable[..., None]
    engine: Any

    def run(self, inputs: Mapping[str, Any], counts: Mapping[str, int], threads: int = 1) -> dict[str, Any]:
        """Outputs at their exact shapes. Buffers have their capacity, rubbish behind the counts, and margins."""
        form, buffers, margins = self.form, {}, []
        for operand in form.operands:
            capacity = tuple(evaluate(dim, form.capacities) for dim in operand.shape)
            exact = tuple(slice(evaluate(d, counts)) for d in operand.shape)
            size = size_in_memory(operand, form.capacities)
            whole = np.full(size + 2 * MARGIN, _rubbish(operand), operand.dtype.numpy)
            steps = [step * whole.itemsize for step in strides(operand, form.capacities)]
            buffer = np.lib.stride_tricks.as_strided(whole[MARGIN : MARGIN + size], capacity, steps)
            if operand.role != "out":
                buffer[exact] = inputs[operand.name]
            buffers[operand.name] = (buffer, exact)
            margins.append((operand, whole))
        sizes = [np.array([counts[name]], np.int64) for name in form.runtime_extents]
        addresses = np.array([b.ctypes.data for b, _ in buffers.values()] + [s.ctypes.data for s in sizes], np.int64)
        for thread in range(threads):
            self.entry(addresses.ctypes.data, thread, threads)
        for operand, whole in margins:
            rubbish = np.array(_rubbish(operand), operand.dtype.numpy)
            edges = np.concatenate([whole[:MARGIN], whole[len(whole) - MARGIN :]])
            np.testing.assert_array_equal(edges, rubbish, err_msg=f"{operand.name}: written outside its buffer")
        return {o.name: buffers[o.name][0][buffers[o.name][1]] for o in form.outputs}

    def check(self, inputs: Mapping[str, Any], counts: Mapping[str, int] | None = None, *, rtol: float = 2e-5,
              atol: float = 2e-5, threads: Sequence[int] = (1, 3)) -> dict[str, Any]:  # fmt: skip
        """Compare with the interpreter; every number of threads must give the same bits."""
        counts = dict(counts or {})
        wanted = interpret.run(self.form, inputs, counts, float64=True)
        first: dict[str, Any] | None = None
        for number in threads:
            found = self.run(inputs, counts, number)
            for name, value in found.items():
                message = f"{name}, {counts}, {number} threads\n{self.source}"
                np.testing.assert_allclose(value, wanted[name], rtol=rtol, atol=atol, err_msg=message)
                if first is not None:
                    np.testing.assert_array_equal(value, first[name], err_msg=message, strict=True)
            first = first or found
        assert first is not None
        return first


def build(kernel: Kernel | str, schedule: Schedule | None = None, *, verified: bool = True,
          through_numba: bool = False) -> CompiledKernel:  # fmt: skip
    """Compile a kernel (or its text) under the default or a given schedule, by either front end."""
    form = parse_kernel(kernel) if isinstance(kernel, str) else kernel
    if verified:
        verify(form)
    chosen = schedule or choose(form, host())
    source = emit(form, chosen, host())
    return CompiledKernel(form, chosen, source, *_linked(source, form.name, through_numba))


def _linked(source: str, name: str, through_numba: bool = False) -> tuple[Callable[..., None], Any]:
    """The entry point of kernel source, and the engine that keeps its code alive."""
    code = compile_source(source, name, through_numba=through_numba)
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(codemodel="jitdefault", jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code.object_bytes))
    engine.finalize_object()
    signature = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    return signature(engine.get_function_address(code.symbol)), engine


@pytest.fixture(scope="session", name="build")
def _build() -> Callable[..., CompiledKernel]:
    return build


@pytest.fixture(name="link")
def _link() -> Iterator[Callable[[str, str], Callable[..., None]]]:
    """Kernel source and its name to an entry point that lives as long as the test."""
    engines = []

    def link(source: str, name: str) -> Callable[..., None]:
        entry, engine = _linked(source, name)
        engines.append(engine)
        return entry

    yield link
