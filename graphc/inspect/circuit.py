"""`gc.circuit`: an expression as a circuit of gates, with values above the wires and gradients below them.

The picture is the one that lectures on back-propagation draw: every op is a gate, every value a wire. What the
chain rule multiplies stands on the edges into the gates: the local derivative, as a symbol and as a number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from graphc.dsl.symbol import Symbol
from graphc.errors import InputError, MissingExtraError
from graphc.inspect.circuit_build import check_size, declaration, sketch
from graphc.inspect.circuit_drawing import draw
from graphc.inspect.circuit_model import DONE, NOT_COMPUTED, PARTIAL, Array, Gate, Sketch, Wire, number_text
from graphc.inspect.circuit_text import gradient_text, tree_text

__all__ = ["Circuit", "circuit"]

LIMIT = 60


@dataclass(frozen=True, eq=False, repr=False)
class Circuit:
    """A drawing of an expression. `print` shows it as text, a notebook as a picture; `save` writes either."""

    sketch: Sketch
    digits: int = 3

    @property
    def values(self) -> dict[str, Array | None]:
        """Values by wire name; None where they are not computed."""
        return {wire.name: wire.value for wire in self.sketch.wires}

    @property
    def gradients(self) -> dict[str, Array | None]:
        """Gradients by wire name; None where they are not computed, and where there is none."""
        return {wire.name: wire.gradient for wire in self.sketch.wires}

    def text(self, *, ascii: bool = False) -> str:
        """The circuit as a tree of lines; with `ascii` in plain characters."""
        return tree_text(self.sketch, self.digits, ascii)

    def svg(self) -> str:
        """The circuit as an SVG picture, the same text every time. Raises MissingExtraError without `graphc[draw]`."""
        return draw(self.sketch, self.digits)

    def save(self, path: str | Path) -> Path:
        """Write the picture (`.svg`) or the text (`.txt`). Raises InputError for another ending."""
        target = Path(path)
        if target.suffix not in (".svg", ".txt"):
            raise InputError(f"circuit.save({str(path)!r}): the name must end in .svg or .txt")
        target.write_text(self.svg() if target.suffix == ".svg" else self.text() + "\n", encoding="utf-8")
        return target

    def forward(self) -> Circuit:
        """The circuit before backward: values are there, gradients are `not computed`."""
        caption = "forward: every wire has its value, no gradient is computed yet"
        return replace(self, sketch=replace(self.sketch.without_gradients(), caption=caption))

    def frames(self) -> list[Circuit]:
        """Backward step by step: after forward, the start at the result, then gate by gate to the inputs.

        The last frame has the gradients of the whole circuit. A circuit without values has only its first frame.
        """
        texts = [gradient_text(wire, self.digits) for wire in self.sketch.wires]
        room = tuple(max(text, NOT_COMPUTED, key=len) for text in texts)
        whole, start = replace(self.sketch, room=room), replace(self.forward().sketch, room=room)
        return [replace(self, sketch=each) for each in _frames(whole, start, self.digits)]

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return self.text()  # at a prompt the circuit shows itself

    def _repr_svg_(self) -> str | None:
        """For notebooks; they show the text instead where the extra `draw` is not installed."""
        try:
            return self.svg()
        except MissingExtraError:
            return None


def circuit(
    expression: Symbol | Sequence[Symbol],
    at: Mapping[Symbol, Any] | None = None,
    wrt: Symbol | Sequence[Symbol] | None = None,
    *,
    names: Mapping[Symbol, str] | None = None,
    cut: Sequence[Symbol] = (),
    digits: int = 3,
    limit: int = LIMIT,
) -> Circuit:
    """Draw `expression` as a circuit: its ops as gates, values above the wires, gradients below, rules on the edges.

        q = x + y
        gc.circuit(q * z, at={x: -2, y: 5, z: -4}).save("circuit.svg")

    `at` gives inputs their values (parameters have their own, unless it gives others); without it nothing is computed
    and the rules are shown as symbols. Values come from the reference interpreter in float64, gradients from reverse
    mode on the graph. Several results, and results with several elements, are differentiated as their sum. `wrt`
    follows gradients to these symbols only, `wrt=[]` draws the values alone. `names` names wires (`{q: "q"}`), `cut`
    draws symbols as inputs and leaves out what is behind them, `digits` is the number of decimals.

    Raises InputError for missing or unknown values, shapes that do not fit, and more than `limit` gates (the message
    says how to narrow); GradientError where an op has no gradient.
    """
    outputs = [expression] if isinstance(expression, Symbol) else list(expression)
    if not outputs:
        raise InputError("gc.circuit: there is nothing to draw; give a symbol")
    by = [wrt] if isinstance(wrt, Symbol) else wrt
    declared = declaration(outputs, at, by, names or {}, cut)
    check_size(declared, limit)
    return Circuit(sketch(declared), digits)


def _frames(whole: Sketch, start: Sketch, digits: int) -> Iterator[Sketch]:
    yield start
    outputs = [k for k in dict.fromkeys(whole.outputs) if whole.wires[k].status == DONE]
    if not outputs:
        return
    state = _Backward(whole, list(start.wires), list(start.gates))
    for k in outputs:  # one that gates read too waits for their shares
        status = PARTIAL if state.missing[k] else DONE
        state.wires[k] = replace(whole.wires[k], gradient=np.ones_like(whole.wires[k].value), status=status)
    ones = ", ".join(f"the gradient of {whole.wires[k].name} by itself is 1" for k in outputs)
    yield state.frame(f"backward starts at the result: {ones}", None)
    for index in reversed(range(len(whole.gates))):
        if any(edge.share is not None for edge in whole.gates[index].inputs):
            caption = state.step(index, digits)
            yield state.frame(caption, index)


@dataclass
class _Backward:
    """How far backward has come; `missing` counts the readers of a wire that have not passed their share back."""

    whole: Sketch
    wires: list[Wire]
    gates: list[Gate]
    missing: dict[int, int]

    def __init__(self, whole: Sketch, wires: list[Wire], gates: list[Gate]) -> None:
        self.whole, self.wires, self.gates = whole, wires, gates
        self.missing = {k: sum(e.share is not None for _, e in whole.readers(k)) for k in range(len(wires))}

    def step(self, index: int, digits: int) -> str:
        """Let one gate pass its gradient back; returns what happened as a sentence."""
        gate = self.whole.gates[index]
        self.gates[index] = gate
        told = []
        upstream = ", ".join(number_text(self.whole.wires[k].gradient, digits) for k in gate.outputs)
        for edge in gate.inputs:
            if edge.share is None:
                continue
            self._receive(edge.wire, edge.share)
            result = number_text(edge.share, digits)
            if edge.elementwise and edge.number is not None:
                slope = number_text(edge.number, digits)
                told.append(f"{self.wires[edge.wire].name} receives {_factor(upstream)} · {_factor(slope)} = {result}")
            else:
                told.append(f"{self.wires[edge.wire].name} receives {edge.symbol} = {result}")
        outputs = ", ".join(self.whole.wires[k].name for k in gate.outputs)
        return f"gate {gate.glyph} of {outputs}: {'; '.join(told)}"

    def _receive(self, wire: int, share: Array) -> None:
        before = self.wires[wire].gradient
        total = share if before is None else before + share
        self.missing[wire] -= 1
        if self.missing[wire] == 0:
            self.wires[wire] = self.whole.wires[wire]
        else:
            self.wires[wire] = replace(self.wires[wire], gradient=total, status=PARTIAL)

    def frame(self, caption: str, active: int | None) -> Sketch:
        """The state now."""
        return replace(self.whole, wires=tuple(self.wires), gates=tuple(self.gates), caption=caption, active=active)


def _factor(text: str) -> str:
    return f"({text})" if text.startswith("-") else text
