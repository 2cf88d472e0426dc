"""Circuits as text: a tree from the result down to the inputs, one line a wire."""

from __future__ import annotations

from graphc.inspect.circuit_model import DONE, MOST, NO_GRADIENT, PARTIAL, Edge, Sketch, Wire, number_text

_PLAIN = str.maketrans({"∂": "d", "·": "*", "×": "x", "−": "-", "÷": "/", "σ": "sigmoid", "Σ": "sum", "ᵀ": ".T",
                        "²": "^2", "…": "..."})  # fmt: skip
_FANCY = ("├─ ", "└─ ", "│  ", "   ")
_ASCII = ("|- ", "`- ", "|  ", "   ")


def tree_text(sketch: Sketch, digits: int = 3, ascii: bool = False) -> str:
    """The circuit as lines: the wire and how it is made, its value and gradient, and the local derivative on its edge.

    A wire that several gates read is opened where it is first met and only named after that.
    """
    rows: list[tuple[str, str, str, str]] = []
    opened: set[int] = set()

    def walk(wire: int, edge: Edge | None, head: str, below: str) -> None:
        here = sketch.wires[wire]
        rows.append((head + _title(here, wire in opened), number_text(here.value, digits), gradient_text(here, digits),
                     "" if edge is None else edge_text(sketch, edge, digits)))  # fmt: skip
        if wire in opened or here.gate is None:
            return
        opened.add(wire)
        edges = sketch.gates[here.gate].inputs
        for k, each in enumerate(edges):
            last = k == len(edges) - 1
            walk(each.wire, each, below + marks[1 if last else 0], below + marks[3 if last else 2])

    marks = _ASCII if ascii else _FANCY
    for output in sketch.outputs:
        walk(output, None, "", "")
    head = ("wire", "value", f"gradient of {sketch.seed}", "local derivative")
    lines = _columns([head, *rows])
    if sketch.caption:
        lines += ["", sketch.caption]
    text = "\n".join(lines)
    return text.translate(_PLAIN) if ascii else text


def _title(wire: Wire, again: bool) -> str:
    if wire.formula:
        return f"{wire.name}  (above)" if again else f"{wire.name} = {wire.formula}"
    return wire.name if wire.kind in ("input", "value") else f"{wire.name}  ({wire.kind})"


def gradient_text(wire: Wire, digits: int = 3, most: int = MOST) -> str:
    """The gradient, `not computed`, `no gradient`, or what has arrived so far: `2 + ...`."""
    if wire.status == PARTIAL:
        return f"{number_text(wire.gradient, digits, most)} + …"
    return number_text(wire.gradient, digits, most) if wire.status == DONE else wire.status


def edge_text(sketch: Sketch, edge: Edge, digits: int = 3) -> str:
    """`∂q/∂x = y = 5`; the share of the gradient too where several gates read the wire."""
    text = derivative_text(edge, digits)
    return f"{text}; {shared}" if (shared := share_text(sketch, edge, digits)) else text


def derivative_text(edge: Edge, digits: int = 3, most: int = MOST) -> str:
    """Symbol and number of a local derivative; once if they are the same."""
    known = "" if edge.number is None else number_text(edge.number, digits, most)
    if edge.symbol.startswith("none"):
        return NO_GRADIENT
    if not edge.elementwise and known:
        return f"{edge.label} = {edge.symbol}, Jacobian {known}"
    return f"{edge.label} = {edge.symbol}" + (f" = {known}" if known and known != edge.symbol else "")


def share_text(sketch: Sketch, edge: Edge, digits: int = 3, most: int = MOST) -> str:
    """What this gate adds to the gradient of a wire that several gates read; else nothing."""
    if edge.share is None or len(sketch.readers(edge.wire)) < 2:
        return ""
    return f"adds {number_text(edge.share, digits, most)}"


def _columns(rows: list[tuple[str, str, str, str]]) -> list[str]:
    widths = [max(len(row[k]) for row in rows) for k in range(3)]
    return ["   ".join([row[0].ljust(widths[0]), row[1].rjust(widths[1]), row[2].rjust(widths[2]), row[3]]).rstrip()
            for row in rows]  # fmt: skip
