"""What a circuit picture shows, as plain data: gates, the wires between them, and how far backward has come."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

# How the gradient of a wire stands.
NOT_COMPUTED = "not computed"  # backward has not come here yet: not 0, unknown
PARTIAL = "partial"  # some readers of the wire have passed their share back, others have not
DONE = "done"
NO_GRADIENT = "no gradient"  # nothing flows here: integers, constants, stop_gradient, no path to what is differentiated

Array = np.ndarray[Any, Any]
MOST = 6  # elements that are shown one by one


@dataclass(frozen=True)
class Wire:
    """A value. `formula` says how its gate makes it (empty for leaves); `kind` is that of `KINDS`.

    `value` and `gradient` are None until they are computed; `status` tells the gradient's state.
    """

    name: str
    kind: str
    type: str
    formula: str = ""
    gate: int | None = None
    value: Array | None = None
    gradient: Array | None = None
    status: str = NOT_COMPUTED


KINDS = ("input", "parameter", "state", "constant", "random state", "cut", "value")


@dataclass(frozen=True)
class Edge:
    """A wire's way into a gate: the local derivative there, and what backward passes along it.

    `label` names the derivative (`∂q/∂x`) or, for gates that are no elementwise functions, the gradient that the rule
    in `symbol` computes (`grad x`). `number` is the local derivative: by element for elementwise gates, else the
    Jacobian of shape output + operand where it is small. `share` is what the gate adds to the wire's gradient.
    """

    wire: int
    label: str
    symbol: str
    number: Array | None = None
    share: Array | None = None
    elementwise: bool = True


@dataclass(frozen=True)
class Gate:
    """An op. `glyph` stands in its circle; `origin` is where the user declared it."""

    op: str
    glyph: str
    inputs: tuple[Edge, ...]
    outputs: tuple[int, ...]
    origin: str


@dataclass(frozen=True)
class Sketch:
    """Wires and gates in topological order, the wires that are drawn as results, and a line below the picture.

    `seed` says what is differentiated (`f`, `the sum f1 + f2`); `active` is the gate that a frame explains, `room` has
    for each wire the longest text that stands below it in any frame, so that pictures of all frames are laid out alike.
    """

    wires: tuple[Wire, ...]
    gates: tuple[Gate, ...]
    outputs: tuple[int, ...]
    seed: str
    caption: str = ""
    active: int | None = None
    room: tuple[str, ...] = ()

    def readers(self, wire: int) -> list[tuple[int, Edge]]:
        """Gates that read a wire, and the edges to them, once for each operand position."""
        return [(k, edge) for k, gate in enumerate(self.gates) for edge in gate.inputs if edge.wire == wire]

    def without_gradients(self) -> Sketch:
        """The state before backward: values and local derivatives are there, no gradient is."""
        wires = tuple(
            replace(w, gradient=None, status=w.status if w.status == NO_GRADIENT else NOT_COMPUTED) for w in self.wires
        )
        gates = tuple(replace(g, inputs=tuple(replace(e, share=None) for e in g.inputs)) for g in self.gates)
        return replace(self, wires=wires, gates=gates, active=None)


def number_text(array: Array | None, digits: int = 3, most: int = MOST) -> str:
    """A number or a few of them, integers without and others with `digits` decimals; many as their type and range."""
    if array is None:
        return NOT_COMPUTED
    if array.size > most:
        shape = ",".join(map(str, array.shape))
        low, high = (_scalar_text(array.ravel()[k], digits) for k in (np.argmin(array), np.argmax(array)))
        return f"[{shape}] {low} … {high}" if low != high else f"[{shape}] all {low}"
    return _nested(array, digits)


def _nested(array: Array, digits: int) -> str:
    if array.ndim:
        return "[" + ", ".join(_nested(part, digits) for part in array) + "]"
    return _scalar_text(array[()], digits)


def _scalar_text(value: Any, digits: int) -> str:
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    number = float(value)
    if not np.isfinite(number):
        return str(number)
    if number.is_integer() and abs(number) < 1e9:
        return str(int(number))
    rounded = round(number, digits)
    if 10.0**-digits <= abs(rounded) < 1e6:
        return f"{rounded:.{digits}f}"
    return f"{number:.{digits}g}"
