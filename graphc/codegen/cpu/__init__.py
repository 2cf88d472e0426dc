"""CPU source of kernels: `emit(kernel, schedule, host) -> str`."""

from __future__ import annotations

from graphc.codegen.cpu.emit import emit

__all__ = ["emit"]
