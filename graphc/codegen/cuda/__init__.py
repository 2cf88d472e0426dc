"""The CUDA target in view: kernel forms as readable Python for numba.cuda, to PTX and in its simulator."""

from graphc.codegen.cuda.emit import emit
from graphc.codegen.cuda.schedule import GridSchedule, choose, launch

__all__ = ["GridSchedule", "choose", "emit", "launch"]
