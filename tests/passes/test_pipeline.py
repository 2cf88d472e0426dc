"""The whole order of passes: on a classifier, and on random graphs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.autodiff.expand import expand_derivatives
from graphc.errors import CompileError
from graphc.interpret import evaluate
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Origin, Value
from graphc.ir.text import parse, print_graph
from graphc.ir.types import f32, tensor
from graphc.passes.manager import run
from graphc.passes.pipeline import REQUIRED, default_pipeline

CLASSIFIER = """
graph step(%x: f32[N,6], %t: i32[N], %fc1.weight: f32[5,6], %fc1.bias: f32[5], %fc2.weight: f32[4,5], %lr: f32[])
    -> (f32[], f32[5,6], f32[5], f32[4,5]) {
  %a = matmul(%x, %fc1.weight, transpose_b=true)   # fc1  train.py:3
  %b = broadcast_to(%fc1.bias, shape=[N,5])        # fc1  train.py:3
  %c = add(%a, %b)                                 # fc1  train.py:3
  %h = relu(%c)                                    # relu  train.py:4
  %z = matmul(%h, %fc2.weight, transpose_b=true)   # fc2  train.py:5
  %e = exp(%z)                                     # loss  train.py:8
  %s = sum(%e, axes=[-1], keepdims=true)           # loss  train.py:8
  %sb = broadcast_to(%s, shape=[N,4])              # loss  train.py:8
  %p = div(%e, %sb)                                # loss  train.py:8
  %l = log(%p)                                     # loss  train.py:8
  %g = gather(%l, %t)                              # loss  train.py:9
  %m = mean(%g, axes=[0])                          # loss  train.py:9
  %loss = neg(%m)                                  # loss  train.py:9
  %g1, %gb, %g2 = grad(%loss, %fc1.weight, %fc1.bias, %fc2.weight)   # sgd  train.py:10
  %l1 = broadcast_to(%lr, shape=[5,6])
  %s1 = mul(%l1, %g1)
  %u1 = sub(%fc1.weight, %s1)
  %lb = broadcast_to(%lr, shape=[5])
  %sbias = mul(%lb, %gb)
  %ub = sub(%fc1.bias, %sbias)
  %l2 = broadcast_to(%lr, shape=[4,5])
  %s2 = mul(%l2, %g2)
  %u2 = sub(%fc2.weight, %s2)
  return %loss, %u1, %ub, %u2
}"""


@pytest.mark.parametrize("sizes", [{}, {"N": 5}], ids=["runtime count", "bound"])
def test_a_training_step_keeps_its_meaning(sizes: dict[str, int], inputs_of: Callable) -> None:
    graph = parse(CLASSIFIER)
    after, stages = run(graph, default_pipeline(sizes), verify=True)
    arrays = inputs_of(graph, seed=1)
    for x, y in zip(evaluate(expand_derivatives(graph), arrays), evaluate(after, arrays), strict=True):
        np.testing.assert_allclose(y, x, rtol=1e-6 if sizes else 1e-11)  # 1/5 is folded in float32
    assert {"log_of_softmax", "negated_twice", "grad"} <= {r.rule for stage in stages for r in stage.rewrites}
    assert "cross_entropy" in stages[0].after_text and "exp(" not in stages[0].after_text
    assert print_graph(parse(print_graph(after))) == print_graph(after)


def test_a_step_at_extreme_inputs_is_finite_in_float32(inputs_of: Callable) -> None:
    graph = parse(CLASSIFIER)
    arrays = inputs_of(graph, seed=1)
    arrays["x"] = arrays["x"] * np.float32(1e3)
    after, _ = run(graph, default_pipeline({}))
    assert all(np.isfinite(value).all() for value in evaluate(after, arrays, dtype64=False))
    with np.errstate(all="ignore"):
        naive = evaluate(expand_derivatives(graph), arrays, dtype64=False)
    assert not all(np.isfinite(value).all() for value in naive)


def test_every_node_keeps_a_place() -> None:
    _, stages = run(parse(CLASSIFIER), default_pipeline({"N": 5}, without=("dce",)))
    known = {"train.py:3", "train.py:4", "train.py:5", "train.py:8", "train.py:9", "train.py:10", ""}
    for stage in stages:
        assert {node.origin.place for node in stage.after.nodes} <= known
        kernels = [n for n in stage.after.nodes if n.op.name in ("matmul", "cross_entropy", "log_softmax", "relu")]
        assert kernels and all(n.origin.place for n in kernels)


def test_the_order_is_deterministic() -> None:
    texts = {print_graph(run(parse(CLASSIFIER), default_pipeline({"N": 5}))[0]) for _ in range(2)}
    assert len(texts) == 1


def test_passes_are_switched_off_by_name() -> None:
    names = [step.name for step in default_pipeline({})]
    assert names[:5] == ["stability", "hoist", "algebra", "differentiate", "bind"]
    assert {"canonicalise", "fold", "cse", "dce"} <= set(names)
    left = [step.name for step in default_pipeline({}, without=("cse", "canonicalise"))]
    assert left == [name for name in names if name not in ("cse", "canonicalise")]
    for name in set(names) - set(REQUIRED):
        after, _ = run(parse(CLASSIFIER), default_pipeline({"N": 5}, without=(name,)), verify=True)
        assert after.nodes


@pytest.mark.parametrize(("name", "problem"), [("CSE", "'CSE' is no pass"), ("bind", "'bind' cannot be left out")])
def test_wrong_names_are_errors(name: str, problem: str) -> None:
    optional = "passes that can be left out: algebra, canonicalise, combine, cse"
    with pytest.raises(CompileError, match=f"without='{name}': {problem}; {optional}"):
        default_pipeline({}, without=(name,))


# ------------------------------------------------------------------------------------- random graphs

ROWS, COLUMNS = 3, 4
UNARY = ("neg", "tanh", "sigmoid", "softplus", "relu", "abs", "expm1", "stop_gradient")
BINARY = ("add", "sub", "mul", "maximum", "minimum")
KINDS = "unary unary binary binary number number divide reduce shape matmul row choose".split()
NUMBERS = (0.0, 1.0, -1.0, 2.0, 0.5, 3.0, -0.25)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Random float graphs over x, y: f32[3,4] full of what the rules look for, whose values stay moderate."""
    full = tensor("f32", (ROWS, COLUMNS))
    inputs = tuple(Value(full, name=n) for n in "xy")
    pool: list[Value] = list(inputs)
    for step in range(draw(st.integers(1, 14))):
        b = Builder(Origin(f"block{step % 3}", "net.py", step + 1))
        pool.append(step_of(draw, b, pool, full))
    outputs = draw(st.lists(st.sampled_from(pool), min_size=1, max_size=3))
    return Graph("random", inputs, tuple(outputs))


def step_of(draw: st.DrawFn, b: Builder, pool: list[Value], full: object) -> Value:
    x, y = (draw(st.sampled_from(pool[-4:])) for _ in range(2))
    number = b.full(draw(st.sampled_from(NUMBERS)), x.type)
    kind = draw(st.sampled_from(KINDS))
    axis = draw(st.integers(-2, 1))
    if kind == "unary":
        return getattr(b, draw(st.sampled_from(UNARY)))(x)
    if kind == "binary":
        return getattr(b, draw(st.sampled_from(BINARY)))(x, y)
    if kind == "number":
        pair = draw(st.permutations([x, number]))
        return getattr(b, draw(st.sampled_from(BINARY)))(*pair)
    if kind == "divide":
        return b.div(x, b.full(draw(st.sampled_from((1.0, -1.0, 4.0, 3.0))), x.type))
    if kind == "reduce":
        reduce = getattr(b, draw(st.sampled_from(("mean", "max", "min"))))
        return b.broadcast(reduce(x, axes=draw(st.sampled_from([(axis,), (0, 1), ()])), keepdims=True), x.type.shape)
    if kind == "shape":
        order = draw(st.sampled_from([(0, 1), (1, 0), (-1, -2)]))
        return b.transpose(b.transpose(x, permutation=order), permutation=order)
    if kind == "matmul":
        gram = b.matmul(b.tanh(x), b.transpose(b.tanh(y), permutation=(1, 0)))
        return b.tanh(b.matmul(gram, x))
    if kind == "row":
        top = b.broadcast(b.max(x, axes=(1,), keepdims=True), x.type.shape)
        powers = b.exp(b.sub(x, top))
        return b.log(b.div(powers, b.broadcast(b.sum(powers, axes=(1,), keepdims=True), x.type.shape)))
    return b.where(b.lt(x, number), x, y)


@settings(max_examples=150)
@given(graphs(), st.integers(0, 3))
def test_random_graphs_keep_their_values(graph: Graph, seed: int) -> None:
    after, stages = run(graph, default_pipeline({}), verify=True)
    random = np.random.default_rng(seed)
    arrays = {n: random.uniform(-2, 2, (ROWS, COLUMNS)) for n in "xy"}
    with np.errstate(all="ignore"):
        wanted, values = evaluate(graph, arrays), evaluate(after, arrays)
    for x, y in zip(wanted, values, strict=True):
        if np.isfinite(x).all() and np.abs(x).max() < 1e12:
            np.testing.assert_allclose(y, x, rtol=1e-6, atol=1e-6)
    assert print_graph(parse(print_graph(after))) == print_graph(after)
    for stage in stages:
        assert stage.changed == (stage.diff != "")


@settings(max_examples=60)
@given(graphs(), st.integers(0, 3), st.booleans())
def test_random_gradients_keep_their_values(graph: Graph, seed: int, by_inner: bool) -> None:
    """Gradients by inputs and by values inside the graph: rewriting before differentiation must not change them."""
    b = Builder()
    loss = b.mean(b.tanh(graph.outputs[0]), axes=(0, 1))
    inner = [v for n in Graph("g", graph.inputs, (loss,)).nodes for v in n.outputs if v.type == graph.inputs[0].type]
    targets = [inner[seed % len(inner)]] if by_inner and inner else list(graph.inputs)
    reached = [v for v in targets if reaches(v, loss)]
    if not reached:
        return
    gradient = b.grad(loss, *reached)
    outputs = (gradient,) if isinstance(gradient, Value) else gradient
    declared = Graph("gradients", graph.inputs, (loss, *outputs))
    after, _ = run(declared, default_pipeline({}), verify=True)
    random = np.random.default_rng(seed)
    arrays = {n: random.uniform(-2, 2, (ROWS, COLUMNS)) for n in "xy"}
    with np.errstate(all="ignore"):
        wanted, values = evaluate(expand_derivatives(declared), arrays), evaluate(after, arrays)
    for x, y in zip(wanted, values, strict=True):
        if np.isfinite(x).all() and np.abs(x).max() < 1e9:
            np.testing.assert_allclose(y, x, rtol=1e-6, atol=1e-6)


def reaches(value: Value, loss: Value) -> bool:
    """Whether a gradient can flow from `loss` to `value`."""
    stack, seen = [loss], set()
    while stack:
        current = stack.pop()
        if current is value:
            return True
        node = current.producer
        if node is None or node in seen or node.op.name == "stop_gradient" or current.type.dtype != f32:
            continue
        seen.add(node)
        stack.extend(node.inputs)
    return False
