"""Printing and parsing kernels: exact texts, round trips of random kernels, and errors with line and column."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.errors import ParseError
from graphc.ir.dims import parse_dim
from graphc.ir.types import DTYPES, bool_, f32, f64, i32, i64, u8
from graphc.kernel.expr import Affine, Apply, AxisIndex, Cast, Computed, Const, Expr, Extent, Load, Name
from graphc.kernel.form import Accumulate, Axis, Kernel, Let, Operand, Stage, Store, Table
from graphc.kernel.primitives import PRIMITIVES
from graphc.kernel.text import parse_kernel, print_affine, print_const, print_expr, print_kernel

CONV = """kernel conv1(W: f32[6,1,5,5], X: f32[1,28,28,N], b: f32[6]) -> (Y: f32[6,28,28,N]) where N <= 64 {
  space co < 6, y < 28, x < 28, n < N
  stage {
    reduce ci < 1, ky in max(0, 2-y) .. min(5, 30-y), kx in max(0, 2-x) .. min(5, 30-x)
    acc: f32 = sum(W[co, ci, ky, kx] * X[ci, y+ky-2, x+kx-2, n])
    let z: f32 = acc + b[co]
    Y[co, y, x, n] = max(z, 0.0)
  }
}
"""

EVERYTHING = """kernel everything(inout fc.weight: f32[4,N]+3, idx: i32[N], out early: u8[], g: f32[N,4]) -> (Y: f32[2*N+1]+5 init -inf, s: f64[] init 0) where M <= 3, N <= 64 {
  space sequential n < N, c in 0 .. min(4, n+M)
  stage {
    reduce k in max([2, 1, 0, 0][c], 1-n) .. 4, j < [1, 2, 3, 4][c]
    let t: f32 = g[n, k] * 2.0
    m: f32, i: i64 = argmax(t, k)
    total: f64 = sum(f64(t))
    Y[2*n+1] max= m if i < 3 and not extent(N) == 2
    s[] += total / 2.0f64 if c > 0 through 8 partials
  }
  stage {
    space d < 2
    then
    let r: bool = n == c or true
    fc.weight[c, n] = where(r, -(1.0), -1.0) - uniform(1, 2, 3, extent(M), n)
    early[] prod= 3u8
    Y[i64(idx[n]) in 0 .. 2*N+1] = fma(-g[n, 0], nan, -inf)
  }
}
"""  # noqa: E501


@pytest.mark.parametrize("text", [CONV, EVERYTHING], ids=["conv", "everything"])
def test_text_is_what_is_printed(text: str) -> None:
    assert print_kernel(parse_kernel(text)) == text


def test_parts_of_the_convolution() -> None:
    kernel = parse_kernel(CONV)
    assert kernel.capacities == {"N": 64}
    assert [o.role for o in kernel.operands] == ["in", "in", "in", "out"]
    (stage,) = kernel.stages
    assert stage.reduce[1] == Axis(
        "ky", (Affine(), Affine.of({"y": -1}, 2)), (Affine((), 5), Affine.of({"y": -1}, 30))
    )
    assert stage.stores[0].value == Apply("max", (Name("z"), Const(0.0, f32)))


def test_parts_of_everything() -> None:
    kernel = parse_kernel(EVERYTHING)
    assert [o.role for o in kernel.operands] == ["inout", "in", "out", "in", "out", "out"]
    assert kernel.operands[4].init == -math.inf and kernel.operands[5].init == 0
    assert kernel.space[0].sequential and not kernel.space[1].sequential
    first, second = kernel.stages
    assert first.reduce[0].lower[0] == Table("c", (2, 1, 0, 0))
    assert first.accumulates[0] == Accumulate(("m", "i"), "argmax", (Name("t"), AxisIndex("k")))
    assert first.stores[1].partials == 8 and first.stores[1].mode == "sum"
    assert not second.lets and second.results[0].name == "r"
    assert second.stores[2].index == (
        Computed(Cast(Load("idx", (Affine.axis("n"),)), i64), 0, parse_dim("2*N+1")),
    )


def test_origins_are_comments() -> None:
    kernel = Kernel("k", (), (), (), origins=("fc1  train.py:12", "relu"))
    assert print_kernel(kernel).startswith("# fc1  train.py:12\n# relu\nkernel k() -> () {\n")
    assert parse_kernel(print_kernel(kernel)) == kernel


@pytest.mark.parametrize(
    ("const", "text"),
    [
        (Const(0.5, f32), "0.5"), (Const(1, f32), "1.0"), (Const(0.5, f64), "0.5f64"), (Const(3, i64), "3"),
        (Const(-3, i32), "-3i32"), (Const(7, u8), "7u8"), (Const(True, bool_), "true"), (Const(0, bool_), "false"),
        (Const(math.inf, f32), "inf"), (Const(-math.inf, f64), "-inf_f64"), (Const(math.nan, f32), "nan"),
        (Const(-0.0, f32), "-0.0"), (Const(1e-30, f32), "1e-30"), (Const(1e300, f64), "1e+300f64"),
        (Const(float(np.float32(0.1)), f32), "0.1"), (Const(0.1, f32), "0.1"), (Const(float(np.float32(0.1)), f64),
         "0.10000000149011612f64"), (Const(float(np.float32(1 / 3)), f32), "0.33333334"),
    ],
)  # fmt: skip
def test_constants_have_one_text(const: Const, text: str) -> None:
    assert print_const(const) == text
    assert expr_of(text) == const


def test_constants_compare_by_bits() -> None:
    assert Const(0.0, f32) != Const(-0.0, f32)
    assert Const(float("nan"), f32) == Const(math.nan, f32)
    assert Const(1, f32) == Const(1.0, f32) != Const(1, i64)
    assert Const(0.1, f32) == Const(float(np.float32(0.1)), f32) and Const(0.1, f64) != Const(0.1 + 1e-9, f64)
    assert hash(Const(0.1, f32)) == hash(Const(float(np.float32(0.1)), f32))


@pytest.mark.parametrize(
    "text",
    [
        "a - (b - c)", "a - b - c", "(a + b) * c", "a + b * c", "-(a + b)", "-a * b", "-(2.0)", "-(-2.0)", "--a",
        "not (a and b) or c", "not a and b", "(a < b) == (c < d)", "a / (b / c)", "a % b // c", "a - -2.0",
        "(not a) == b", "exp(-a)", "f32(a + b)", "where(a < b, a, b)", "-(a * b)", "a * -b",
    ],
)  # fmt: skip
def test_parentheses_only_where_needed(text: str) -> None:
    assert print_expr(expr_of(text)) == text


def expr_of(text: str) -> Expr:
    kernel = parse_kernel(f"kernel k() -> (y: f32[]) {{ stage {{ y[] = {text} }} }}")
    return kernel.stages[0].stores[0].value


def test_affine_text_follows_the_loops() -> None:
    affine = Affine.of({"ky": 1, "y": 2, "z": -3}, parse_dim("N-1"))
    assert print_affine(affine, ["y", "ky"]) == "2*y+ky+N-3*z-1"
    assert print_affine(Affine()) == "0"
    assert print_affine(Affine.of({"a": -1}, 2)) == "2-a"


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("kernel k(", "line 1, column 10", "an operand's name"),
        ("kernel k() -> () {\n  stage {\n    Y[0] 3\n", "line 3, column 10", "'=', '\\+=' or a combiner"),
        ("kernel k() -> () {\n  space i < 3 $\n}", "line 2, column 15", "begins no token"),
        ("kernel k(x: f16[3]) -> () {}", "line 1, column 13", "dtype 'f16' is not supported"),
        ("kernel k() -> (y: f32[]) { stage { y[] = foo(1.0) } }", "column 42", "no primitive 'foo'"),
        ("kernel k() -> (y: f32[]) { stage { y[] = 1.5i64 } }", "column 42", "'1.5i64' is no integer"),
        ("kernel k() -> (y: f32[]) { stage { let a: f64 = 1.0 y[] = a } }", "column 40", "written as f64 and is f32"),
        ("kernel k(x: f32[3]) -> () { space i < 3 stage { let a = x[i*i] } }", "column 62", "in lower"),
        ("kernel k() -> () { space i < 3, j < N*i }", "column 37", "integer as its coefficient"),
        ("kernel k() -> () { } kernel", "column 22", "the end of the text"),
        ("kernel k() -> () where N <= 3, N <= 4 { }", "column 32", "two capacities"),
        ("kernel k() -> (y: f32[]) { stage { y[] = 1.0 let a = 2.0 } }", "column 46", "lets stand before"),
        ("kernel k() -> (y: f32[]) { stage { y[] = 1.0 a = sum(2.0) } }", "column 46", "accumulators stand before"),
        ("kernel k() -> (y: f32[]) { stage { y[] = f32(1, 2) } }", "column 42", "a cast takes one"),
        ("kernel k(x: f32[i+j init 3]) -> () { }", "column 21", "'\\]'"),
    ],
)
def test_errors_say_where(text: str, place: str, message: str) -> None:
    with pytest.raises(ParseError, match=message) as caught:
        parse_kernel(text)
    assert place in str(caught.value)
    assert str(caught.value).rstrip().endswith("^")


# Round trips of random kernels, valid or not

AXES = ("n", "c", "k")
names = st.sampled_from(["a", "b0", "t_1"])
dims = st.sampled_from([0, 1, 7, *map(parse_dim, ("N", "2*N+1", "N*M-3", "-N+4"))])
affines = st.builds(
    lambda terms, const: Affine.of(terms, const), st.dictionaries(st.sampled_from(AXES), st.integers(-3, 3)), dims
)
consts = st.sampled_from(DTYPES).flatmap(
    lambda d: st.builds(
        Const,
        st.booleans() if d == bool_ else (st.floats() if d.is_float else st.integers(0 if d == u8 else -9, 99)),
        st.just(d),
    )
)


def deeper(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    index = st.one_of(affines, st.builds(Computed, inner, dims, dims))
    return st.one_of(
        st.sampled_from(sorted(PRIMITIVES)).flatmap(
            lambda p: st.builds(Apply, st.just(p), st.tuples(*[inner] * PRIMITIVES[p].arity))
        ),
        st.builds(Cast, inner, st.sampled_from(DTYPES)),
        st.builds(Load, st.sampled_from(["X", "fc.weight"]), st.lists(index, max_size=3).map(tuple)),
    )


leaves: st.SearchStrategy[Expr] = st.one_of(
    consts, st.builds(Name, names), st.builds(AxisIndex, st.sampled_from(AXES)), st.builds(Extent, dims)
)
exprs = st.recursive(leaves, deeper, max_leaves=6)
lets = st.lists(st.builds(Let, names, exprs), max_size=2).map(tuple)
accumulates = st.lists(
    st.builds(
        Accumulate,
        st.lists(names, min_size=1, max_size=3).map(tuple),
        st.sampled_from(["sum", "argmax"]),
        st.lists(exprs, max_size=3).map(tuple),
    ),
    max_size=2,
).map(tuple)
stores = st.lists(
    st.builds(
        Store,
        st.sampled_from(["Y", "fc.weight"]),
        st.lists(st.one_of(affines, st.builds(Computed, exprs, dims, dims)), max_size=2).map(tuple),
        exprs,
        st.sampled_from(["=", "sum", "max", "prod"]),
        st.one_of(st.none(), exprs),
        st.integers(0, 3),
    ),
    max_size=2,
).map(tuple)
operands = st.lists(
    st.builds(
        Operand,
        st.sampled_from(["X", "Y", "fc.weight"]),
        st.sampled_from(DTYPES),
        st.lists(dims, max_size=3).map(tuple),
        st.sampled_from(["in", "out", "inout"]),
        st.one_of(st.none(), st.floats(allow_nan=False), st.integers(-3, 3).map(float)),
    ),
    max_size=4,
).map(tuple)


@st.composite
def axis(draw: st.DrawFn, name: str) -> Axis:
    """An axis with bounds over those in front of it."""
    outer = AXES[: AXES.index(name)]
    kinds: list[st.SearchStrategy] = [st.builds(Affine, st.just(()), dims)]
    if outer:
        kinds.append(st.builds(Affine.of, st.dictionaries(st.sampled_from(outer), st.integers(-3, 3)), dims))
        kinds.append(st.builds(Table, st.sampled_from(outer), st.lists(st.integers(-3, 9), min_size=1).map(tuple)))
    bounds = st.lists(st.one_of(kinds), min_size=1, max_size=3).map(tuple)
    return Axis(name, draw(bounds), draw(bounds), draw(st.booleans()))


stages = st.builds(Stage, st.tuples(axis("c")), st.tuples(axis("k")), lets, accumulates, lets, stores)


@settings(max_examples=60)
@given(
    st.builds(
        Kernel,
        st.just("random"),
        operands,
        st.tuples(axis("n")),
        st.lists(stages, max_size=2).map(tuple),
        st.dictionaries(st.sampled_from(["N", "M"]), st.integers(0, 99)),
    )
)
def test_round_trip_of_random_kernels(kernel: Kernel) -> None:
    text = print_kernel(kernel)
    assert parse_kernel(text) == kernel
    assert print_kernel(parse_kernel(text)) == text
