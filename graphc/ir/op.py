"""What an op is: one block that holds everything the compiler, the tests and the documentation know of it.

`define` checks a definition and enters it into the registry `OPS`; the families in `graphc.ops` call it at
import. The interpreter, the gradient, the kernels, the reference page and the tests all run over `OPS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from graphc.errors import AttributeValueError, DefinitionError
from graphc.ir.types import TensorType

if TYPE_CHECKING:
    from graphc.ir.builder import Builder
    from graphc.ir.graph import Node, Value

Attributes = Mapping[str, Any]


class NotDifferentiable:
    """The type of `NOT_DIFFERENTIABLE`: an explicit statement that an op has no gradient, with the reason."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __repr__(self) -> str:
        return f"NotDifferentiable({self.reason!r})"


class _Required:
    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Final = _Required()

# How an attribute is written in text and checked: a name here, a reader and writer in ir/text.py.
ATTRIBUTE_KINDS = ("int", "ints", "bool", "float", "str", "dtype", "shape", "dim", "literal", "graph")


@dataclass(frozen=True)
class Attribute:
    """A static argument of an op: its kind (one of ATTRIBUTE_KINDS), default and one-line doc."""

    kind: str
    doc: str
    default: Any = REQUIRED


@dataclass(frozen=True)
class Sample:
    """A sample application for tests and documentation: operand arrays (NumPy) and attributes.

    `differentiable` names the operand positions whose first and second derivatives the tests check at this
    sample (empty: at a kink, or no gradient).
    """

    inputs: tuple[Any, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    differentiable: tuple[int, ...] = ()


# infer(operand types, attributes) -> output types; raises ShapeError or DTypeError with a plain reason
Infer = Callable[[Sequence[TensorType], Attributes], tuple[TensorType, ...]]
# reference(operand arrays, attributes) -> output arrays, in whatever float dtype it is given
Reference = Callable[[Sequence[Any], Attributes], tuple[Any, ...]]
# gradient(node, cotangents of outputs (None: zero), builder) -> cotangent of each input (None: zero)
Gradient = Callable[["Node", "Sequence[Value | None]", "Builder"], "Sequence[Value | None]"]
# lower(node) -> graphc.kernel.form.Kernel over operands in0, in1, ... and out0, out1, ...
Lower = Callable[["Node"], Any]
# A mode of differentiation: (outputs, vectors, wrt, builder) -> vectors (None: zero). Reverse mode takes cotangents
# of the outputs and gives those of `wrt`; forward mode takes tangents of `wrt` and gives those of the outputs.
Reverse = Callable[["Sequence[Value]", "Sequence[Value]", "Sequence[Value]", "Builder"], "Sequence[Value | None]"]
Forward = Callable[["Sequence[Value]", "Sequence[Value]", "Sequence[Value]", "Builder"], "Sequence[Value | None]"]


@dataclass(frozen=True)
class Nested:
    """The derivatives of an op whose attributes are graphs that it runs; the modes are given, to go into the graphs.

    pull_back(node, cotangents of outputs (None: zero), builder, reverse mode) -> cotangent of each input (None: zero)
    push_forward(node, tangents of inputs (None: zero), builder, forward mode) -> tangent of each output (None: zero)
    """

    pull_back: Callable[[Node, Sequence[Value | None], Builder, Reverse], Sequence[Value | None]]
    push_forward: Callable[[Node, Sequence[Value | None], Builder, Forward], Sequence[Value | None]]


@dataclass(frozen=True)
class Op:
    """The definition of one op; see the module docstring and `docs/architecture.md`.

    `scalar` is set for elementwise ops: a function from SymPy symbols to a SymPy expression, called only when
    a kernel, a derivative, LaTeX or a reference value is needed. `view` marks ops whose result holds the
    operand's elements in the same row-major order (memory may be shared). `expanded` marks ops that a pass
    replaces by others before lowering (such as `grad`), which need no reference, gradient or kernel of their own.
    `nested` is set for ops that run graphs held as attributes (such as `scan`): the interpreter runs these graphs, code
    generation lowers them as regions of the program, so they have no reference and no kernel of their own.
    """

    name: str
    doc: str
    latex: str | Callable[[], str]  # a function where it is printed from the scalar expression, on first use
    infer: Infer
    reference: Reference | None = None
    gradient: Gradient | NotDifferentiable | None = None
    lower: Lower | None = None
    samples: Callable[[], Sequence[Sample]] | None = None
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    scalar: Callable[..., Any] | None = None
    commutative: bool = False
    view: bool = False
    expanded: bool = False
    nested: Nested | None = None

    @property
    def formula(self) -> str:
        """The op's LaTeX."""
        return self.latex if isinstance(self.latex, str) else self.latex()

    def complete(self, given: Attributes) -> Attributes:
        """`given` with defaults, in declared order. Raises AttributeValueError for unknown or missing attributes."""
        unknown = [name for name in given if name not in self.attributes]
        if unknown:
            known = ", ".join(self.attributes) or "none"
            raise AttributeValueError(f"{self.name}: unknown attribute {unknown[0]!r}; it takes: {known}")
        full = {}
        for name, attribute in self.attributes.items():
            value = given.get(name, attribute.default)
            if value is REQUIRED:
                raise AttributeValueError(f"{self.name}: attribute {name!r} ({attribute.doc}) is missing")
            full[name] = value
        return MappingProxyType(full)


OPS: dict[str, Op] = {}


def define(op: Op) -> Op:
    """Check a definition and enter it into the registry. Raises DefinitionError naming op and missing part."""
    if op.name in OPS:
        raise DefinitionError(f"op {op.name!r} is defined twice")
    parts: dict[str, object] = {"doc": op.doc, "latex": op.latex}
    if op.nested:
        parts |= {"samples": op.samples}
    elif not op.expanded:
        parts |= {"reference": op.reference, "gradient": op.gradient, "lower": op.lower, "samples": op.samples}
    for part, value in parts.items():
        if not value:
            raise DefinitionError(f"op {op.name!r} has no {part}; an op is one complete block")
    for name, attribute in op.attributes.items():
        if attribute.kind not in ATTRIBUTE_KINDS:
            raise DefinitionError(f"op {op.name!r}: attribute {name!r} has unknown kind {attribute.kind!r}")
    OPS[op.name] = op
    return op
