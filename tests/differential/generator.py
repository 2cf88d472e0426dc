"""Random typed graphs by seed: any op of the registry, on any dtype, with gradients, updates and runtime counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

import graphc.ops  # noqa: F401  (fills the registry)
from graphc.autodiff.expand import expand_derivatives
from graphc.codegen.host import host
from graphc.errors import GraphcError
from graphc.ir.builder import Builder, broadcast_shapes
from graphc.ir.dims import Dim, evaluate, symbol, symbols
from graphc.ir.graph import Graph, Value, topological
from graphc.ir.op import OPS, Op
from graphc.ir.types import DType, TensorType, as_dtype, bool_, f32, f64, i32, i64, u8
from graphc.passes.bind import graph_symbols
from graphc.passes.rewrite import Rule

from .case import RNG, Case
from .idioms import IDIOMS, idiom
from .noise import COUNT, Trials
from .rules import RULES, Unfit, elementwise, sampled

T = TypeVar("T")

MOST_NODES = 30
MOST_ELEMENTS = 6000  # of a value
MOST_ELEMENTS_OF_GRADIENTS = 200_000  # the gradient of a running product takes a table of n^2 or n^3
LANES = host().lanes
SIZES = (0, 1, 1, 2, 2, 3, 5, 7, 11, 13, LANES - 1, LANES, LANES + 1, 2 * LANES + 1, 31, 37)
CAPACITIES = (1, 2, 7, 13, LANES - 1, LANES, LANES + 1, 2 * LANES, 37)
DRAWN = tuple(op for op in OPS.values() if not op.expanded and op.samples is not None)
ELEMENTWISE = tuple(op for op in DRAWN if op.scalar)
OFTEN = ("matmul", "sum", "mean", "max", "transpose", "reshape", "broadcast_to", "slice", "concatenate", "log_softmax",
         "contract", "max_pool", "scan")  # fmt: skip
STRUCTURED = tuple(op for op in DRAWN if not op.scalar for _ in range(3 if op.name in OFTEN else 1))


class Growth:
    """A graph while it is drawn: the values at hand, their arrays under trial, and what the rules choose with."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.builder = Builder()
        self.capacity = int(self.choose(CAPACITIES))
        self.counts = self._draw_counts()
        self.trials = Trials(self.counts)
        self.sizes: list[Dim] = [int(self.choose(SIZES[1:] if k else SIZES)) for k in range(3)] + [symbol(COUNT)]
        self.inputs: list[Value] = []
        self.arrays: dict[str, np.ndarray] = {}
        self.variables: list[str] = []
        self.pool: list[Value] = []
        self.held: Value | None = None  # a value that must be a result
        self._streams = 0
        self._state: Value | None = None

    def _draw_counts(self) -> tuple[int, ...]:
        """All rows, then fewer in the same memory; rarely none at all."""
        fewer = sorted({int(self.rng.integers(1, self.capacity + 1)), self.capacity // 2, 1}, reverse=True)
        counts = [n for n in fewer if 0 < n < self.capacity][: int(self.rng.integers(1, 3))]
        return (self.capacity, *counts, *([0] if self.rng.random() < 0.05 else []))

    # -- choosing --------------------------------------------------------------------------------------------

    def choose(self, options: Sequence[T]) -> T:
        """One of the options."""
        return options[int(self.rng.integers(len(options)))]

    def flip(self) -> bool:
        """True every other time."""
        return bool(self.rng.integers(2))

    def size(self) -> int:
        """A size that other tensors of the graph have, too."""
        return self.choose([d for d in self.sizes if isinstance(d, int)])

    def shape(self, rank: int) -> tuple[Dim, ...]:
        """A shape of at most `rank` axes, of the graph's sizes, and not too many elements."""
        shape = [self.choose(self.sizes) for _ in range(int(self.rng.integers(rank + 1)))]
        while self.elements(shape) > MOST_ELEMENTS:
            shape.pop()
        return tuple(shape)

    def elements(self, shape: Sequence[Dim]) -> int:
        """The number of elements of a shape at the capacity."""
        return math.prod(evaluate(d, {COUNT: self.capacity}) for d in shape)

    def dtype_like(self, kind: str) -> DType:
        """A dtype of the kind of a sample's array; float32 mostly."""
        if kind == "f":
            return f64 if self.rng.random() < 0.15 else f32
        return {"i": self.choose([i32, i64]), "u": u8, "b": bool_}[kind]

    def pick(self, kinds: str = "fiub", rank: int = 0) -> Value:
        """A value at hand of one of these kinds of dtypes, with at least `rank` axes; recent ones more often."""
        fitting = [v for v in self.pool if v.type.dtype.kind in kinds and v.type.rank >= rank]
        if not fitting:
            dtype = self.dtype_like(self.choose(kinds))
            return self.leaf((*(self.choose(self.sizes) for _ in range(rank)), *self.shape(1)), dtype)
        return self._recent(fitting)

    def _recent(self, values: Sequence[Value]) -> Value:
        """The last value, one of the last, or any: chains are what fuses."""
        kind = self.rng.random()
        return values[-1] if kind < 0.4 else self.choose(values[-4:] if kind < 0.7 else values)

    def operand(self, dtype: DType, beside: tuple[Dim, ...] | None) -> Value:
        """A value of a dtype (cast to it, or new), that broadcasts with the shape `beside`."""
        fitting = [v for v in self.pool if _broadcasts(v.type.shape, beside) and v.type.rank <= 4]
        same = [v for v in fitting if v.type.dtype == dtype]
        if same and self.rng.random() < 0.85:
            return self._recent(same)
        castable = [v for v in fitting if v.type.dtype.kind in ("b", "u") or dtype.is_float or dtype == bool_]
        if castable and self.rng.random() < 0.5:
            value = self.choose(castable)
            return value if value.type.dtype == dtype else self.builder.cast(value, dtype=dtype)
        return self.leaf(self.shape(3) if beside is None else beside, dtype)

    def operand_of(self, type_: TensorType) -> Value:
        """A value of exactly this type, at hand or new."""
        same = [v for v in self.pool if v.type == type_]
        return self.choose(same) if same and self.flip() else self.leaf(type_.shape, type_.dtype)

    def indices(self, shape: tuple[Dim, ...], size: Dim) -> Value:
        """Integers in 0 .. size - 1: a new input, or computed from integers at hand. Raises Unfit for no size."""
        least = evaluate(size, {COUNT: min(self.counts)})
        if least < 1:
            raise Unfit
        known = [v for v in self.pool if v.type.shape == shape and v.type.dtype in (i32, i64)]
        if known and isinstance(size, int) and self.rng.random() < 0.4:
            value = self.choose(known)
            return self.builder.elementwise("mod", value, self.builder.constant(size, value.type.dtype))
        dtype = self.choose([i32, i64, u8])
        exact = tuple(evaluate(d, {COUNT: self.capacity}) for d in shape)
        return self._entered(self.rng.integers(0, least, exact).astype(dtype.numpy), shape, variable=False)

    # -- leaves ----------------------------------------------------------------------------------------------

    def array(self, shape: tuple[int, ...], dtype: DType) -> np.ndarray:
        """Moderate numbers; a third of the floats are multiples of a half, for ties and zeros."""
        if dtype == bool_:
            return self.rng.integers(0, 2, shape).astype(bool)
        if dtype.is_integer:
            return self.rng.integers(0 if dtype == u8 else -5, 9, shape).astype(dtype.numpy)
        values = self.rng.uniform(-2, 2, shape)
        return (np.round(values * 2) / 2 if self.rng.random() < 0.33 else values).astype(dtype.numpy)

    def leaf(self, shape: tuple[Dim, ...], dtype: DType) -> Value:
        """A new input of the graph; every other one with integer sizes is a variable."""
        exact = tuple(evaluate(d, {COUNT: self.capacity}) for d in shape)
        if self.elements(shape) > MOST_ELEMENTS:
            raise Unfit
        return self._entered(self.array(exact, dtype), shape, variable=self.flip())

    def leaf_of(self, array: np.ndarray) -> Value:
        """A new input that holds this array."""
        return self._entered(array, array.shape, variable=False)

    def random_state(self) -> Value:
        """The random state, an input that all random ops share."""
        if self._state is None:
            array = np.array([self.rng.integers(1 << 40), self.rng.integers(100)], np.int64)
            self._state = Value(TensorType(i64, (2,)), name=RNG)
            self.inputs.append(self._state)
            self.arrays[RNG] = array
            self.trials.give(self._state, array)
        return self._state

    def stream(self) -> int:
        """A number for one more random op."""
        self._streams += 1
        return self._streams - 1

    def _entered(self, array: np.ndarray, shape: tuple[Dim, ...], variable: bool) -> Value:
        name = f"x{len(self.inputs)}"
        if variable and not any(symbols(d) for d in shape):
            self.variables.append(name)
        value = Value(TensorType(as_dtype(array.dtype), shape), name=name)
        self.inputs.append(value)
        self.arrays[name] = array
        self.trials.give(value, array)
        self.pool.append(value)
        return value

    # -- growing ---------------------------------------------------------------------------------------------

    def grow(self, what: Op | Rule) -> bool:
        """Add an op, or what a rewrite rule looks for, if it fits something and float32 can know its value."""
        before = len(self.inputs)
        try:
            accepted = self.accept(idiom(self, what) if isinstance(what, Rule) else self._applied(what))
        except (GraphcError, Unfit):
            accepted = False
        if not accepted:
            self._forget_inputs(before)
        return accepted

    def any_op(self) -> Op | Rule:
        """What to add next."""
        if self.rng.random() < 0.12:
            return self.choose(IDIOMS)
        return self.choose(ELEMENTWISE if self.rng.random() < 0.45 else STRUCTURED)

    def _applied(self, op: Op) -> Value:
        return RULES.get(op.name, elementwise if op.scalar else sampled)(self, op)

    def accept(self, value: Value) -> bool:
        """Compute a new value and what it is made of, and keep it if float32 can know all of that."""
        known = self.trials.values.keys()
        new = [n for n in topological([value], until=known) if n.outputs[0] not in known]
        outputs = [v for node in new for v in node.outputs]
        for v in outputs:
            if self.elements(v.type.shape) > MOST_ELEMENTS:
                return False
        self.trials.run(new)
        if not all(map(self.trials.settled, outputs)):
            return False
        if value not in self.pool:
            self.pool.append(value)
        return True

    def _forget_inputs(self, count: int) -> None:
        for value in self.inputs[count:]:
            if value is self._state:
                self._state = None
            if value in self.pool:
                self.pool.remove(value)
            if value.name in self.variables:
                self.variables.remove(value.name)
            del self.arrays[value.name]
        del self.inputs[count:]


def _broadcasts(shape: tuple[Dim, ...], beside: tuple[Dim, ...] | None) -> bool:
    if beside is None:
        return True
    try:
        broadcast_shapes([shape, beside])
    except GraphcError:
        return False
    return True


def draw(seed: int, holding: Rule | None = None) -> Case:
    """The case of a seed: the same on every machine of equal vector width.

    It holds a rule's pattern, or else the op whose turn it is: as many seeds in a row as there are ops have them all.
    """
    g = Growth(seed)
    for _ in range(int(g.rng.integers(1, 4))):
        g.leaf(g.shape(3), f32 if g.rng.random() < 0.7 else g.dtype_like(g.choose("fiub")))
    wanted = int(g.rng.integers(2, MOST_NODES - 6))
    first = holding or DRAWN[seed % len(DRAWN)]
    if any(g.grow(first) for _ in range(20)):
        g.held = g.pool[-1]
    if holding is not None:
        wanted = wanted // 2
    for _ in range(4 * wanted):
        if len(topological(g.pool)) >= wanted:
            break
        g.grow(g.any_op())
    return finished(g)


def finished(g: Growth) -> Case:
    """The case of what was drawn: some values as results, derivatives, updates of variables; only what is settled."""
    read = {v for node in topological(g.pool) for v in node.inputs}
    ends = [v for v in g.pool if v not in read and v.producer is not None]
    results = list(dict.fromkeys([*ends[-6:], g.choose(g.pool), *([g.held] if g.held is not None else [])]))
    if g.rng.random() < 0.8:
        results += Derivatives(g).draw()
    updates = _updates(g, results)
    results += [v for v in g.inputs if v.name in updates and g.rng.random() < 0.3]  # the value before the step
    while len(topological([*results, *updates.values()])) > MOST_NODES and len(results) > 1:
        del results[results[0] is g.held]  # what the case is about stays
    graph = Graph("random", tuple(g.inputs), (*results, *updates.values()))
    used = {v for node in graph.nodes for v in node.inputs} | set(graph.outputs)
    inputs = tuple(v for v in g.inputs if v in used or v.name in updates)
    if COUNT in graph_symbols(graph) and not any(v.type.shape[:1] == (symbol(COUNT),) for v in inputs):
        inputs = (*inputs, g.leaf((symbol(COUNT),), f32))  # what tells the number of rows
    names = {v.name for v in inputs}
    return Case(
        Graph("random", inputs, graph.outputs),
        {name: array for name, array in g.arrays.items() if name in names},
        g.counts,
        g.capacity,
        tuple(name for name in g.variables if name in names),
        tuple(updates),
    )


def _updates(g: Growth, results: Sequence[Value]) -> dict[str, Value]:
    """New values of a few variables: a step along something of its type, or any value of its type, a swap perhaps."""
    updates: dict[str, Value] = {}
    for leaf in [v for v in g.inputs if v.name in g.variables]:
        same = [v for v in [*g.pool, *results] if v.type == leaf.type and v is not leaf]
        if not same or g.rng.random() < 0.3:
            continue
        new = g.choose(same)
        if leaf.type.dtype.is_float and g.flip():
            step = g.builder.elementwise("mul", new, g.builder.constant(0.25, new.type.dtype))
            new = g.builder.sub(leaf, step)
        if _settled(g, [new])[0]:
            updates[leaf.name] = new
    return updates


class Derivatives:
    """Draws derivatives of what was grown: gradients of a scalar loss and of its gradient, vjp, jvp and jacobian."""

    def __init__(self, g: Growth) -> None:
        self.g = g

    def draw(self) -> list[Value]:
        """Those that float32 can know."""
        floats = [v for v in self.g.pool if v.type.dtype.is_float]
        if not floats:
            return []
        y = floats[-1] if self.g.rng.random() < 0.7 else self.g.choose(floats)
        found = self.gradients(self._loss(y), 2)
        if found and self.g.rng.random() < 0.35:
            found += self.gradients(self._loss(self.g.choose(found)), 1)
        if self.g.rng.random() < 0.4:
            kind = self.g.choose(["vjp", "jvp", "jacobian"])
            tries = (self._product(kind, self.g.choose(floats)) for _ in range(6))
            found += next((made for made in tries if made), [])
        return found

    def _loss(self, y: Value) -> Value:
        """A scalar that depends on every element of y in another way."""
        b, axes = self.g.builder, tuple(range(y.type.rank))
        shaped = b.elementwise(self.g.choose(["square", "sin", "neg"]), y)
        if self.g.rng.random() < 0.3 and y.type.rank:
            shaped = b.elementwise("mul", shaped, self.g.operand_of(TensorType(y.type.dtype, y.type.shape[-1:])))
        loss = getattr(b, self.g.choose(["sum", "mean"]))(shaped, axes=axes) if axes else shaped
        return loss

    def gradients(self, loss: Value, most: int) -> list[Value]:
        """Settled gradients of a loss by some of the values that it depends on."""
        inner = [v for node in topological([loss]) for v in (*node.inputs, *node.outputs)]
        values = [v for v in dict.fromkeys([*self.g.inputs, *inner]) if v.type.dtype == loss.type.dtype]
        found: list[Value] = []
        for _ in range(4 * most):
            wrt = self.g.choose(values) if values else None
            if wrt is None or len(found) == most:
                break
            found += self._settled(lambda b, wrt=wrt: b.grad(loss, wrt))
        return found

    def _product(self, how: str, y: Value) -> list[Value]:
        """A vector-Jacobian product, a Jacobian-vector product, or a small Jacobian, by a leaf that y may depend on."""
        leaves = [v for v in self.g.inputs if v.type.dtype == y.type.dtype]
        if not leaves:
            return []
        x = self.g.choose(leaves)
        if how == "vjp":
            vector = self.g.operand_of(y.type)
            return self._settled(lambda b: b.vjp(y, vector, x, outputs=1))
        if how == "jvp":
            vector = self.g.operand_of(x.type)
            return self._settled(lambda b: b.jvp(y, x, vector, outputs=1))
        sizes = [v.type.size for v in (y, x)]
        if not all(isinstance(s, int) for s in sizes) or min(sizes) > 6 or max(sizes) > 50:  # type: ignore[type-var]
            return []
        return self._settled(lambda b: b.jacobian(y, x))

    def _settled(self, make: Any) -> list[Value]:
        before = len(self.g.inputs)
        try:
            value = make(self.g.builder)
            if _settled(self.g, [value])[0]:
                return [value]
        except (GraphcError, Unfit):
            pass
        self.g._forget_inputs(before)
        return []


def _settled(g: Growth, values: Sequence[Value]) -> list[bool]:
    """Whether float32 can know values that derivatives are part of. Raises GraphcError where one does not exist."""
    graph = expand_derivatives(Graph("trial", tuple(g.inputs), tuple(values)))
    trials = Trials(g.counts)
    trials.values |= g.trials.values
    for node in graph.nodes:
        for value in node.outputs:
            if g.elements(value.type.shape) > MOST_ELEMENTS_OF_GRADIENTS:
                return [False] * len(values)
    trials.run(graph.nodes)
    return [trials.settled(v) for v in graph.outputs]
