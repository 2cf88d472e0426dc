"""Kernels written in LLVM assembly: what a code generator would hand to the runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphc.ir.buffers import Elements, aligned_copy
from graphc.runtime.executable import Executable
from graphc.runtime.loader import assemble

# A loop over i < count (an i64 in scope) around a body in which %i is known.
LOOP = """
  br label %check
check:
  %i = phi i64 [ 0, %entry ], [ %i.next, %body ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %body, label %done
body:
  {body}
  %i.next = add i64 %i, 1
  br label %check
done:
"""
KERNEL = "define void @{name}(ptr %args, i64 %thread, i64 %threads) {{\nentry:\n{text}\n  ret void\n}}\n"


def argument(name: str, place: int) -> str:
    """Load the address at a place of args."""
    return f"  %{name}.at = getelementptr i64, ptr %args, i64 {place}\n  %{name} = load ptr, ptr %{name}.at\n"


DOUBLE = (  # y[i] = 2 * x[i] for i < 3 * N
    argument("x", 0) + argument("y", 1) + argument("n", 2) + "  %rows = load i64, ptr %n\n  %count = mul i64 %rows, 3"
    + LOOP.format(body="""%from = getelementptr float, ptr %x, i64 %i
  %to = getelementptr float, ptr %y, i64 %i
  %old = load float, ptr %from
  %new = fmul float %old, 2.0
  store float %new, ptr %to""")
)
MEAN = (  # m = sum of x[i] for i < 3 * N, over 3 * N
    argument("x", 0) + argument("m", 1) + argument("n", 2)
    + "  %rows = load i64, ptr %n\n  %count = mul i64 %rows, 3\n  store float 0.0, ptr %m"
    + LOOP.format(body="""%from = getelementptr float, ptr %x, i64 %i
  %old = load float, ptr %from
  %sum = load float, ptr %m
  %new = fadd float %sum, %old
  store float %new, ptr %m""")
    + """
  %total = load float, ptr %m
  %size = sitofp i64 %count to float
  %mean = fdiv float %total, %size
  store float %mean, ptr %m"""
)
SUBTRACT = (  # w[i] -= g[i] for i < 4
    argument("w", 0) + argument("g", 1) + "  %count = add i64 0, 4"
    + LOOP.format(body="""%w.i = getelementptr float, ptr %w, i64 %i
  %g.i = getelementptr float, ptr %g, i64 %i
  %old = load float, ptr %w.i
  %step = load float, ptr %g.i
  %new = fsub float %old, %step
  store float %new, ptr %w.i""")
)
SPIN = argument("w", 0) + "  %count = add i64 0, 3000000" + LOOP.format(body="store volatile i64 %i, ptr %w")
ADD_ONE = argument("w", 0) + "  %old = load i64, ptr %w\n  %new = add i64 %old, 1\n  store i64 %new, ptr %w"
COPY2 = (  # y = x, i64[2]
    argument("x", 0) + argument("y", 1)
    + "  %two = load <2 x i64>, ptr %x, align 8\n  store <2 x i64> %two, ptr %y, align 8"
)
INDEX = (  # y[0] = 100 * first loop index + second loop index
    argument("y", 0) + argument("a", 1) + argument("b", 2) + """  %a.value = load i64, ptr %a
  %b.value = load i64, ptr %b
  %scaled = mul i64 %a.value, 100
  %sum = add i64 %scaled, %b.value
  store i64 %sum, ptr %y"""
)
BELOW = argument("a", 0) + argument("b", 1) + argument("y", 2) + """  %a.value = load i64, ptr %a
  %b.value = load i64, ptr %b
  %below = icmp slt i64 %a.value, %b.value
  %byte = zext i1 %below to i8
  store i8 %byte, ptr %y"""  # y[0] = a[0] < b[0]
THREAD = (  # y[thread] = threads
    argument("y", 0) + "  %to = getelementptr i64, ptr %y, i64 %thread\n  store i64 %threads, ptr %to"
)
EXP = argument("x", 0) + argument("y", 1) + """  %old = load float, ptr %x
  %new = call float @expf(float %old)
  store float %new, ptr %y"""

TEXTS = {"double": DOUBLE, "mean": MEAN, "subtract": SUBTRACT, "spin": SPIN, "add_one": ADD_ONE, "copy2": COPY2,
         "index": INDEX, "below": BELOW, "thread": THREAD, "nothing": "", "exp": EXP}


@pytest.fixture(scope="session")
def objects() -> dict[str, bytes]:
    """Object files by kernel symbol."""
    declarations = {"exp": "declare float @expf(float)"}
    return {name: assemble(KERNEL.format(name=name, text=text) + declarations.get(name, ""))
            for name, text in TEXTS.items()}


@pytest.fixture
def variable() -> Callable[[Any, str], Elements]:
    """Makes a variable from an array-like and a dtype."""
    return lambda values, dtype: Elements(aligned_copy(np.array(values, dtype)))


@pytest.fixture
def executable(objects: dict[str, bytes]) -> Callable[..., Executable]:
    """Makes an executable from a plan, with the kernels of this file."""
    def make(plan: Any, variables: Any = None, constants: Any = None, seed: int = 0) -> Executable:
        return Executable(plan, objects, variables or {}, constants or {}, seed)

    return make
