"""Writes `ops.md`, the reference page of ops, from the registry: `python docs/ops_page.py`. A test tells when to."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphc import ops
from graphc.ir.op import OPS, REQUIRED, Attribute, Attributes, NotDifferentiable, Op, Sample
from graphc.ir.text import format_attribute
from graphc.ir.types import TensorType, as_dtype
from graphc.ops import scalar

PAGE = Path(__file__).with_name("ops.md")
EXAMPLES = 5  # applications shown for each op

INTRO = """\
# Reference of ops

The ops of graphs, from the registry: {count} ops with {samples} samples, on which the tests check value, derivatives,
kernel and text. Users write most of them as functions of `graphc` or as operators of symbols, which add broadcasting,
axes from the end and dtype rules; the ops themselves take operands of the shapes shown. This page is written by
`python docs/ops_page.py`.

Below each op: its formula, its attributes (static arguments), types of operands and results for some of its samples,
and where its gradient comes from. Gradients *from the expression* are its derivatives, written with `f` for the result
where that is stable.
"""


def page() -> str:
    """The page's text."""
    samples = sum(len(_samples(op)) for op in OPS.values())
    parts = [INTRO.format(count=len(OPS), samples=samples)]
    for title, intro, members in families():
        parts += [f"## {title}\n\n{intro}\n", *(_op(op) for op in members)]
    return "\n".join(parts)


def families() -> Iterator[tuple[str, str, list[Op]]]:
    """Title, first line of the docstring and ops of each module of `graphc.ops` that defines any."""
    left = dict(OPS)
    for name in sorted(ops.__all__):
        module = sys.modules[f"{ops.__name__}.{name}"]
        sources = inspect.getsource(module)
        members = [op for op in list(left.values()) if _defined_in(op, module, sources)]
        for op in members:
            del left[op.name]
        if members:
            title = name.replace("_", " ").capitalize()
            yield title, (module.__doc__ or "").strip().split("\n\n")[0].replace("\n", " "), members
    if left:
        yield "Other ops", "", list(left.values())


def _defined_in(op: Op, module: Any, source: str) -> bool:
    """Whether a module defines the op: it assigns it to a name, or spells its name out where it defines ops."""
    held = [name for name, value in vars(module).items() if value is op]
    return any(f"\n{name} = " in source for name in held) or ("define(" in source and f'"{op.name}"' in source)


def _samples(op: Op) -> Sequence[Sample]:
    return op.samples() if op.samples is not None else ()


def _op(op: Op) -> str:
    lines = [f"### `{op.name}`", "", op.doc, "", f"$$\n{op.formula}\n$$", ""]
    if op.attributes:
        lines += ["| attribute | kind | default | meaning |", "|---|---|---|---|"]
        for name, attribute in op.attributes.items():
            lines += [f"| `{name}` | {attribute.kind} | {_default(attribute)} | {attribute.doc} |"]
        lines += [""]
    applications = list(dict.fromkeys(_application(op, sample) for sample in _samples(op)))
    if applications:
        more = [f"# and {len(applications) - EXAMPLES} more"] if len(applications) > EXAMPLES else []
        lines += ["```text", *applications[:EXAMPLES], *more, "```", ""]
    return "\n".join([*lines, *_gradient(op), ""])


def _default(attribute: Attribute) -> str:
    return "required" if attribute.default is REQUIRED else f"`{format_attribute(attribute.kind, attribute.default)}`"


def _application(op: Op, sample: Sample) -> str:
    """`sum(f64[3,4], axes=[0]) -> f64[4]`."""
    types = [TensorType(as_dtype(np.asarray(a).dtype), np.shape(a)) for a in sample.inputs]
    given = [f"{name}={_short(op.attributes[name].kind, value)}" for name, value in sample.attributes.items()]
    results = ", ".join(map(str, op.infer(types, op.complete(dict(sample.attributes)))))
    return f"{op.name}({', '.join([*map(str, types), *given])}) -> {results}"


def _short(kind: str, value: Any) -> str:
    text = " ".join(format_attribute(kind, value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def _gradient(op: Op) -> Iterator[str]:
    if op.nested:
        yield "Gradient: by the gradients of the graphs that it runs."
    elif op.expanded and op.gradient is None:
        yield "Gradient: of the nodes that replace it before compilation."
    elif isinstance(op.gradient, NotDifferentiable):
        yield f"Gradient: none, {op.gradient.reason}."
    elif op.scalar is not None and (slopes := _slopes(op)):
        yield f"Gradient, from the expression: {', '.join(slopes)}"
    else:
        yield "Gradient: a rule of its own."


def _slopes(op: Op) -> list[str]:
    """`$\\partial y / \\partial x = ...$` for each floating operand, with the attributes of the first sample."""
    import sympy

    sample = _samples(op)[0]
    attributes: Attributes = op.complete(dict(sample.attributes))
    assert op.scalar is not None
    if op.name == "scalar_function":
        return []
    count, result = len(sample.inputs), sympy.Symbol("f")
    expr = scalar.expression(scalar.bound(op.scalar, attributes), count)
    found = []
    for symbol, array in zip(scalar.operand_symbols(count), sample.inputs, strict=True):
        if np.asarray(array).dtype.kind == "f":
            slope = scalar.latex(expr.diff(symbol).xreplace({expr: result}))
            found.append(rf"$\partial f / \partial {symbol} = {slope}$")
    return found


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
