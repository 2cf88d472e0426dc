"""Kernel source for numba.cuda to PTX, and what ptxas says of it. Neither needs a GPU; both need the extra `cuda`."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import math
import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphc.codegen.cuda.emit import function_name
from graphc.codegen.cuda.expressions import NUMBA
from graphc.errors import CompileError
from graphc.ir.types import DType
from graphc.kernel.form import Kernel

COMPUTE_CAPABILITY = (9, 0)
EXTRA = "the target 'cuda' needs the extra of that name: pip install 'graphc[cuda]'"


def available() -> bool:
    """Whether numba-cuda is installed; a GPU is not asked for."""
    return importlib.util.find_spec("numba_cuda") is not None


def namespace() -> dict[str, Any]:
    """The globals of kernel source. Raises CompileError if the extra is not installed."""
    if not available():
        raise CompileError(EXTRA)
    from numba import cuda, types

    return {"cuda": cuda, "math": math} | {name: getattr(types, name) for name in NUMBA.values()}


def python_function(kernel: Kernel, source: str) -> Callable[..., Any]:
    """The kernel as a Python function: for the compiler, and for numba.cuda's simulator."""
    found = namespace()
    exec(compile(source, f"<graphc cuda kernel {kernel.name}>", "exec"), found)
    return found[function_name(kernel)]  # type: ignore[no-any-return]


def argument_types(kernel: Kernel) -> tuple[Any, ...]:
    """Numba's types of the arguments: a pointer for each operand, an int32 for each runtime count."""
    from numba import types

    def pointer(dtype: DType) -> Any:
        return types.CPointer(getattr(types, NUMBA[dtype]))

    return (*(pointer(o.dtype) for o in kernel.operands), *[types.int32] * len(kernel.runtime_extents))


def compile_ptx(kernel: Kernel, source: str, capability: tuple[int, int] = COMPUTE_CAPABILITY) -> str:
    """The PTX text of a kernel's source for a compute capability.

    Raises CompileError if the extra is not installed, or numba.cuda refuses the source.
    """
    function = python_function(kernel, source)
    from numba import cuda
    from numba.core.errors import NumbaError

    try:
        ptx, _ = cuda.compile_ptx(function, argument_types(kernel), cc=capability)
    except (NumbaError, RuntimeError) as error:
        raise CompileError(f"kernel {kernel.name} does not compile for CUDA: {error}") from error
    return str(ptx)


@dataclass(frozen=True)
class Resources:
    """What ptxas allots: to a thread registers, bytes spilled and bytes of local arrays; to a block shared bytes."""

    registers: int
    spilled: int
    stack: int
    shared: int


def resources(ptx: str, capability: tuple[int, int] = COMPUTE_CAPABILITY) -> Resources | None:
    """The report of ptxas on a PTX text, or None where ptxas is not installed (it comes with the extra)."""
    assembler = _assembler()
    if assembler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx, encoding="utf-8")
        command = [str(assembler), "-v", f"-arch=sm_{capability[0]}{capability[1]}", str(path), "-o", f"{path}.cubin"]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise CompileError(f"ptxas refuses the kernel: {done.stderr.strip()}")
    said = done.stderr + done.stdout

    def figure(pattern: str) -> int:
        return sum(map(int, re.findall(pattern, said)))

    return Resources(figure(r"Used (\d+) registers"), figure(r"(\d+) bytes spill stores"),
                     figure(r"(\d+) bytes stack frame"), figure(r"(\d+) bytes smem"))  # fmt: skip


@functools.cache
def _assembler() -> Path | None:
    """ptxas, as the wheel of nvcc brings it."""
    try:
        files = importlib.metadata.files("nvidia-cuda-nvcc") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.name in ("ptxas", "ptxas.exe")), None)
