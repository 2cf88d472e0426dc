"""Branches and loops, compiled, against the interpreter: where their values live and what is copied."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import graphc.ops  # noqa: F401  (fills the registry)
from graphc.autodiff.reverse import gradients
from graphc.codegen.build import Build, build
from graphc.codegen.memory import Signature
from graphc.errors import InputError
from graphc.interpret import evaluate
from graphc.ir.buffers import Elements, aligned_zeros
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Value
from graphc.ir.types import TensorType, tensor
from graphc.kernel.plan import Branch, Call, Loop, While, walk
from graphc.kernel.plan_text import print_plan
from graphc.ops.scan import Scan
from graphc.ops.while_loop import While as WhileParts
from graphc.runtime.executable import Executable
from graphc.runtime.profile import profile

b = Builder()
NUMBER, COUNT = tensor("f32"), tensor("i64")
ROW = tensor("f32", (3,))
T = 5
XS = Value(tensor("f32", (T, 3)), name="xs")
X, Y = Value(ROW, name="x"), Value(ROW, name="y")
P = Value(tensor("bool"), name="p")

Turn = Callable[..., Sequence[Value]]


def body(name: str, types: Sequence[TensorType], make: Turn) -> Graph:
    inputs = tuple(Value(t, name=f"a{k}") for k, t in enumerate(types))
    return Graph(name, inputs, tuple(make(*inputs)))


def scanned(
    make: Turn,
    init: Sequence[Value] = (),
    sequences: Sequence[Value] = (),
    captured: Sequence[Value] = (),
    *,
    length: int = T,
    reverse: bool = False,
) -> tuple[Value, ...]:
    slices = [TensorType(v.type.dtype, v.type.shape[1:]) for v in sequences]
    types = [*(v.type for v in init), *slices, *(v.type for v in captured)]
    return Scan(tuple(init), tuple(sequences), tuple(captured), body("turn", types, make), length, reverse).apply(b)


def chosen(p: Value, then: Turn, orelse: Turn, *operands: Value) -> tuple[Value, ...]:
    types = [v.type for v in operands]
    found = b.cond(p, *operands, then=body("then", types, then), orelse=body("orelse", types, orelse))
    return found if isinstance(found, tuple) else (found,)


def repeated(test: Turn, make: Turn, init: Sequence[Value], captured: Sequence[Value] = (), bound: int = -1) -> Any:
    types = [v.type for v in (*init, *captured)]
    parts = WhileParts(tuple(init), tuple(captured), body("test", types, test), body("turn", types, make), bound)
    return parts.apply(b)


def sample(inputs: Sequence[Value], seed: int = 0, **sizes: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    arrays = {}
    for value in inputs:
        shape = tuple(d if isinstance(d, int) else sizes[str(d)] for d in value.type.shape)
        kind = value.type.dtype.name
        drawn = rng.standard_normal(shape) if kind == "f32" else rng.integers(0, 2 if kind == "bool" else 3, shape)
        arrays[value.name] = np.asarray(drawn).astype(value.type.dtype.numpy)
    return arrays


class Compiled:
    """A graph compiled, with the arrays that it was run on."""

    def __init__(
        self,
        outputs: Sequence[Value],
        inputs: Sequence[Value],
        dims: dict[str, int] | None = None,
        updated: Sequence[str] = (),
    ) -> None:
        """The last outputs are the new values of the inputs `updated`, which are variables."""
        self.graph = Graph("main", tuple(inputs), tuple(outputs))
        self.build: Build = build(self.graph, Signature(frozenset(updated), tuple(updated)), dims or {}, check=True)
        self.plan = self.build.plan
        objects = {k.symbol: k.machine_code for k in self.build.kernels.values()}
        types = {v.name: v.type for v in inputs}
        self.variables = {name: Elements(aligned_zeros(types[name].shape, types[name].dtype)) for name in updated}
        owners = {buffer: self.variables[name] for buffer, name in self.build.variables.items()}
        self.run = Executable(self.plan, objects, owners, self.build.constants, 0)

    def check(self, arrays: dict[str, np.ndarray] | None = None, **given: Any) -> list[np.ndarray]:
        """Run twice, compare with the interpreter, and give back the results."""
        arrays = sample(self.graph.inputs) if arrays is None else arrays
        arrays |= {name: np.asarray(value) for name, value in given.items()}
        expected = evaluate(self.graph, arrays)
        for _ in range(2):
            found = self.run(arrays)
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-6)
        return found

    @property
    def kernels(self) -> list[str]:
        return list(self.build.kernels)

    @property
    def copies(self) -> int:
        return sum("copy" in name for name in self.kernels)

    def calls(self, arrays: dict[str, np.ndarray]) -> dict[str, int]:
        times = profile(self.run, arrays, repeats=1, warmup=0)
        return {name: t.calls for name, t in zip(self.kernels, times, strict=True)}


def compiled(outputs: Sequence[Value], *inputs: Value, **dims: int) -> Compiled:
    return Compiled(outputs, inputs, dims)


# ---- scans: carried values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reverse", [False, True])
def test_an_accumulator_is_written_in_place(reverse: bool) -> None:
    made = compiled(scanned(lambda s, x: [b.maximum(s, x)], [b.full(1, ROW)], [XS], reverse=reverse), XS)
    made.check()
    assert made.copies == 0 and len(made.kernels) == 2  # the fill, and the maximum over it


@pytest.mark.parametrize("reverse", [False, True])
def test_a_carried_value_that_is_stacked_lives_in_the_stack(reverse: bool) -> None:
    """tanh(h W + x) reads all of h, so it cannot be written over it; no copy is needed all the same."""
    W = Value(tensor("f32", (3, 3)), name="W")

    def cell(h: Value, x: Value, w: Value) -> list[Value]:
        new = b.tanh(b.add(b.matmul(b.reshape(h, shape=(1, 3)), w), b.reshape(x, shape=(1, 3))))
        return [b.reshape(new, shape=(3,)), b.reshape(new, shape=(3,))]

    def plain(h: Value, x: Value, w: Value) -> list[Value]:
        new = b.tanh(b.add(b.matmul(h, w), x))
        return [new, new, h]

    start, xs = Value(tensor("f32", (2, 3)), name="h"), Value(tensor("f32", (T, 2, 3)), name="xs")
    made = compiled(scanned(plain, [b.mul(start, start)], [xs], [W], reverse=reverse), start, xs, W)
    made.check()
    assert made.copies == 0
    compiled(scanned(cell, [X], [XS], [W], reverse=reverse), X, XS, W).check()


def test_a_first_value_that_is_an_input_is_copied() -> None:
    made = compiled(scanned(lambda s, x: [b.maximum(s, x)], [X], [XS]), X, XS)
    made.check()
    assert made.copies == 1


def test_a_first_value_that_others_need_later_is_copied() -> None:
    first = b.mul(X, X)
    last, stacked = scanned(lambda s, x: [b.add(s, x), x], [first], [XS])
    made = compiled([last, b.sub(last, first), stacked], X, XS)
    made.check()


def test_a_first_value_that_others_need_earlier_is_overwritten() -> None:
    first = b.cumsum(X, axis=0)
    (last,) = scanned(lambda s, x: [b.maximum(s, x)], [first], [XS])
    made = compiled([last, b.cumsum(first, axis=0)], X, XS)
    made.check()
    assert made.copies == 0


def test_one_first_value_for_two() -> None:
    first = b.mul(X, X)
    compiled(scanned(lambda s, t, x: [b.add(s, x), b.mul(t, x)], [first, first], [XS]), X, XS).check()
    compiled(scanned(lambda s, x, c: [b.add(s, b.mul(x, c))], [first], [XS], [first]), X, XS).check()
    both = b.mul(XS, XS)
    rows = Value(tensor("f32", (T, 3)), name="other")
    made = compiled(scanned(lambda s, x, y: [b.add(s, y)], [both], [both], [rows]), XS, rows)
    made.check()


def test_carried_values_that_change_places() -> None:
    made = compiled(scanned(lambda s, t: [t, s], [X, Y]), X, Y)
    found = made.check()
    np.testing.assert_array_equal(found[0], sample([X, Y])["y"])  # five turns
    made = compiled(scanned(lambda s, t, u: [t, u, s], [X, Y, b.mul(X, Y)]), X, Y)
    made.check()
    made = compiled(scanned(lambda s, t, x: [b.add(t, x), b.mul(s, x), s, t], [X, Y], [XS]), X, Y, XS)
    made.check()


def test_a_carried_value_that_stays_is_no_copy() -> None:
    made = compiled(scanned(lambda s, t, x: [b.add(s, b.mul(t, x)), t], [X, Y], [XS]), X, Y, XS)
    made.check()
    made = compiled(scanned(lambda s, x: [s, b.mul(s, x), s], [X], [XS]), X, XS)
    made.check()


def test_new_values_that_are_slices_captured_or_constant() -> None:
    table = b.constant(np.arange(3, dtype=np.float32))
    made = compiled(scanned(lambda s, x: [x, s], [X], [XS]), X, XS)
    made.check()
    made = compiled(scanned(lambda s, x, c: [c, b.add(s, x)], [X], [XS], [Y]), X, XS, Y)
    made.check()
    made = compiled(scanned(lambda s, x: [table, b.add(s, x), table], [X], [XS]), X, XS)
    made.check()


def test_one_value_for_two() -> None:
    def turn(s: Value, t: Value, x: Value) -> list[Value]:
        new = b.add(b.mul(s, t), x)
        return [new, new, new, new, x, x, s, s]

    for reverse in (False, True):
        compiled(scanned(turn, [X, Y], [XS], reverse=reverse), X, Y, XS).check()


def test_no_turn() -> None:
    none = Value(tensor("f32", (0, 3)), name="none")
    outputs = scanned(lambda s, x: [b.add(s, x), x, b.mul(s, x)], [X], [none], length=0)
    made = compiled([*outputs, b.sum(outputs[1], axes=(0,))], X, none)
    made.check()
    assert not any(isinstance(e, Loop) for e in walk(made.plan.entries))


def test_one_turn_and_no_carried_value() -> None:
    one = Value(tensor("f32", (1, 3)), name="one")
    compiled(scanned(lambda s, x: [b.add(s, x), s], [X], [one], length=1), X, one).check()
    compiled(scanned(lambda x, y: [b.mul(x, y)], (), [XS], [Y]), XS, Y).check()
    compiled(scanned(lambda s: [b.add(s, s)], [X]), X).check()


def test_scalars_integers_and_truth_values() -> None:
    n, words = Value(COUNT, name="n"), Value(tensor("i64", (T,)), name="words")
    bits = Value(tensor("bool", (T,)), name="bits")
    made = compiled(
        scanned(lambda n, any_, w, bit: [b.add(n, w), b.logical_or(any_, bit), bit, n], [n, P], [words, bits]),
        n, P, words, bits,
    )  # fmt: skip
    made.check()


def test_a_loop_after_a_loop_goes_on_in_its_memory() -> None:
    first = b.mul(X, X)
    (middle,) = scanned(lambda s, x: [b.maximum(s, x)], [first], [XS])
    (last,) = scanned(lambda s, x: [b.mul(s, x)], [middle], [XS], reverse=True)
    made = compiled([last], X, XS)
    made.check()
    assert made.copies == 0
    made = compiled([last, middle], X, XS)
    made.check()
    assert made.copies == 1


def test_stacks_of_one_loop_are_sequences_of_the_next() -> None:
    _, squares = scanned(lambda s, x: [b.add(s, x), b.mul(s, s)], [X], [XS])
    outputs = scanned(lambda s, q: [b.add(s, q), b.sub(q, s)], [Y], [squares], reverse=True)
    compiled([*outputs, squares], X, Y, XS).check()


def test_runtime_counts_in_a_turn() -> None:
    xs, h = Value(tensor("f32", (T, "N", 3)), name="xs"), Value(tensor("f32", ("N", 3)), name="h")
    W = Value(tensor("f32", (3, 3)), name="W")
    outputs = scanned(
        lambda h, total, x, w: [(new := b.tanh(b.add(b.matmul(h, w), x))), b.add(total, b.sum(new, axes=(0,))), new, h],
        [h, b.full(0, ROW)], [xs], [W],
    )  # fmt: skip
    made = compiled(outputs, h, xs, W, N=6)
    for count in (6, 4, 1):
        made.check(sample([h, xs, W], N=count))


# ---- scans within scans ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outer", [False, True])
@pytest.mark.parametrize("inner", [False, True])
def test_a_scan_in_a_scan(outer: bool, inner: bool) -> None:
    """The inner loop walks the slice of the outer one, carries its carried value on, and reads a captured one."""
    xs = Value(tensor("f32", (4, T, 3)), name="xs")

    def turn(s: Value, x: Value, y: Value) -> list[Value]:
        def within(a: Value, x: Value, s: Value, y: Value) -> list[Value]:
            return [b.add(b.mul(a, y), b.mul(x, s)), b.sub(x, a)]

        last, stacked = scanned(within, [s], [x], [s, y], reverse=inner)
        return [last, stacked, last, b.sum(stacked, axes=(0,))]

    made = compiled(scanned(turn, [X], [xs], [Y], length=4, reverse=outer), X, Y, xs)
    made.check()


def test_a_loop_that_starts_anew_in_each_turn() -> None:
    def turn(s: Value, x: Value, xs: Value) -> list[Value]:
        (total,) = scanned(lambda a, y, x: [b.add(a, b.mul(y, x))], [b.mul(x, x)], [xs], [x])
        return [b.add(s, total), total]

    compiled(scanned(turn, [X], [XS], [XS]), X, XS).check()


# ---- branches -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [True, False])
def test_only_one_side_runs(p: bool) -> None:
    u, v = (Value(tensor("f32", (3, 3)), name=name) for name in "uv")
    made = compiled(chosen(P, lambda x, y: [b.matmul(x, y)], lambda x, y: [b.sub(x, y)], u, v), P, u, v)
    arrays = sample(made.graph.inputs) | {"p": np.array(p)}
    made.check(arrays)
    calls = made.calls(arrays)
    assert calls == {"cond_then_matmul": int(p), "cond_orelse_sub": int(not p)}


@pytest.mark.parametrize("p", [True, False])
def test_results_of_branches_that_are_not_computed_in_them(p: bool) -> None:
    """Operands, views, constants, and one value twice."""
    table = b.constant(np.arange(3, dtype=np.float32))

    def then(x: Value, y: Value) -> list[Value]:
        new = b.mul(x, y)
        return [x, b.reshape(y, shape=(3, 1)), table, new, new, b.full(2, ROW), b.reshape(new, shape=(1, 3))]

    def orelse(x: Value, y: Value) -> list[Value]:
        new = b.add(x, y)
        return [y, b.reshape(new, shape=(3, 1)), new, x, x, x, b.reshape(x, shape=(1, 3))]

    made = compiled(chosen(P, then, orelse, X, Y), P, X, Y)
    made.check(p=p)
    compiled([b.mul(v, v) for v in chosen(P, then, orelse, b.exp(X), b.exp(Y))], P, X, Y).check(p=p)


@pytest.mark.parametrize("p", [True, False])
def test_branches_without_work(p: bool) -> None:
    compiled(chosen(P, lambda x, y: [x], lambda x, y: [y], X, Y), P, X, Y).check(p=p)


def test_branches_within_branches() -> None:
    q = Value(tensor("bool"), name="q")

    def then(q: Value, x: Value, y: Value) -> Sequence[Value]:
        return chosen(q, lambda x, y: [b.mul(x, y)], lambda x, y: [x], x, y)

    made = compiled(chosen(P, then, lambda q, x, y: [b.sub(x, y)], q, X, Y), P, q, X, Y)
    for first in (True, False):
        for second in (True, False):
            made.check(p=first, q=second)


def test_a_branch_in_a_scan_takes_the_way_of_its_turn() -> None:
    flags = Value(tensor("bool", (T,)), name="flags")

    def turn(s: Value, flag: Value, x: Value) -> list[Value]:
        (new,) = chosen(flag, lambda s, x: [b.tanh(b.add(s, x))], lambda s, x: [s], s, x)
        return [new, b.add(new, x)]

    made = compiled(scanned(turn, [X], [flags, XS]), X, flags, XS)
    for k in range(4):
        arrays = sample(made.graph.inputs, seed=k)
        made.check(arrays)
        then = [name for name in made.kernels if "then" in name]
        assert {made.calls(arrays)[name] for name in then} == {int(arrays["flags"].sum())}


def test_a_scan_in_a_branch() -> None:
    def then(x: Value, xs: Value) -> list[Value]:
        return list(scanned(lambda s, x: [b.add(s, x), b.mul(s, x)], [x], [xs]))

    made = compiled(chosen(P, then, lambda x, xs: [x, xs], X, XS), P, X, XS)
    made.check(p=True)
    made.check(p=False)


def test_indices_are_checked_where_a_kernel_always_runs() -> None:
    """A branch that would read out of range may not run; the check is for what runs always."""
    rows, index = Value(tensor("f32", (4, 3)), name="rows"), Value(tensor("i32", (2,)), name="index")
    arrays = {"p": np.array(False), "rows": np.ones((4, 3), np.float32), "index": np.array([1, 9], np.int32)}

    def then(rows: Value, index: Value) -> list[Value]:
        return [b.take(rows, index, axis=0)]

    outputs = chosen(P, then, lambda rows, index: [b.full(0, tensor("f32", (2, 3)))], rows, index)
    lazy = compiled(outputs, P, rows, index)
    np.testing.assert_array_equal(lazy.run(arrays)[0], np.zeros((2, 3)))
    words = Value(tensor("i32", (T, 2)), name="words")
    eager = compiled(scanned(lambda w, rows: [b.take(rows, w, axis=0)], (), [words], [rows]), words, rows)
    eager.check(sample([words, rows]))
    with pytest.raises(InputError, match="words"):
        eager.run({"words": np.full((T, 2), 4, np.int32), "rows": arrays["rows"]})


# ---- loops with a test ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bound", "limit", "turns"), [(-1, 40, 4), (10, 40, 4), (2, 40, 2), (0, 40, 0), (-1, -1, 0)])
def test_a_loop_with_a_test(bound: int, limit: float, turns: int) -> None:
    top = Value(NUMBER, name="top")
    outputs = repeated(
        lambda s, n, top: [b.lt(b.sum(s, axes=(0,)), top)],
        lambda s, n, top: [b.add(s, s), b.add(n, b.constant(np.int64(1)))],
        [X, b.constant(np.int64(0))], [top], bound,
    )  # fmt: skip
    made = compiled(outputs, X, top)
    found = made.check(x=np.ones(3, np.float32), top=np.array(limit, np.float32))
    assert found[1] == turns


def test_a_loop_that_tests_a_carried_or_captured_truth_value() -> None:
    n = Value(COUNT, name="n")
    three = b.constant(np.int64(3))

    def turn(go: Value, n: Value) -> list[Value]:
        new = b.add(n, b.constant(np.int64(1)))
        return [b.lt(new, three), new]

    made = compiled(repeated(lambda go, n: [go], turn, [P, n]), P, n)
    for p in (True, False):
        made.check(p=p, n=np.array(-2))
    made = compiled(repeated(lambda s, p: [p], lambda s, p: [b.add(s, s)], [X], [P], bound=3), X, P)
    for p in (True, False):
        made.check(p=p)


def test_a_loop_with_a_test_in_a_scan() -> None:
    start, tops = Value(NUMBER, name="start"), Value(tensor("f32", (T,)), name="tops")

    def turn(s: Value, top: Value) -> list[Value]:
        (found,) = repeated(lambda a, top: [b.lt(a, top)], lambda a, top: [b.add(a, a)], [b.full(1, NUMBER)], [top])
        return [b.add(s, found), found]

    made = compiled(scanned(turn, [start], [tops]), start, tops)
    made.check(tops=np.array([3, 0, 100, 1, 7], np.float32))


# ---- gradients ------------------------------------------------------------------------------------------------------


def with_gradients(outputs: Sequence[Value], wrt: Sequence[Value]) -> list[Value]:
    """The outputs, and the gradients of the sum of the squares of all of them."""
    loss = None
    for value in outputs:
        square = b.sum(b.mul(value, value), axes=tuple(range(value.type.rank)))
        loss = square if loss is None else b.add(loss, square)
    assert loss is not None
    found = gradients([loss], [b.constant(np.float32(1))], wrt, b)
    assert None not in found
    return [*outputs, *(v for v in found if v is not None)]


@pytest.mark.parametrize("reverse", [False, True])
def test_back_propagation_through_time(reverse: bool) -> None:
    h, xs = Value(tensor("f32", (2, 3)), name="h"), Value(tensor("f32", (T, 2, 4)), name="xs")
    W, U = Value(tensor("f32", (3, 3)), name="W"), Value(tensor("f32", (4, 3)), name="U")

    def cell(h: Value, x: Value, w: Value, u: Value) -> list[Value]:
        new = b.tanh(b.add(b.matmul(h, w), b.matmul(x, u)))
        return [new, new]

    outputs = scanned(cell, [h], [xs], [W, U], reverse=reverse)
    compiled(with_gradients(outputs, [h, xs, W, U]), h, xs, W, U).check()


def test_a_cell_with_two_carried_values_and_gates() -> None:
    """An LSTM cell: i, f, g, o from one contraction. (Hochreiter, Schmidhuber, "Long short-term memory", 1997.)"""
    n, k = 2, 3
    h, c = (Value(tensor("f32", (n, k)), name=name) for name in "hc")
    xs, W = Value(tensor("f32", (T, n, 4 * k)), name="xs"), Value(tensor("f32", (k, 4 * k)), name="W")

    def cell(h: Value, c: Value, x: Value, w: Value) -> list[Value]:
        z = b.add(b.matmul(h, w), x)
        i, f, g, o = (b.slice(z, start=(0, j * k), shape=(n, k), step=(1, 1)) for j in range(4))
        c = b.add(b.mul(b.sigmoid(f), c), b.mul(b.sigmoid(i), b.tanh(g)))
        h = b.mul(b.sigmoid(o), b.tanh(c))
        return [h, c, h]

    outputs = scanned(cell, [h, c], [xs], [W])
    compiled(with_gradients(outputs, [h, c, xs, W]), h, c, xs, W).check()


def test_gradients_through_branches_and_loops_with_a_bound() -> None:
    outputs = chosen(P, lambda x, y: [b.mul(b.sin(x), y)], lambda x, y: [b.mul(x, x)], X, Y)
    made = compiled(with_gradients(outputs, [X, Y]), P, X, Y)
    made.check(p=True)
    made.check(p=False)
    top = Value(NUMBER, name="top")
    outputs = repeated(
        lambda s, x, top: [b.lt(b.sum(b.mul(s, s), axes=(0,)), top)],
        lambda s, x, top: [b.add(b.mul(s, s), x)], [X], [Y, top], bound=4,
    )  # fmt: skip
    made = compiled(with_gradients(outputs, [X, Y]), X, Y, top)
    for limit in (0, 3, 20):
        made.check(sample([X, Y]) | {"top": np.array(limit, np.float32)})


def test_second_derivatives_of_a_scan() -> None:
    outputs = scanned(lambda s, x, y: [b.mul(b.sin(s), b.add(x, y))], [X], [XS], [Y])
    first = with_gradients(outputs, [X, Y])[-2:]
    compiled(with_gradients(first, [X, XS, Y]), X, XS, Y).check()


def test_gradients_of_a_scan_with_a_branch_and_a_scan_in_it() -> None:
    flags = Value(tensor("bool", (T,)), name="flags")

    def turn(s: Value, flag: Value, x: Value, y: Value) -> list[Value]:
        (new,) = chosen(flag, lambda s, x: [b.tanh(b.add(s, x))], lambda s, x: [b.mul(s, x)], s, x)
        (powers,) = scanned(lambda p, y: [b.mul(p, b.add(y, y))], [new], (), [y], length=2)
        return [b.tanh(powers), new]

    outputs = scanned(turn, [X], [flags, XS], [Y])
    made = compiled(with_gradients(outputs, [X, XS, Y]), X, flags, XS, Y)
    for seed in range(3):
        made.check(sample(made.graph.inputs, seed))


# ---- random loops ---------------------------------------------------------------------------------------------------


def flipped(x: Value) -> Value:
    """`x` in reverse order along axis 0."""
    found = b.slice(x, start=(int(str(x.type.shape[0])) - 1, *[0] * (x.type.rank - 1)), shape=x.type.shape,
                    step=(-1, *[1] * (x.type.rank - 1)))  # fmt: skip
    assert isinstance(found, Value)
    return found


def random_loop(rng: np.random.Generator) -> tuple[list[Value], list[Value]]:
    """Outputs and inputs of a scan whose new values and outputs are any of its operands, views and new values."""
    k, m, c = (int(rng.integers(low, 4)) for low in (1, 0, 0))
    inits = [Value(ROW, name=f"c{i}") for i in range(k)]
    sequences = [Value(XS.type, name=f"s{i}") for i in range(m)]
    captured = [Value(ROW, name=f"k{i}") for i in range(c)]
    leaves = [*inits, *sequences, *captured]

    def turn(*values: Value) -> list[Value]:
        pool = list(values)
        for _ in range(int(rng.integers(0, 4))):
            x, y = (pool[int(rng.integers(len(pool)))] for _ in range(2))
            kind = int(rng.integers(6))
            if kind == 0:
                pool.append(b.tanh(x))
            elif kind == 1:
                pool.append(b.elementwise("minimum", x, y))
            elif kind == 2:
                pool.append(b.reshape(b.reshape(x, shape=(3, 1)), shape=(3,)))
            elif kind == 3:
                pool.append(flipped(x))
            elif kind == 4:
                test = b.lt(b.sum(x, axes=(0,)), b.sum(y, axes=(0,)))
                pool += chosen(test, lambda x, y: [b.sub(x, y), y], lambda x, y: [x, x], x, y)
            else:
                last, stacked = scanned(lambda s, y: [b.tanh(b.sub(y, s)), s], [x], (), [y], length=2)
                pool += [last, b.reshape(b.slice(stacked, start=(1, 0), shape=(1, 3), step=(1, 1)), shape=(3,))]
        return [pool[int(rng.integers(len(pool)))] for _ in range(k + int(rng.integers(0, 4)))]

    given = [b.exp(v) if rng.integers(2) else v for v in inits]
    outputs = list(scanned(turn, given, sequences, captured, reverse=bool(rng.integers(2))))
    outputs += [v for v in given if rng.integers(4) == 0]
    return [flipped(v) if rng.integers(4) == 0 else v for v in outputs], leaves


@pytest.mark.parametrize("seed", range(16))
def test_random_loops(seed: int) -> None:
    outputs, inputs = random_loop(np.random.default_rng(seed))
    compiled(outputs, *inputs).check()


@pytest.mark.parametrize("seed", range(300, 312))
def test_random_loops_that_update_variables(seed: int) -> None:
    """All results and new values are of the old values of variables, in whatever memory they are computed."""
    rng = np.random.default_rng(seed)
    outputs, inputs = random_loop(rng)
    leaves = [v for v in inputs if rng.integers(2)]
    news: dict[str, Value] = {}
    for leaf in leaves:
        fitting = [v for v in (*outputs, *inputs) if v.type == leaf.type]
        news[leaf.name] = fitting[int(rng.integers(len(fitting)))]
        if rng.integers(2):
            news[leaf.name] = b.sub(leaf, b.mul(news[leaf.name], b.full(0.5, leaf.type)))
    made = Compiled([*outputs, *news.values()], inputs, updated=tuple(news))
    arrays = sample(inputs, seed)
    for name, owner in made.variables.items():
        owner.write(arrays[name])
    for _ in range(2):
        expected = evaluate(made.graph, arrays)
        found = made.run({name: array for name, array in arrays.items() if name not in news})
        arrays |= {name: owner.array.copy() for name, owner in made.variables.items()}
        for one, other in zip([*found, *(arrays[name] for name in news)], expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(312, 512))
def test_many_random_loops_that_update_variables(seed: int) -> None:
    test_random_loops_that_update_variables(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(16, 216))
def test_many_random_loops(seed: int) -> None:
    test_random_loops(seed)


# ---- what is shown --------------------------------------------------------------------------------------------------


def test_the_text_of_a_plan_shows_loops_and_branches() -> None:
    flags = Value(tensor("bool", (T,)), name="flags")

    def turn(s: Value, flag: Value, x: Value) -> list[Value]:
        (new,) = chosen(flag, lambda s, x: [b.add(s, x)], lambda s, x: [b.mul(s, x)], s, x)
        return [new, new]

    made = compiled(scanned(turn, [X], [flags, XS]), X, flags, XS)
    text = re.sub(r"graphc_(\w+)_[0-9a-f]{16}", r"\1", print_plan(made.plan))
    table = text[text.index("  table {") : text.index("  inputs")]
    assert table == """  table {
    copy_x(x, scan_first_x)
    loop scan < 5 {
      if scan_a1 {
        scan_cond_then_add(scan_a0, scan_a2, scan_cond_then_add)
      } else {
        scan_cond_orelse_mul(scan_a0, scan_a2, scan_cond_orelse_mul)
      }
    }
  }
"""
    assert "scan_cond_then_add    f32[3]    scratch  12 .. 24, +12 each scan\n" in text
    kinds = [type(e) for e in walk(made.plan.entries)]
    assert kinds == [Call, Loop, Branch, Call, Call] and While not in kinds
