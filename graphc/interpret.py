"""The reference interpreter: runs a graph node by node with the ops' NumPy references. Slow, and obviously right.

It computes in float64 whatever the graph declares, so that compiled float32 programs and gradients can be
checked against it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import GraphcError, InputError
from graphc.ir.builder import explain
from graphc.ir.dims import Dim, Poly, format_shape, symbols
from graphc.ir.dims import evaluate as size_of
from graphc.ir.graph import Graph, Literal, Node, Value
from graphc.ir.types import DType, TensorType, f32, f64
from graphc.ops.scan import Scan
from graphc.ops.while_loop import While


def evaluate(graph: Graph, inputs: Mapping[str, Any], *, dtype64: bool = True) -> list[np.ndarray]:
    """The graph's outputs for `inputs`, arrays by input name.

    Dimension symbols take their sizes from the arrays' shapes. With `dtype64` every f32 value is computed in f64;
    without, everything has its declared dtype. Integers and truth values always have their declared dtype.
    Raises InputError for missing or unknown inputs and for shapes and dtypes that do not fit, and GraphcError for
    a deferred gradient (`graphc.autodiff.expand.expand_derivatives` expands it first).
    """
    arrays = {value: _input_array(value, inputs, dtype64) for value in _expected(graph, inputs)}
    sizes = bind_sizes(graph.inputs, arrays)
    return _run(graph, arrays, sizes, dtype64)


def _expected(graph: Graph, inputs: Mapping[str, Any]) -> tuple[Value, ...]:
    known = [value.name for value in graph.inputs]
    unknown = sorted(set(inputs) - set(known))
    missing = [name for name in known if name not in inputs]
    if unknown or missing:
        problem = f"unknown inputs {', '.join(unknown)}" if unknown else f"missing inputs {', '.join(missing)}"
        raise InputError(f"{graph.name}: {problem}; it takes: {', '.join(known) or 'none'}")
    return graph.inputs


def _input_array(value: Value, inputs: Mapping[str, Any], dtype64: bool) -> np.ndarray:
    given = np.asarray(inputs[value.name])
    dtype = value.type.dtype
    to_fewer_kinds = given.dtype.kind == "f" and not dtype.is_float
    if given.dtype.kind not in "fiub" or to_fewer_kinds:
        raise InputError(f"input {value.name} is {value.type}; an array of {given.dtype} cannot be cast to it safely")
    if given.ndim != value.type.rank:
        raise InputError(f"input {value.name} is {value.type}, got shape {list(given.shape)}")
    return given.astype(_promoted(dtype, dtype64).numpy)


def bind_sizes(values: Sequence[Value], arrays: Mapping[Value, np.ndarray]) -> dict[str, int]:
    """Sizes of dimension symbols, from the shapes of arrays. Raises InputError where shapes contradict the types."""
    sizes: dict[str, int] = {}
    for value in values:
        for dim, size in zip(value.type.shape, arrays[value].shape, strict=True):
            if isinstance(dim, Poly) and dim.terms == (((str(dim),), 1),):
                sizes.setdefault(str(dim), size)
    for value in values:
        shape = arrays[value].shape
        known = all(symbols(dim) <= sizes.keys() for dim in value.type.shape)
        if not known or tuple(size_of(dim, sizes) for dim in value.type.shape) != shape:
            bound = ", ".join(f"{name}={size}" for name, size in sizes.items())
            where = f" with {bound}" if bound else ""
            raise InputError(f"input {value.name} is {value.type}{where}, got shape {list(shape)}")
    return sizes


def _promoted(dtype: DType, dtype64: bool) -> DType:
    return f64 if dtype64 and dtype == f32 else dtype


def _run(graph: Graph, arrays: dict[Value, np.ndarray], sizes: Mapping[str, int], dtype64: bool) -> list[np.ndarray]:
    values = dict(arrays)
    for node in graph.nodes:
        results = _apply(node, [values[v] for v in node.inputs], sizes, dtype64)
        for value, result in zip(node.outputs, results, strict=True):
            values[value] = _checked(node, value.type, np.asarray(result), sizes, dtype64)
    return [values[v] for v in graph.outputs]


def _apply(node: Node, operands: list[np.ndarray], sizes: Mapping[str, int], dtype64: bool) -> Sequence[Any]:
    if node.op.name in _NESTED:
        return _NESTED[node.op.name](node, operands, sizes, dtype64)
    types = [v.type for v in node.inputs]
    if node.op.reference is None:
        reason = f"the interpreter cannot run a deferred {node.op.name!r}; expand it first (expand_derivatives)"
        raise GraphcError(explain(node.op.name, types, reason, node.origin))
    try:
        return node.op.reference(operands, _bound(node, sizes, dtype64))
    except GraphcError as error:
        raise type(error)(explain(node.op.name, types, str(error), node.origin)) from None


def _body(body: Graph, operands: Sequence[np.ndarray], sizes: Mapping[str, int], dtype64: bool) -> list[np.ndarray]:
    return _run(body, dict(zip(body.inputs, operands, strict=True)), sizes, dtype64)


def _fusion(node: Node, operands: list[np.ndarray], sizes: Mapping[str, int], dtype64: bool) -> list[np.ndarray]:
    return _body(node.attributes["body"], operands, sizes, dtype64)


def _cond(node: Node, operands: list[np.ndarray], sizes: Mapping[str, int], dtype64: bool) -> list[np.ndarray]:
    return _body(node.attributes["then" if operands[0] else "orelse"], operands[1:], sizes, dtype64)


def _while_loop(node: Node, operands: list[np.ndarray], sizes: Mapping[str, int], dtype64: bool) -> list[np.ndarray]:
    loop = While.of(node)
    carried, captured = operands[: len(loop.init)], operands[len(loop.init) :]
    turns = 0
    while turns != loop.bound and _body(loop.test, [*carried, *captured], sizes, dtype64)[0]:
        carried = _body(loop.body, [*carried, *captured], sizes, dtype64)
        turns += 1
    return carried


def _scan(node: Node, operands: list[np.ndarray], sizes: Mapping[str, int], dtype64: bool) -> list[np.ndarray]:
    scan = Scan.of(node)
    k, m, length = len(scan.init), len(scan.sequences), size_of(scan.length, sizes)
    carried, sequences, captured = operands[:k], operands[k : k + m], operands[k + m :]
    stacked = []
    for type_ in node.output_types[k:]:
        shape = tuple(size_of(dim, sizes) for dim in type_.shape)
        stacked.append(np.empty(shape, _promoted(type_.dtype, dtype64).numpy))
    for turn in reversed(range(length)) if scan.reverse else range(length):
        results = _body(scan.body, [*carried, *(s[turn] for s in sequences), *captured], sizes, dtype64)
        carried = results[:k]
        for array, part in zip(stacked, results[k:], strict=True):
            array[turn] = part
    return [*carried, *stacked]


_NESTED: dict[str, Callable[[Node, list[np.ndarray], Mapping[str, int], bool], list[np.ndarray]]] = {
    "fusion": _fusion,
    "cond": _cond,
    "while_loop": _while_loop,
    "scan": _scan,
}


def _bound(node: Node, sizes: Mapping[str, int], dtype64: bool) -> dict[str, Any]:
    """The node's attributes with sizes for symbols, and f64 for f32 when everything is computed in f64."""

    def bind(kind: str, value: Any) -> Any:
        if kind == "dim":
            return size_of(value, sizes)
        if kind == "shape":
            return tuple(size_of(dim, sizes) for dim in value)
        if kind == "dtype":
            return _promoted(value, dtype64)
        if kind == "literal" and dtype64 and value.dtype == f32.name:
            return Literal.of(value.array.astype(np.float64))
        return value

    return {name: bind(node.op.attributes[name].kind, value) for name, value in node.attributes.items()}


def _checked(node: Node, type_: TensorType, result: np.ndarray, sizes: Mapping[str, int], dtype64: bool) -> np.ndarray:
    """The result, whose shape and dtype must be those declared: an op's reference that breaks its own rule is a bug."""
    shape: tuple[Dim, ...] = tuple(size_of(dim, sizes) for dim in type_.shape)
    dtype = _promoted(type_.dtype, dtype64).numpy
    if result.shape != shape or (result.dtype != dtype and not (dtype64 and type_.dtype == f32)):
        found = f"{result.dtype}{list(result.shape)}"
        raise GraphcError(f"{node.op.name}: its reference gives {found}, declared is {dtype}{format_shape(shape)}")
    return result.astype(dtype, copy=False)
