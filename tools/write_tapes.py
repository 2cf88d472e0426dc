"""Writes `graphc/ops/tapes.txt`, what the expressions of elementwise ops print to: `python tools/write_tapes.py`.

To be run after changes of the files that `graphc.ops.tape.SOURCES` names; a test tells when.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from graphc import ops
from graphc.ir.op import OPS, NotDifferentiable, Op
from graphc.ops import scalar, tape
from graphc.ops.tape import Recorder


def text() -> str:
    """The file's content."""
    assert ops.__doc__  # importing them has registered them
    lines = [f"sources {tape.digest()}"]
    for op in OPS.values():
        if op.scalar is not None and op.name != "scalar_function":
            for attributes, arity in _applications(op):
                name = tape.key(op.name, attributes)
                lines += [f"{name} {use}: {recorded}" for use, recorded in _tapes(op, attributes, arity)]
    return "\n".join(lines) + "\n"


def _applications(op: Op) -> list[tuple[Mapping[str, Any], int]]:
    """Attributes and arity of an op's samples, different ones once: they have the default attributes and others."""
    found = {}
    for sample in op.samples():
        attributes = {name: attribute.default for name, attribute in op.attributes.items()} | dict(sample.attributes)
        found[tape.key(op.name, attributes)] = (attributes, len(sample.inputs))
    return list(found.values())


def _tapes(op: Op, attributes: Mapping[str, Any], arity: int) -> Iterator[tuple[str, str]]:
    """The tapes of an op by use."""
    assert op.scalar is not None
    function = scalar.bound(op.scalar, attributes)
    known = dict(zip(scalar.operand_symbols(arity), scalar.operand_names(arity), strict=True))
    recorder = Recorder()
    yield "value", recorder.tape(scalar.fold(scalar.expression(function, arity), recorder, known))
    recorder = Recorder()
    yield "kernel", recorder.tape(scalar.fold_shared(scalar.expression(function, arity), recorder, known))
    if isinstance(op.gradient, NotDifferentiable):
        return
    known |= dict(zip(scalar.slope_symbols(), ("f", "g"), strict=True))
    for position in range(arity):
        slope = scalar.slope_expression(function, arity, position)
        recorder = Recorder(has=lambda primitive: primitive in OPS)
        printed = tape.FLAT if slope == 0 else recorder.tape(scalar.fold_shared(slope, recorder, known))
        yield f"slope{position}", printed


if __name__ == "__main__":
    tape.FILE.write_text(text(), encoding="utf-8")
