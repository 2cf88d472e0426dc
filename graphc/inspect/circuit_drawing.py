"""Circuits as SVG. Graphviz, inside the pygraphviz wheel, places gates and routes wires; the picture is drawn here.

A gate or an input is one box for Graphviz: the body with an entry for each operand, and the piece of wire that leaves
it, long enough for the value above and the gradient below. Lengths are in points, y grows downwards.
"""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from xml.sax.saxutils import escape

from graphc.errors import MissingExtraError
from graphc.inspect.circuit_model import DONE, NO_GRADIENT, NOT_COMPUTED, PARTIAL, Edge, Gate, Sketch, Wire, number_text
from graphc.inspect.circuit_text import derivative_text, gradient_text, share_text

SIZE = 14.0  # of the text of values, the other sizes follow
WIDE, SMALL = 0.6, 0.84  # average width of a character, and size of small text, as shares of SIZE
ENTRY = 22.0  # height of an operand's entry at a gate
UNDER = 6  # how far a curve goes on under the round end of a gate
STUB, HEIGHT = 40.0, 46.0  # least length of a wire's piece, and least height of a box
MARGIN, LINE = 14.0, 18.0
FEW, LONGEST = 3, 40  # more elements than FEW are shown as their range; rules of more characters without their number

STYLE = """
text { font-family: "DejaVu Sans", Verdana, Helvetica, Arial, sans-serif; font-size: 14px; fill: #1f2328; }
.wire { fill: none; stroke: #57606a; stroke-width: 1.6; }
.gate { fill: #ffffff; stroke: #1f2328; stroke-width: 1.6; }
.active .gate { fill: #fff3c4; stroke: #b7791f; stroke-width: 2.4; }
.glyph { font-size: 15px; }
.name { font-style: italic; font-weight: bold; }
.made { font-size: 11px; fill: #57606a; }
.value { fill: #116329; }
.gradient { fill: #b31d28; }
.pending { fill: #8c959f; font-size: 11px; font-style: italic; }
.rule { fill: #0550ae; font-size: 12px; }
.small { font-size: 12px; }
.caption, .caption .rule { font-size: 13px; }
"""


def draw(sketch: Sketch, digits: int = 3) -> str:
    """The picture as SVG text. Raises MissingExtraError where pygraphviz is not installed."""
    boxes, labels = _boxes(sketch, digits), _labels(sketch, digits)
    placed = _placed(sketch, boxes, labels)
    foot = _foot(sketch)
    width = max(placed.width, *(_width("".join(text for _, text in line), SMALL) for line in foot)) + 2 * MARGIN
    height = placed.height + 2 * MARGIN + LINE * len(foot) + 8
    body = [*_wires(sketch, placed), *_bodies(sketch, boxes, placed, digits), *_rules(labels, placed)]
    for k, line in enumerate(foot):
        spans = "".join(f'<tspan class="{kind}">{_shown(text)}</tspan>' for kind, text in line)
        body.append(f'<text class="caption" x="0" y="{_n(placed.height + 8 + LINE * (k + 1))}">{spans}</text>')
    inner = "\n".join(body)
    size = f'width="{_n(width)}" height="{_n(height)}" viewBox="0 0 {_n(width)} {_n(height)}"'
    title = escape(f"circuit of {', '.join(sketch.wires[k].name for k in sketch.outputs)}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n<title>{title}</title>\n<style>{STYLE}</style>\n'
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n<g transform="translate({_n(MARGIN)} {_n(MARGIN)})">\n'
        f"{inner}\n</g>\n</svg>\n"
    )


@dataclass(frozen=True)
class Box:
    """A leaf (`gate` None) or a gate with the wires that leave it: widths of body and wire, height, entries."""

    wires: tuple[int, ...]
    gate: int | None
    body: int
    stub: int
    height: float
    entries: int


def _width(text: str, size: float = 1.0) -> float:
    return len(text) * SIZE * WIDE * size


def _boxes(sketch: Sketch, digits: int) -> list[Box]:
    """Leaves and gates in topological order."""
    found, made = [], set()
    for index, wire in enumerate(sketch.wires):
        if wire.gate is None:
            body = max(_width(wire.name), _width(_kind(wire), 0.78)) + 12
            found.append(Box((index,), None, math.ceil(body), _stub(sketch, index, digits), HEIGHT, 0))
        elif wire.gate not in made:
            made.add(wire.gate)
            gate = sketch.gates[wire.gate]
            body = max(2 * ENTRY - 4, _width(gate.glyph) + 18)
            stub = max(_stub(sketch, k, digits) for k in gate.outputs)
            entries = len(gate.inputs)
            height = max(HEIGHT * len(gate.outputs), ENTRY * entries)
            found.append(Box(gate.outputs, wire.gate, math.ceil(body), stub, height, entries))
    return found


def _stub(sketch: Sketch, index: int, digits: int) -> int:
    """The length of a wire's piece: room for its texts, in a frame also for those of other frames."""
    wire = sketch.wires[index]
    small = 1.0 if wire.status in (DONE, PARTIAL) else SMALL
    widths = [_width(_above(wire, digits)), _width(gradient_text(wire, digits, FEW), small)]
    widths += [_width(text, SMALL if text == NOT_COMPUTED else 1.0) for text in sketch.room[index : index + 1]]
    return math.ceil(max(STUB, *(width + 12 for width in widths)))


def _above(wire: Wire, digits: int) -> str:
    """`q = 3`; the value alone for an input, whose name stands before its wire."""
    value = number_text(wire.value, digits, FEW)
    return f"{wire.name} = {value}" if wire.formula else value


def _kind(wire: Wire) -> str:
    return "" if wire.kind in ("input", "value") else wire.kind


Label = tuple[str, str]  # CSS class and text


def _labels(sketch: Sketch, digits: int) -> dict[tuple[int, int], list[Label]]:
    """The lines beside each edge, by gate and position."""
    found: dict[tuple[int, int], list[Label]] = {}
    for g, gate in enumerate(sketch.gates):
        for k, edge in enumerate(gate.inputs):
            text = _rule(edge, gate.op, digits)
            lines = [("pending" if text == NO_GRADIENT else "rule", text)]
            if shared := share_text(sketch, edge, digits, FEW):
                lines.append(("gradient small", shared))
            found[g, k] = lines
    return found


def _rule(edge: Edge, op: str, digits: int) -> str:
    """The local derivative; without its number, then without its symbol, where the text would stretch the picture."""
    if edge.elementwise and len(text := derivative_text(edge, digits, FEW)) <= LONGEST:
        return text
    text = derivative_text(replace(edge, number=None), digits)
    return text if len(text) <= LONGEST else f"{edge.label}: rule of {op}"


@dataclass(frozen=True)
class Placed:
    """Where Graphviz put everything: boxes' centres by first wire, edges' curves and labels by gate and position."""

    width: float
    height: float
    boxes: dict[int, tuple[float, float]]
    curves: dict[tuple[int, int], list[tuple[float, float]]]
    labels: dict[tuple[int, int], tuple[float, float]]


def _placed(sketch: Sketch, boxes: Sequence[Box], labels: dict[tuple[int, int], list[Label]]) -> Placed:
    """Lay out twice: the second time wires enter a gate in the order in which they came from above the first time."""
    entries = dict.fromkeys(labels, 0)
    first = _laid_out(sketch, [replace(box, entries=min(box.entries, 1)) for box in boxes], labels, entries)
    for g, gate in enumerate(sketch.gates):
        above = sorted(range(len(gate.inputs)), key=lambda k: (first.curves[g, k][-2][1], first.curves[g, k][0][1], k))
        entries |= {(g, k): place for place, k in enumerate(above)}
    return _laid_out(sketch, boxes, labels, entries)


def _laid_out(
    sketch: Sketch,
    boxes: Sequence[Box],
    labels: dict[tuple[int, int], list[Label]],
    entries: dict[tuple[int, int], int],
) -> Placed:
    graph = _graphviz()
    sources: dict[int, tuple[str, int]] = {}
    for box in boxes:
        graph.add_node(f"n{box.wires[0]}", label=_table(box), shape="plain")
        sources |= {wire: (f"n{box.wires[0]}", k) for k, wire in enumerate(box.wires)}
    for (g, k), lines in labels.items():
        source, port = sources[sketch.gates[g].inputs[k].wire]
        width = max(_width(text, SMALL) for _, text in lines) + 8
        graph.add_edge(source, f"n{sketch.gates[g].outputs[0]}", key=f"{g}-{k}", id=f"{g}-{k}",
                       label=_cell(width, LINE * len(lines)), tailport=f"o{port}:e", arrowhead="none",
                       headport=f"i{entries[g, k]}:w")  # fmt: skip
    found = json.loads(graph.draw(format="json", prog="dot"))
    left, bottom, right, top = map(float, found["bb"].split(","))

    def point(text: str) -> tuple[float, float]:
        x, y = text.split(",")
        return float(x) - left, top - float(y)

    centres = {int(o["name"][1:]): point(o["pos"]) for o in found["objects"]}
    curves, places = {}, {}
    for edge in found.get("edges", ()):
        g, _, k = edge["id"].partition("-")
        curves[int(g), int(k)] = [point(p) for p in edge["pos"].split() if p[0] not in "es"]
        places[int(g), int(k)] = point(edge["lp"])
    return Placed(right - left, top - bottom, centres, curves, places)


def _graphviz() -> Any:
    try:
        import pygraphviz
    except ImportError:
        raise MissingExtraError(
            'pictures of circuits need pygraphviz 2, which brings Graphviz with it: pip install "graphc[draw]"; '
            "circuit.text() needs nothing"
        ) from None
    return pygraphviz.AGraph(directed=True, strict=False, rankdir="LR", nodesep="0.18", ranksep="0.2")


def _table(box: Box) -> str:
    """Entries on the left, exits on the right, in rows that both divide."""
    entries, exits = max(box.entries, 1), len(box.wires)
    rows = entries * exits
    cells = []
    for r in range(rows):
        row = ""
        if r % exits == 0:
            row += _td(box.body, box.height / entries, f"i{r // exits}", exits)
        if r % entries == 0:
            row += _td(box.stub, box.height / exits, f"o{r // entries}", entries)
        cells.append(f"<TR>{row or '<TD></TD>'}</TR>")
    return f'<<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="0">{"".join(cells)}</TABLE>>'


def _td(width: float, height: float, port: str, rows: int) -> str:
    return f'<TD PORT="{port}" ROWSPAN="{rows}" FIXEDSIZE="TRUE" WIDTH="{width:.0f}" HEIGHT="{height:.0f}"></TD>'


def _cell(width: float, height: float) -> str:
    cell = f'<TR><TD FIXEDSIZE="TRUE" WIDTH="{width:.0f}" HEIGHT="{height:.0f}"></TD></TR>'
    return f'<<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="0">{cell}</TABLE>>'


def _wires(sketch: Sketch, placed: Placed) -> Iterator[str]:
    """The curves, extended under the gate's body, which covers their ends."""
    for (g, k), points in placed.curves.items():
        x, y = points[0]
        path = [f"M{_n(x)} {_n(y)}"]
        for i in range(1, len(points), 3):
            path.append("C" + " ".join(f"{_n(px)} {_n(py)}" for px, py in points[i : i + 3]))
        path.append(f"h{UNDER}")
        active = ' style="stroke: #b7791f; stroke-width: 2.4"' if sketch.active == g else ""
        yield f'<path class="wire" id="edge-{g}-{k}"{active} d="{" ".join(path)}"/>'


def _bodies(sketch: Sketch, boxes: Sequence[Box], placed: Placed, digits: int) -> Iterator[str]:
    for box in boxes:
        x, y = placed.boxes[box.wires[0]]
        left = x - (box.body + box.stub) / 2
        out = left + box.body
        for k, index in enumerate(box.wires):
            level = y + box.height * ((k + 0.5) / len(box.wires) - 0.5)
            yield from _wire_text(sketch.wires[index], out, level, box.stub, index in sketch.outputs, digits)
        if box.gate is None:
            yield from _leaf(sketch.wires[box.wires[0]], left, y, box.body)
        else:
            about = f"{sketch.wires[box.wires[0]].formula}  {sketch.gates[box.gate].origin}".strip()
            yield from _gate(sketch.gates[box.gate], about, left, y, box, sketch.active == box.gate)


def _leaf(wire: Wire, left: float, y: float, body: float) -> Iterator[str]:
    centre = left + body / 2
    yield _label("name", centre, y + 5, wire.name)
    if _kind(wire):
        yield _label("made", centre, y + 19, _kind(wire))


def _gate(gate: Gate, about: str, left: float, y: float, box: Box, active: bool) -> Iterator[str]:
    height = max(2 * ENTRY - 4, ENTRY * box.entries - 4)
    shape = f'x="{_n(left)}" y="{_n(y - height / 2)}" width="{_n(box.body)}" height="{_n(height)}"'
    yield f'<g class="{"active" if active else "still"}"><title>{escape(about)}</title>'
    yield f'<rect class="gate" {shape} rx="{_n(min(box.body, height) / 2)}"/>'
    yield _label("glyph", left + box.body / 2, y + 5, gate.glyph) + "</g>"


def _wire_text(wire: Wire, out: float, y: float, stub: float, result: bool, digits: int) -> Iterator[str]:
    """The piece of wire that leaves a box, value above and gradient below."""
    yield f'<path class="wire" d="M{_n(out)} {_n(y)} H{_n(out + stub + 1)}"/>'
    if result:  # an arrow head
        end = out + stub
        yield f'<path d="M{_n(end + 2)} {_n(y)} l-9 -4.5 v9 z" fill="#57606a"/>'
    centre = out + stub / 2
    above = "pending" if wire.value is None else "value"
    yield _label(above, centre, y - 6, _above(wire, digits))
    below = "gradient" if wire.status in (DONE, PARTIAL) else "pending"
    yield _label(below, centre, y + 17, gradient_text(wire, digits, FEW))


def _rules(labels: dict[tuple[int, int], list[Label]], placed: Placed) -> Iterator[str]:
    for key, lines in labels.items():
        x, y = placed.labels[key]
        for k, (kind, text) in enumerate(lines):
            yield _label(kind, x, y + LINE * (k - (len(lines) - 1) / 2) + 4, text)


def _foot(sketch: Sketch) -> list[list[Label]]:
    """The caption of a frame, in lines of its own, and the legend."""
    lines = [[("plain", text)] for text in textwrap.wrap(sketch.caption, 110)]
    legend = [("value", "value"), ("plain", " above, "), ("gradient", f"gradient of {sketch.seed}"),
              ("plain", " below, "), ("rule", "local derivative"), ("plain", " on the way into a gate")]  # fmt: skip
    return [*lines, legend]


def _label(kind: str, x: float, y: float, text: str) -> str:
    return f'<text class="{kind}" text-anchor="middle" x="{_n(x)}" y="{_n(y)}">{_shown(text)}</text>'


def _shown(text: str) -> str:
    """Text for SVG, hyphens of numbers and formulas as minus signs."""
    return escape(text.replace("-", "−"))


def _n(value: float) -> str:
    """A coordinate with one decimal at most."""
    return f"{value:.1f}".removesuffix(".0")
