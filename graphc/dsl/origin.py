"""Where a node is declared: the module being traced, and the user's file and line.

The line is that of the innermost frame outside this package. While `nn` traces a model, layers of this package are
run from inside `fit`, a line that says nothing about the layer; frames beyond the traced call are then left out, and
a layer that no user code called has the line where it was constructed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from types import CodeType, FrameType
from typing import Any

from graphc.ir.graph import Origin

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_DECLARING = tuple(_PACKAGE + folder + os.sep for folder in ("models", "inspect"))  # declare as a user does


@dataclass(frozen=True)
class Tracing:
    """What is being traced: the module's path, where it was constructed, and the function that runs the trace.

    `session` is what the tracer wants to find again deeper down (the nn layer keeps train/eval and state updates in
    it); the DSL does not look into it.
    """

    module: str = ""
    constructed: Origin = Origin()
    boundary: CodeType | None = None
    session: Any = None


_OUTSIDE = Tracing()
_TRACING: ContextVar[Tracing] = ContextVar("graphc_tracing", default=_OUTSIDE)


def tracing() -> Tracing:
    """What is being traced in this thread or task; empty outside modules."""
    return _TRACING.get()


@contextmanager
def trace(**changes: Any) -> Iterator[Tracing]:
    """Change the fields of `Tracing` inside the `with` block."""
    inner = replace(_TRACING.get(), **changes)
    token = _TRACING.set(inner)
    try:
        yield inner
    finally:
        _TRACING.reset(token)


def here() -> Origin:
    """The origin of what is declared now. Files are given by their base name, so that dumps are the same anywhere."""
    current = _TRACING.get()
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code is current.boundary:
            return Origin(current.module, current.constructed.file, current.constructed.line)
        if not code.co_filename.startswith(_PACKAGE) or code.co_filename.startswith(_DECLARING):
            return Origin(current.module, os.path.basename(code.co_filename), frame.f_lineno)
        frame = frame.f_back
    return Origin(current.module)
