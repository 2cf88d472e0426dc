"""The ops, by family. Importing this package enters them all into the registry `graphc.ir.op.OPS`."""

from __future__ import annotations

from graphc.ops import contraction, control, elementwise, indexing, loss, random, reduction, shape

__all__ = ["contraction", "control", "elementwise", "indexing", "loss", "random", "reduction", "shape"]
