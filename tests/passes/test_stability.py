"""Stability rules: text before and after, and a proof at extreme inputs.

The truth is the *original* expression in arithmetic of 5000 digits, where nothing overflows or cancels. In float32
the original fails at the extreme inputs; the rewritten graph must be finite there and close to the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np
import pytest

from graphc.autodiff.expand import expand_derivatives
from graphc.interpret import evaluate
from graphc.ir.graph import Graph
from graphc.ir.text import parse, print_graph
from graphc.ir.verify import verify
from graphc.passes.bind import bind
from graphc.passes.stability import RULES, Stability

ROW = "%z: f32[N,4]"
VECTOR = "%x: f32[N]"
ONE = "%c = constant(value=f32 1); %k = broadcast_to(%c, shape=[N]); "
SOFTMAX = "%e = exp(%z); %s = sum(%e, axes=[1], keepdims=true); %b = broadcast_to(%s, shape=[N,4]); %p = div(%e, %b); "
HUGE_ROWS = np.array(
    [[1e4, -1e4, 0, 3], [-500, -400, -450, -401], [200, 200, 200, 200], [0.1, 0.2, 0.3, 0.4]], np.float32
)
LABELS = np.array([1, 0, 3, 2], np.int32)
HUGE = np.array([-1e4, -120, -90, -1, 0, 1e-8, 1, 90, 120, 1e4], np.float32)
SMALL = np.array([-1e-6, -3e-20, 0, 1e-30, 1e-10, 1e-5, 0.5], np.float32)


@dataclass(frozen=True)
class Case:
    """A rule, the graph before and after as lines, extreme inputs, and whether float32 fails there before."""

    rule: str
    inputs: str
    before: str
    after: str
    extreme: np.ndarray
    fails: bool = True
    result: str = "f32[N]"

    def text(self, lines: str) -> str:
        *statements, output = [line.strip() for line in lines.split(";")]
        return f"graph g({self.inputs}) -> {self.result} {{\n" + "\n".join(statements) + f"\nreturn {output}\n}}"

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        main = "z" if "%z" in self.inputs else "x"
        return {main: self.extreme} | ({"t": LABELS} if "%t" in self.inputs else {})


MATRIX = "f32[N,4]"
LOG_SOFTMAX = "%0 = log_softmax(%z); %0"
TOP = "; ".join(
    [
        "%m = max(%z, axes=[1], keepdims=true)",
        "%g = stop_gradient(%m)",
        "%low = constant(value=f32 -3.4028235e38)",
        "%lows = broadcast_to(%low, shape=[N,1])",
        "%a = maximum(%g, %lows)",
        "%high = constant(value=f32 3.4028235e38)",
        "%highs = broadcast_to(%high, shape=[N,1])",
        "%top = minimum(%a, %highs)",
        "",
    ]
)
CASES = [
    Case("log_of_softmax", ROW, SOFTMAX + "%l = log(%p); %l", LOG_SOFTMAX, HUGE_ROWS, result=MATRIX),
    Case(
        "log_of_softmax",
        ROW,
        "%e = exp(%z); %s = sum(%e, axes=[-1]); %r = reshape(%s, shape=[N,1]); %b = broadcast_to(%r, shape=[N,4]); "
        "%p = div(%e, %b); %l = log(%p); %l",
        LOG_SOFTMAX,
        HUGE_ROWS,
        result=MATRIX,
    ),
    Case(
        "shifted_log_softmax",
        ROW,
        "%m = max(%z, axes=[1], keepdims=true); %n = broadcast_to(%m, shape=[N,4]); %d = sub(%z, %n); %e = exp(%d); "
        "%s = sum(%e, axes=[1], keepdims=true); %b = broadcast_to(%s, shape=[N,4]); %p = div(%e, %b); %l = log(%p); %l",
        LOG_SOFTMAX,
        HUGE_ROWS,
        result=MATRIX,
    ),
    Case(
        "log_sum_exp_difference",
        ROW,
        "%e = exp(%z); %s = sum(%e, axes=[1], keepdims=true); %l = log(%s); %b = broadcast_to(%l, shape=[N,4]); "
        "%d = sub(%z, %b); %d",
        LOG_SOFTMAX,
        HUGE_ROWS,
        result=MATRIX,
    ),
    Case(
        "softmax",
        ROW,
        SOFTMAX + "%p",
        TOP + "%n = broadcast_to(%top, shape=[N,4]); %d = sub(%z, %n); %e = exp(%d); "
        "%s = sum(%e, axes=[1], keepdims=true); %b = broadcast_to(%s, shape=[N,4]); %p = div(%e, %b); %p",
        HUGE_ROWS,
        result=MATRIX,
    ),
    Case(
        "cross_entropy",
        ROW + ", %t: i32[N]",
        SOFTMAX + "%l = log(%p); %q = gather(%l, %t); %n = neg(%q); %n",
        "%0 = cross_entropy(%z, %t); %0",
        HUGE_ROWS,
    ),
    Case(
        "picked_log_softmax",
        ROW + ", %t: i32[N]",
        "%l = log_softmax(%z); %q = gather(%l, %t); %q",
        "%0 = cross_entropy(%z, %t); %1 = neg(%0); %1",
        HUGE_ROWS,
        fails=False,
    ),
    Case(
        "negated_twice",
        ROW + ", %t: i32[N]",
        SOFTMAX + "%l = log(%p); %q = gather(%l, %t); %a = mean(%q, axes=[0]); %n = neg(%a); %n",
        "%0 = cross_entropy(%z, %t); %1 = mean(%0, axes=[0]); %1",
        HUGE_ROWS,
        result="f32[]",
    ),
    Case(
        "log_of_picked_exp",
        ROW + ", %t: i32[N]",
        "%l = log_softmax(%z); %e = exp(%l); %q = gather(%e, %t); %r = log(%q); %r",
        "%0 = cross_entropy(%z, %t); %1 = neg(%0); %1",
        HUGE_ROWS,
    ),
    Case("double_negation", VECTOR, "%0 = neg(%x); %1 = neg(%0); %1", "%x", HUGE, fails=False),
    Case("log_of_exp", VECTOR, "%0 = exp(%x); %1 = log(%0); %1", "%x", HUGE),
    Case("softplus", VECTOR, ONE + "%0 = exp(%x); %1 = add(%k, %0); %2 = log(%1); %2", "%0 = softplus(%x); %0", HUGE),
    Case("softplus", VECTOR, "%0 = exp(%x); %1 = log1p(%0); %1", "%0 = softplus(%x); %0", HUGE),
    Case(
        "log_of_sigmoid",
        VECTOR,
        "%0 = sigmoid(%x); %1 = log(%0); %1",
        "%0 = neg(%x); %1 = softplus(%0); %2 = neg(%1); %2",
        HUGE,
    ),
    Case(
        "log_of_one_minus_sigmoid",
        VECTOR,
        ONE + "%0 = sigmoid(%x); %1 = sub(%k, %0); %2 = log(%1); %2",
        "%0 = softplus(%x); %1 = neg(%0); %1",
        HUGE,
    ),
    Case(
        "log_of_one_minus_sigmoid",
        VECTOR,
        "%0 = sigmoid(%x); %1 = neg(%0); %2 = log1p(%1); %2",
        "%0 = softplus(%x); %1 = neg(%0); %1",
        HUGE,
    ),
    Case(
        "sigmoid",
        VECTOR,
        ONE + "%0 = neg(%x); %1 = exp(%0); %2 = add(%1, %k); %3 = div(%k, %2); %3",
        "%0 = sigmoid(%x); %0",
        HUGE,
        fails=False,  # only its gradient fails: inf / inf
    ),
    Case(
        "sigmoid",
        VECTOR,
        ONE + "%m = constant(value=f32 -1); %n = broadcast_to(%m, shape=[N]); %0 = mul(%x, %n); %1 = exp(%0); "
        "%2 = add(%1, %k); %3 = div(%k, %2); %3",
        "%0 = sigmoid(%x); %0",
        HUGE,
        fails=False,
    ),
    Case(
        "sigmoid_of_ratio",
        VECTOR,
        ONE + "%0 = exp(%x); %1 = add(%k, %0); %2 = div(%0, %1); %2",
        "%0 = sigmoid(%x); %0",
        HUGE,
    ),
    Case("log1p", VECTOR, ONE + "%0 = add(%x, %k); %1 = log(%0); %1", "%0 = log1p(%x); %0", SMALL),
    Case("expm1", VECTOR, ONE + "%0 = exp(%x); %1 = sub(%0, %k); %1", "%0 = expm1(%x); %0", SMALL),
    Case(
        "log_sum_exp",
        ROW,
        "%e = exp(%z); %s = sum(%e, axes=[1], keepdims=true); %l = log(%s); %l",
        TOP + "%n = broadcast_to(%top, shape=[N,4]); %d = sub(%z, %n); %e = exp(%d); "
        "%s = sum(%e, axes=[1], keepdims=true); %l = log(%s); %r = add(%l, %top); %r",
        HUGE_ROWS,
        result="f32[N,1]",
    ),
]
IDS = [f"{case.rule}-{k}" for k, case in enumerate(CASES)]


# ------------------------------------------------------------------- the original in 5000-digit arithmetic

DIGITS = 5000
Arrays = Sequence[Any]


def each(function: Callable[..., Any]) -> Callable[[Arrays, Any], Any]:
    return lambda arrays, attributes: np.frompyfunc(function, len(arrays), 1)(*arrays)


EXACT: dict[str, Callable[[Arrays, Any], Any]] = {
    "exp": each(mpmath.exp),
    "log": each(mpmath.log),
    "log1p": each(lambda x: mpmath.log(1 + x)),
    "sigmoid": each(lambda x: 1 / (1 + mpmath.exp(-x))),
    "neg": each(lambda x: -x),
    "add": each(lambda x, y: x + y),
    "sub": each(lambda x, y: x - y),
    "mul": each(lambda x, y: x * y),
    "div": each(lambda x, y: x / y),
    "sum": lambda arrays, a: arrays[0].sum(axis=a["axes"], keepdims=a["keepdims"]),
    "mean": lambda arrays, a: np.array(arrays[0].sum(axis=a["axes"]) / arrays[0].shape[0]),
    "max": lambda arrays, a: arrays[0].max(axis=a["axes"], keepdims=a["keepdims"]),
    "reshape": lambda arrays, a: np.reshape(arrays[0], a["shape"]),
    "broadcast_to": lambda arrays, a: np.broadcast_to(arrays[0], a["shape"]),
    "size": lambda arrays, a: np.array(mpmath.mpf(a["dim"]), dtype=object),
    "cast": lambda arrays, a: np.asarray(arrays[0], dtype=object),
    "eq": lambda arrays, a: arrays[0] == arrays[1],
    "where": lambda arrays, a: np.where(*arrays),
    "one_hot": lambda arrays, a: arrays[0][:, None] == np.arange(a["depth"]),
    "gather": lambda arrays, a: np.take_along_axis(arrays[0], arrays[1][:, None], 1)[:, 0],
    "log_softmax": lambda arrays, a: (
        arrays[0] - EXACT["log"]([EXACT["exp"]([arrays[0]], a).sum(axis=1, keepdims=True)], a)
    ),
    "constant": lambda arrays, a: np.array(mpmath.mpf(a["value"].array.item()), dtype=object),
}


def truth(graph: Graph, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The output of `graph`, exact but for the last rounding to float64."""
    with mpmath.workdps(DIGITS):
        exactly = np.frompyfunc(lambda x: mpmath.mpf(float(x)), 1, 1)
        graph = bind(graph, {"N": len(next(iter(arrays.values())))})
        values = {v: arrays[v.name] if v.name == "t" else exactly(arrays[v.name]) for v in graph.inputs}
        for node in graph.nodes:
            values[node.output] = EXACT[node.op.name]([values[v] for v in node.inputs], node.attributes)
        return np.array(values[graph.outputs[0]], dtype=np.float64)


def single(graph: Graph, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The output of `graph` in float32."""
    with np.errstate(all="ignore"):
        (result,) = evaluate(graph, arrays, dtype64=False)
    assert result.dtype == np.float32
    return result


def is_close(actual: np.ndarray, wanted: np.ndarray) -> bool:
    return bool(np.allclose(actual, wanted, rtol=2e-6, atol=1e-38))


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_text_and_moderate_values(case: Case, rewrites_to: Callable) -> None:
    moderate = {k: v if k == "t" else np.clip(v, -3, 3).astype(np.float32) for k, v in case.arrays.items()}
    result = rewrites_to(Stability(), case.text(case.before), case.text(case.after), moderate)
    assert case.rule in {r.rule for r in result.rewrites}
    assert all(r.why and r.before and r.after for r in result.rewrites)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_extreme_values(case: Case) -> None:
    before = parse(case.text(case.before))
    after = Stability()(before).graph
    wanted = truth(before, case.arrays)
    actual = single(after, case.arrays)
    assert np.isfinite(actual).all()
    assert is_close(actual, wanted), (actual, wanted)
    assert is_close(single(before, case.arrays), wanted) != case.fails


def test_every_rule_has_a_case() -> None:
    assert {rule.name for rule in RULES} == {case.rule for case in CASES}


def test_rows_of_infinities_have_their_limits() -> None:
    case = next(c for c in CASES if c.rule == "log_sum_exp")
    graph = Stability()(parse(case.text(case.before))).graph
    inf = np.inf
    rows = np.array([[-inf] * 4, [inf, 0, 0, 0], [-inf, 1, -inf, -inf]], np.float32)
    np.testing.assert_array_equal(single(graph, {"z": rows}), np.array([[-inf], [inf], [1]], np.float32))


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_gradients_at_extreme_values(case: Case) -> None:
    """Rewritten before differentiation, in float32; the truth is the gradient of the original in 5000 digits."""
    main = "z" if "%z" in case.inputs else "x"
    *statements, output = case.before.split(";")
    result = f"f32[N,{case.extreme.shape[1]}]" if case.extreme.ndim == 2 else "f32[N]"
    axes = {"f32[N]": [0], "f32[]": []}.get(case.result, [0, 1])
    statements += [
        f"%weighted = mul({output}, %w)",
        f"%loss = sum(%weighted, axes={axes})",
        f"%gradient = grad(%loss, %{main})",
        "%gradient",
    ]
    declared = parse(
        Case("", f"{case.inputs}, %w: {case.result}", "", "", case.extreme, result=result).text(";".join(statements))
    )
    rewritten = Stability()(declared).graph
    verify(rewritten)
    arrays = case.arrays | {"w": weights(case)}
    gradient = single(expand_derivatives(rewritten), arrays)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient, truth(expand_derivatives(declared), arrays), rtol=2e-5, atol=2e-7)


def weights(case: Case) -> np.ndarray:
    """Weights of the case's results in a loss, all different."""
    rows = len(case.extreme)
    shape = {"f32[]": (), "f32[N]": (rows,), "f32[N,1]": (rows, 1)}.get(case.result, case.extreme.shape)
    count = int(np.prod(shape))
    return np.cos(np.arange(count)).reshape(shape).astype(np.float32)


# ------------------------------------------------------------------------------------ where rules stop

SHARE = "%e = exp(%z); {}; %b = broadcast_to(%s, shape=[4,4]); %p = div(%e, %b); %l = log(%p); %l"
STAYS = {
    "another axis": SHARE.format("%s = sum(%e, axes=[0], keepdims=true)"),
    "a row along the wrong axis": SHARE.format("%s = sum(%e, axes=[1])"),
    "two different operands": SHARE.format("%y = exp(%e); %s = sum(%y, axes=[1], keepdims=true)"),
}


@pytest.mark.parametrize("lines", STAYS.values(), ids=STAYS)
def test_what_is_no_softmax_stays_without_log_softmax(lines: str, equal_values: Callable) -> None:
    case = Case("", "%z: f32[4,4]", lines, "", HUGE_ROWS, result="f32[4,4]")
    graph = parse(case.text(lines))
    after = Stability()(graph).graph
    assert "log_softmax" not in print_graph(after)
    equal_values(graph, after, {"z": np.linspace(-1, 1, 16).reshape(4, 4)})


@pytest.mark.parametrize("output", ["%s", "%q", "%l", "%p", "%d"])
def test_rows_without_elements_stay(output: str, equal_values: Callable) -> None:
    shape = "[3,1]" if output in ("%s", "%q") else "[3,0]"
    lines = """%e = exp(%z)
      %s = sum(%e, axes=[1], keepdims=true)
      %b = broadcast_to(%s, shape=[3,0])
      %p = div(%e, %b)
      %l = log(%p)
      %q = log(%s)
      %qb = broadcast_to(%q, shape=[3,0])
      %d = sub(%z, %qb)""".split("\n")
    needed = {"%s": 2, "%p": 4, "%l": 5}.get(output)
    kept = lines[:needed] if needed else lines[:2] + lines[5:6] + (lines[6:] if output == "%d" else [])
    graph = parse(f"graph g(%z: f32[3,0]) -> f32{shape} {{ {' '.join(kept)} return {output} }}")
    equal_values(graph, Stability()(graph).graph, {"z": np.zeros((3, 0), np.float32)})


def test_log_probabilities_that_are_read_otherwise_stay(rewrites_to: Callable) -> None:
    text = """graph g(%z: f32[N,4], %t: i32[N]) -> (f32[N], f32[N,4]) {
      %0 = log_softmax(%z)
      %1 = gather(%0, %t)
      %2 = neg(%1)
      return %2, %0
    }"""
    rewrites_to(Stability(), text, text, {"z": HUGE_ROWS, "t": LABELS})


def test_a_value_that_a_gradient_is_taken_by_stays(rewrites_to: Callable) -> None:
    for target in ("%e", "%p", "%l"):
        text = f"""graph g(%z: f32[N,4], %t: i32[N]) -> f32[N,4] {{
          %m = max(%z, axes=[1], keepdims=true)
          %n = broadcast_to(%m, shape=[N,4])
          %h = sub(%z, %n)
          %e = exp(%h)
          %s = sum(%e, axes=[1], keepdims=true)
          %b = broadcast_to(%s, shape=[N,4])
          %p = div(%e, %b)
          %l = log(%p)
          %q = gather(%l, %t)
          %loss = mean(%q, axes=[0])
          %d = grad(%loss, {target})
          return %d
        }}"""
        graph = parse(text)
        after = Stability()(graph).graph
        (before_value,) = evaluate(expand_derivatives(graph), {"z": HUGE_ROWS / 1e4, "t": LABELS})
        (after_value,) = evaluate(expand_derivatives(after), {"z": HUGE_ROWS / 1e4, "t": LABELS})
        np.testing.assert_allclose(after_value, before_value, rtol=1e-12)


def test_a_gradient_by_the_shift_alone_stays_zero_not_an_error() -> None:
    text = """graph g(%z: f32[N,4], %shift: f32[N,1]) -> f32[N,1] {
      %0 = broadcast_to(%shift, shape=[N,4])
      %1 = sub(%z, %0)
      %2 = log_softmax(%1)
      %3 = mul(%2, %2)
      %4 = sum(%3, axes=[0,1])
      %5 = grad(%4, %shift)
      return %5
    }"""
    graph = parse(text)
    assert Stability()(graph).graph is graph
    without = parse(text.replace("%5 = grad(%4, %shift)", "%5 = grad(%4, %z)").replace("f32[N,1] {", "f32[N,4] {"))
    assert [r.rule for r in Stability()(without).rewrites] == ["shifted_log_softmax"]
