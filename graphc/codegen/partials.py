"""By-products in parallel: a store through partials becomes a kernel that fills them, and one that adds them up.

`split_byproducts` makes the buffer of partial results an operand, so that chunks can run on different threads while
their number, and with it every bit of the result, stays that of the form.
"""

from __future__ import annotations

from dataclasses import replace

from graphc.errors import CompileError
from graphc.ir.dims import Dim, Poly, evaluate
from graphc.ir.types import DType, bool_, f32
from graphc.kernel.combiners import COMBINERS
from graphc.kernel.expr import Affine, Expr, Load, Name
from graphc.kernel.form import Accumulate, Axis, Kernel, Operand, Stage, Store, partial_axis

__all__ = ["split_byproducts"]
