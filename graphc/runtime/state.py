"""Variables as the runtime sees them: parameters and state, owned by whoever declared them."""

from __future__ import annotations

import numpy as np

from graphc.errors import StateError
from graphc.ir.buffers import is_aligned
from graphc.ir.types import as_dtype
from graphc.kernel.plan import Buffer


def check_variable(program: str, buffer: Buffer, array: np.ndarray) -> None:
    """Raise StateError unless kernels can work on `array` as the plan's `buffer`: dtype, shape, alignment, writable."""
    where = f"{program}: variable {buffer.name!r}"
    dtype = as_dtype(buffer.dtype)
    if array.dtype != dtype.numpy or array.shape != buffer.shape:
        raise StateError(
            f"{where} holds {array.dtype.name}{list(array.shape)}, but the program was compiled for "
            f"{dtype.numpy_name}{list(buffer.shape)}; compile it again or set a value of that type"
        )
    if not is_aligned(array) or not array.flags.writeable:
        raise StateError(f"{where} is not a writable row-major array at a multiple of 64 bytes; "
                         "allocate it with graphc.ir.buffers.aligned_empty")
