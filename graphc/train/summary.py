"""The table that `model.summary()` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from graphc.dsl.variables import Param, Variable
from graphc.ir.dims import Dim, format_shape


class Tree(Protocol):
    """A module, as far as a summary needs to know it."""

    def named_modules(self) -> list[tuple[str, Any]]:
        """The modules with their paths."""

    def named_variables(self) -> list[tuple[str, Variable]]:
        """Parameters and state with their paths."""


def summary_table(model: Tree, shapes: Mapping[Any, Sequence[tuple[Dim, ...]]]) -> str:
    """Path, kind, output shape (where `shapes` knows it) and number of own parameters of each module, and totals."""
    rows = [("layer", "kind", "output", "parameters")]
    counted: set[Variable] = set()
    for path, module in model.named_modules():
        own = [v for v in vars(module).values() if isinstance(v, Param) and v not in counted]
        counted.update(own)
        output = " ".join(format_shape(shape) for shape in shapes.get(module, ()))
        rows.append((path or "(model)", type(module).__name__, output or "?", f"{_elements(own):,}"))
    variables = [v for _, v in model.named_variables()]
    parameters = [v for v in variables if isinstance(v, Param)]
    state = [v for v in variables if not isinstance(v, Param)]
    widths = [max(len(row[k]) for row in rows) for k in range(4)]
    lines = [
        "  ".join([*(c.ljust(w) for c, w in zip(row[:3], widths, strict=False)), row[3].rjust(widths[3])])
        for row in rows
    ]
    lines.insert(1, "-" * len(lines[0]))
    nbytes = sum(int(str(v.type.nbytes)) for v in variables)
    lines += [lines[1], f"parameters: {_elements(parameters):,}   state: {_elements(state):,}   bytes: {nbytes:,}"]
    return "\n".join(line.rstrip() for line in lines)


def _elements(variables: Sequence[Variable]) -> int:
    return sum(int(str(v.size)) for v in variables)
