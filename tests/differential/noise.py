"""How exactly a graph's values can be known when it is computed in float32: by running it with noise.

Every inexact value (inputs included) is changed by some units of rounding of its dtype, several times over, and the
largest change of a result is what it may deviate by (Parker, "Monte Carlo arithmetic", 1997). So no rule is needed for
each op: a difference that cancels, an argmax of near-equal elements and a sum of many terms all show what they do. The
noise is a function of the value, so equal values stay equal: ties are ties in every run. Whole numbers and values
that an op only passes on get none: zeros, ones, counts and whatever comes out of comparisons are exact. In the last run
values are rounded instead, so that nearly equal ones become equal.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from graphc.errors import GraphcError
from graphc.interpret import evaluate
from graphc.ir import dims
from graphc.ir.graph import Graph, Node, Value, with_inputs
from graphc.ir.types import f32, tensor

COUNT = "N"  # the one dimension symbol of random graphs
NOISY_RUNS = 4  # two of opposite noise, one more, and one of rounded values
ROUNDED_BITS = {"f32": 20, "f64": 48}  # of the digits, in the last run
NO_COPIES = frozenset(["mean", "norm", "std", "var", "logsumexp"])  # equal to an operand's element, but for rounding
DEVIATIONS = frozenset(["std", "var"])  # of equal elements 0, but in float32 their sum is no multiple of one of them
# Relative noise of an op. A float32 has 2^-24; tile functions are right to 2 units, sums of n terms to about sqrt(n).
NOISE = {"f32": 2.0**-21, "f64": 2.0**-49}
LARGEST = 1e4  # of a value: what is larger only overflows later
LEAST = 1e-12  # of a tensor's greatest value, unless it is 0: what is smaller underflows later
SPREAD = 1e-4  # of what noise does, relative to a tensor's greatest value
SAFETY = 10.0  # allowed deviation over the largest that the noisy runs show

Runs = tuple[np.ndarray, ...]  # a value in the exact run and in the noisy ones


def first_rows(array: np.ndarray, value: Value, count: int) -> np.ndarray:
    """The part of an array that `count` rows take."""
    return array[tuple(slice(dims.evaluate(dim, {COUNT: count})) for dim in value.type.shape)]


def settled(runs: Runs) -> bool:
    """True if a value is finite and moderate, and noise changes it little: by nothing if it is no float."""
    exact, *noisy = runs
    if exact.dtype.kind != "f":
        return all(np.array_equal(exact, other) for other in noisy)
    if not all(np.isfinite(run).all() for run in runs):
        return False
    scale = float(np.abs(exact).max(initial=0.0))
    return (scale == 0 or LEAST <= scale <= LARGEST) and _spread(runs) <= SPREAD * scale


def allowed(runs: Runs, dtype: str) -> float:
    """The absolute deviation that a compiled value of this dtype may have."""
    return SAFETY * _spread(runs) + 4 * NOISE[dtype] * float(np.abs(runs[0]).max(initial=0.0))


def _spread(runs: Runs) -> float:
    exact, *noisy = runs
    return max(float(np.abs(other - exact).max(initial=0.0)) for other in noisy)


class Trials:
    """Values of a graph that may still grow, at each count of rows: exact, and under noise."""

    def __init__(self, counts: Sequence[int]) -> None:
        self.counts = tuple(counts)
        self.values: dict[Value, tuple[Runs, ...]] = {}

    def give(self, value: Value, array: np.ndarray) -> None:
        """An input's array at the greatest count; of floats that are no whole numbers the noisy runs see others."""
        wide = array.astype(np.float64) if value.type.dtype == f32 else array
        parts = [first_rows(wide, value, count) for count in self.counts]
        self.values[value] = tuple(_runs([part] * (1 + NOISY_RUNS), (), value) for part in parts)

    def run(self, nodes: Iterable[Node]) -> None:
        """Compute nodes whose operands are known. Raises GraphcError where an op refuses its operands' values."""
        for node in nodes:
            if node.outputs[0] in self.values:
                continue
            graph = _single(node)
            found = [self._at(node, graph, position) for position in range(len(self.counts))]
            for index, value in enumerate(node.outputs):
                self.values[value] = tuple(at_count[index] for at_count in found)

    def settled(self, value: Value) -> bool:
        """True if float32 can know the value, whatever the count."""
        return all(settled(runs) for runs in self.values[value])

    def _at(self, node: Node, graph: Graph, position: int) -> list[Runs]:
        """The outputs of a node at one count."""
        results = []
        for run in range(1 + NOISY_RUNS):
            arrays = {f"x{k}": self.values[v][position][run] for k, v in enumerate(node.inputs)}
            if run and node.op.name in DEVIATIONS:
                arrays = {f"x{k}": _scattered(arrays[f"x{k}"], v, run) for k, v in enumerate(node.inputs)}
            inside = node.op.nested is not None and run == NOISY_RUNS - 1  # rounding in each turn of a loop
            rows = np.zeros(self.counts[position])
            results.append(computed(graph, {**arrays, "rows": rows}, dtype64=not inside))
        operands = [self.values[v][position][0] for v in node.inputs if node.op.name not in NO_COPIES]
        return [_runs(found, operands, v) for v, found in zip(node.outputs, zip(*results, strict=True), strict=True)]


def computed(graph: Graph, arrays: Mapping[str, np.ndarray], dtype64: bool = True) -> list[np.ndarray]:
    """What the interpreter computes, float32 values in float64 unless told otherwise.

    Raises GraphcError also where NumPy refuses, as for the mean of nothing.
    """
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # "mean of empty slice"
            return evaluate(graph, arrays, dtype64=dtype64)
    except (ValueError, RuntimeWarning) as error:
        raise GraphcError(str(error)) from None


def _single(node: Node) -> Graph:
    """The graph of one node; an input that nothing reads tells the count of rows."""
    inputs = tuple(Value(v.type, name=f"x{k}") for k, v in enumerate(node.inputs))
    return Graph("single", (*inputs, Value(tensor("f64", (COUNT,)), name="rows")), with_inputs(node, inputs).outputs)


def _runs(found: Sequence[np.ndarray], operands: Sequence[np.ndarray], value: Value) -> Runs:
    """The results of an op in each run, with its own noise in all but the first: up or down by an element's digits."""
    exact = found[0]
    if exact.dtype.kind != "f" or not exact.size:
        return tuple(found)
    keep = _kept(exact, operands)
    return (exact, *(np.where(keep, array, _noisy(array, value, k)) for k, array in enumerate(found[1:])))


def _kept(exact: np.ndarray, operands: Sequence[np.ndarray]) -> np.ndarray:
    """True for whole numbers, for infinities and NaN, and for elements of an operand, whatever their sign."""
    keep = ~np.isfinite(exact) | (exact == np.rint(exact))
    for operand in operands:
        if operand.dtype.kind == "f" and operand.size and not keep.all():
            keep |= np.isin(np.abs(exact), np.abs(operand))
    return keep


def _noisy(array: np.ndarray, value: Value, run: int) -> np.ndarray:
    digits, exponents = np.frexp(array)
    dtype = value.type.dtype.name
    with np.errstate(all="ignore"):
        if run == NOISY_RUNS - 1:
            unit = 2.0 ** ROUNDED_BITS[dtype]
            return np.ldexp(np.rint(digits * unit) / unit, exponents)
        sign = np.where(np.cos(1e9 * digits + run // 2) > 0, 1.0, -1.0) * (-1 if run == 1 else 1)
        return np.asarray(array * (1 + NOISE[dtype] * sign))


def _scattered(array: np.ndarray, value: Value, run: int) -> np.ndarray:
    """The array with noise that equal elements do not share."""
    if array.dtype.kind != "f":
        return array
    places = np.arange(array.size).reshape(array.shape)
    return np.asarray(array * (1 + NOISE[value.type.dtype.name] * np.cos(7.0 * places + run)))
