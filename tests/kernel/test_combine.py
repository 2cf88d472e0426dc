"""Two kernels in one: the result stores what both store when they run one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphc.errors import CompileError
from graphc.kernel.combine import add_up_sums, combine, share_loads, share_reduction
from graphc.kernel.form import Kernel
from graphc.kernel.interpret import run
from graphc.kernel.text import parse_kernel, print_kernel
from graphc.kernel.verify import verify

ROWS = """kernel {name}(x: f32[N,5]) -> ({out}) where N <= 8 {{
  space {i} < N
  stage {{
    reduce {r} < 5
    {m}: f32, {s}: f32 = logsumexp(x[{i}, {r}], 1.0)
    let l: f32 = log({s})
  }}
  stage {{
    {stage}
  }}
}}"""
TOTAL = ROWS.format(name="total", out="y: f32[N]", i="i0", r="r0", m="m", s="s", stage="y[i0] = m + l")
LOGS = ROWS.format(
    name="logs", out="z: f32[N,5]", i="n", r="c", m="top", s="total",
    stage="space i0 < 5 z[n, i0] = x[n, i0] - top - l",
)  # fmt: skip
SUMS = """kernel {name}(x: f32[N,5]) -> ({out}: f32[N]) where N <= 8 {{
  space i0 < N
  stage {{
    reduce r0 < 5
    acc: f32 = {combiner}({element})
    {out}[i0] = acc
  }}
}}"""
PRODUCT = """kernel {name}(a: f32[N,4], {b}: f32[N,3]) -> ({out}: f32[4,3]) where N <= 8 {{
  space i0 < 4, i1 < 3
  stage {{
    reduce r0 < N
    acc: f32 = sum(a[r0, i0] * {b}[r0, i1])
    {out}[i0, i1] = acc
  }}
}}"""


def kernel(text: str, **values: str) -> Kernel:
    return parse_kernel(text.format(**values) if values else text)


def check(first: Kernel, second: Kernel, **inputs: Any) -> Kernel:
    """The combined kernel, valid, in both orders equal to the two kernels by themselves."""
    for one, other in ((first, second), (second, first)):
        both = combine(one, other)
        verify(both)
        assert print_kernel(parse_kernel(print_kernel(both))) == print_kernel(both)
        found = run(both, inputs, float64=True)
        for alone in (first, second):
            wanted = run(alone, {o.name: inputs[o.name] for o in alone.inputs}, float64=True)
            for name, value in wanted.items():
                np.testing.assert_array_equal(found[name], value)
    return combine(first, second)


X = np.random.default_rng(0).standard_normal((6, 5)).astype("f4")


def test_an_equal_reduction_is_done_once_whatever_its_names() -> None:
    both = check(kernel(TOTAL), kernel(LOGS), x=X)
    assert print_kernel(both) == """kernel total(x: f32[N,5]) -> (y: f32[N], z: f32[N,5]) where N <= 8 {
  space i0 < N
  stage {
    reduce r0 < 5
    m: f32, s: f32 = logsumexp(x[i0, r0], 1.0)
    let l: f32 = log(s)
  }
  stage {
    y[i0] = m + l
  }
  stage {
    space i0_2 < 5
    z[i0, i0_2] = x[i0, i0_2] - m - l
  }
}
"""
    assert share_reduction(kernel(TOTAL), kernel(LOGS))


def test_reductions_of_one_operand_share_their_loop() -> None:
    first = kernel(SUMS, name="one", out="y", combiner="sum", element="x[i0, r0]")
    second = kernel(SUMS, name="two", out="z", combiner="max", element="x[i0, r0] * x[i0, r0]")
    both = check(first, second, x=X)
    assert len(both.stages) == 1 and [a.names for a in both.stages[0].accumulates] == [("acc",), ("acc_2",)]
    assert share_loads(first, second) and not share_reduction(first, second)


def test_contractions_do_not_share_their_loop_for_one_operand_that_caches_hold() -> None:
    first, second = (kernel(PRODUCT, name=n, b=n, out=f"{n}_out") for n in ("p", "q"))
    assert not share_loads(first, second)


@pytest.mark.parametrize("sign", ["+", "-"])
def test_sums_that_are_only_added_up_become_one(sign: str) -> None:
    first, second = kernel(PRODUCT, name="p", b="b", out="p"), kernel(PRODUCT, name="q", b="c", out="q")
    text = print_kernel(combine(first, second))
    both = parse_kernel(text.replace("p[i0, i1] = acc", f"q[i0, i1] = acc {sign} acc_2").replace(
        "    q[i0, i1] = acc_2\n", "").replace("p: f32[4,3], ", ""))  # fmt: skip
    one = add_up_sums(both)
    verify(one)
    (accumulate,) = one.stages[0].accumulates
    assert f"acc: f32 = sum(a[r0, i0] * b[r0, i1] {sign} a[r0, i0] * c[r0, i1])" in print_kernel(one)
    inputs = {n: np.random.default_rng(i).standard_normal((8, 4 if n == "a" else 3)) for i, n in enumerate("abc")}
    inputs = {n: v.astype("f4") for n, v in inputs.items()}
    np.testing.assert_allclose(run(one, inputs, float64=True)["q"], run(both, inputs, float64=True)["q"])


def test_a_sum_that_is_used_twice_stays() -> None:
    text = """kernel both(x: f32[N], y: f32[N]) -> (p: f32[], q: f32[]) where N <= 8 {
      stage { reduce r0 < N a: f32 = sum(x[r0]) b: f32 = sum(y[r0]) p[] = a - b q[] = b } }"""
    assert add_up_sums(kernel(text)) == kernel(text)


def test_kernels_over_other_points_or_that_read_each_other_stay_apart() -> None:
    short = kernel("kernel short(x: f32[4]) -> (v: f32[4]) { space i < 4 stage { v[i] = x[i] } }")
    long = kernel("kernel long(x: f32[5]) -> (w: f32[5]) { space i < 5 stage { w[i] = x[i] } }")
    reader = kernel("kernel reader(v: f32[4]) -> (w: f32[4]) { space i < 4 stage { w[i] = v[i] } }")
    with pytest.raises(CompileError, match="their points differ"):
        combine(short, long)
    with pytest.raises(CompileError, match="one reads what the other stores"):
        combine(short, reader)
    assert not share_loads(short, long) and not share_reduction(short, reader)
