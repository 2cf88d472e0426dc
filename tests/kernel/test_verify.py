"""The verifier: every rule refuses what breaks it, with a message that names the culprit, and nothing more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from graphc.errors import VerifyError
from graphc.ir.types import f32, i64, u8
from graphc.kernel.expr import Affine, AxisIndex, Const, Load, Name
from graphc.kernel.form import Axis, Kernel, Operand, Stage, Store
from graphc.kernel.text import parse_kernel
from graphc.kernel.verify import verify


def kernel(signature: str, body: str) -> Kernel:
    return parse_kernel(f"kernel k{signature} {{ {body} }}")


VALID = {
    "map": ("(x: f32[N]) -> (y: f32[N]) where N <= 8", "space n < N stage { y[n] = x[n] + 1.0 }"),
    "reversed": ("(x: f32[N]) -> (y: f32[N]) where N <= 8", "space n < N stage { y[n] = x[N-1-n] }"),
    "clipped": (
        "(x: f32[9]) -> (y: f32[9])",
        "space y0 < 9 stage { reduce k in max(0, 2-y0) .. min(5, 11-y0) s = sum(x[y0+k-2]) y[y0] = s }",
    ),
    "strided and dilated, by table": (
        "(x: f32[9]) -> (y: f32[5])",
        "space o < 5 stage { reduce k in [1, 0, 0, 0, 0][o] .. [3, 3, 3, 3, 2][o] s = sum(x[2*o+2*k-2]) y[o] = s }",
    ),
    "phases": (
        "(x: f32[4]) -> (y: f32[8])",
        "space i < 4 stage { y[2*i] = x[i] y[2*i+1] = 0.0 }",
    ),
    "concatenation in two stages": (
        "(a: f32[3,N], b: f32[2,N]) -> (y: f32[5,N]) where N <= 8",
        "space n < N stage { space i < 3 y[i, n] = a[i, n] } stage { space i < 2 y[i+3, n] = b[i, n] }",
    ),
    "digits": ("(x: f32[6]) -> (y: f32[6])", "space i < 3, j < 2 stage { y[2*i+j] = x[2*i+j] }"),
    "a unit axis left out": ("(x: f32[1,3]) -> (y: f32[3])", "space u < 1, i < 3 stage { y[i] = x[u, i] }"),
    "guard keeps the store in range": (
        "(x: f32[7]) -> (y: f32[7] init 0)",
        "space i < 4, j < 2 stage { y[2*i+j] = x[i] if 2 * i + j < 7 }",
    ),
    "scatter": (
        "(i: i32[N], g: f32[N,4]) -> (y: f32[9,4] init 0) where N <= 8",
        "space sequential n < N, c < 4 stage { y[i64(i[n]) in 0 .. 9, c] += g[n, c] }",
    ),
    "overlapping windows through partials": (
        "(g: f32[N,4,3]) -> (y: f32[6] init 0) where N <= 8",
        "space n < N, o < 4, k < 3 stage { y[o+k] += g[n, o, k] through 4 partials }",
    ),
    "softmax in place": (
        "(inout x: f32[N,5]) -> () where N <= 8",
        "space n < N stage { reduce c < 5 m, s = logsumexp(x[n, c], 1.0) }"
        "stage { space c < 5 x[n, c] = exp(x[n, c] - m) / s }",
    ),
    "a stage reads what an earlier one wrote at this point": (
        "(x: f32[N,5]) -> (e: f32[N,5], y: f32[N]) where N <= 8",
        "space n < N stage { space c < 5 e[n, c] = exp(x[n, c]) } stage { reduce c < 5 s = sum(e[n, c]) y[n] = s }",
    ),
    "update": (
        "(inout w: f32[3,4], x: f32[N,3], g: f32[N,4]) -> () where N <= 8",
        "space k < 3, m < 4 stage { reduce n < N d = sum(x[n, k] * g[n, m]) w[k, m] = w[k, m] - 0.1 * d }",
    ),
    "a loop index is an extent": ("() -> (y: i64[3]) where t <= 5", "space i < 3 stage { y[i] = extent(t) }"),
    "an empty axis allows any index": ("(x: f32[0]) -> (y: f32[0])", "space i < 0 stage { y[i] = x[i+7] }"),
}

INVALID = {
    "operand": ("(x: f32[3]) -> (y: f32[3])", "space i < 3 stage { y[i] = z[i] }", "operand 'z' is not defined"),
    "stored operand": ("(x: f32[3]) -> (y: f32[3])", "space i < 3 stage { z[i] = x[i] }", "'z' is stored and not"),
    "stored input": ("(x: f32[3]) -> ()", "space i < 3 stage { x[i] = 1.0 }", "declared as read only"),
    "name": ("() -> (y: f32[3])", "space i < 3 stage { y[i] = t }", "name 't' is not defined"),
    "let of the reduction": (
        "(x: f32[3]) -> (y: f32[])",
        "stage { reduce i < 3 let t = x[i] s = sum(t) y[] = t }",
        "name 't' is not defined",
    ),
    "name of a stage with space": (
        "(x: f32[3]) -> (y: f32[3], z: f32[])",
        "stage { space i < 3 let t = x[i] y[i] = t } stage { z[] = t }",
        "name 't' is not defined",
    ),
    "axis of the reduction": (
        "(x: f32[3]) -> (y: f32[])",
        "stage { reduce i < 3 s = sum(x[i]) y[] = x[i] }",
        "axis 'i' is not in scope",
    ),
    "combiner": ("(x: f32[3]) -> (y: f32[])", "stage { reduce i < 3 s = mode(x[i]) y[] = s }", "combiner 'mode'"),
    "combiner's arity": ("(x: f32[3]) -> (y: f32[])", "stage { reduce i < 3 s = argmax(x[i]) y[] = s }", "2 component"),
    "names of a tuple": ("(x: f32[3]) -> (y: f32[])", "stage { reduce i < 3 a, b = sum(x[i]) y[] = a }", "gives 1 val"),
    "mode's components": ("() -> (y: f32[3] init 0)", "space i < 3 stage { y[i] argmax= 1.0 }", "2 component"),
    "rank": ("(x: f32[3,3]) -> (y: f32[3])", "space i < 3 stage { y[i] = x[i] }", "has 1 indices"),
    "mixed dtypes": ("(x: f64[3]) -> (y: f64[3])", "space i < 3 stage { y[i] = x[i] + 1.0 }", "dtypes f64, f32"),
    "store's dtype": ("(x: f64[3]) -> (y: f32[3])", "space i < 3 stage { y[i] = x[i] }", "value of f64 is stored"),
    "guard": ("() -> (y: f32[3] init 0)", "space i < 3 stage { y[i] = 1.0 if i }", "guard i .* no bool"),
    "index too high": ("(x: f32[3]) -> (y: f32[3])", "space i < 3 stage { y[i] = x[i+1] }", r"x\[i\+1\]: index"),
    "index too low": ("(x: f32[3]) -> (y: f32[3])", "space i < 3 stage { y[i] = x[i-1] }", r"x\[i-1\]: index"),
    "clipped too little": (
        "(x: f32[9]) -> (y: f32[9])",
        "space y0 < 9 stage { reduce k in max(0, 1-y0) .. min(5, 11-y0) s = sum(x[y0+k-2]) y[y0] = s }",
        "index y0\\+k-2 is not seen",
    ),
    "table too generous": (
        "(x: f32[9]) -> (y: f32[5])",
        "space o < 5 stage { reduce k in [1, 0, 0, 0, 0][o] .. [3, 3, 3, 3, 3][o] s = sum(x[2*o+2*k-2]) y[o] = s }",
        "not seen to stay",
    ),
    "table too short": (
        "(x: f32[9]) -> (y: f32[5])",
        "space o < 5 stage { reduce k < [1, 2][o] s = sum(x[k]) y[o] = s }",
        "2 values, too few for 'o'",
    ),
    "runtime extent too great": (
        "(x: f32[4]) -> (y: f32[N]) where N <= 8", "space n < N stage { y[n] = x[n] }", "x\\[n\\]"
    ),
    "computed bounds": (
        "(i: i64[3], x: f32[5]) -> (y: f32[3])", "space n < 3 stage { y[n] = x[i[n] in 0 .. 6] }", "0 .. 6 go beyond"
    ),
    "computed index's dtype": (
        "(i: i32[3], x: f32[5]) -> (y: f32[3])", "space n < 3 stage { y[n] = x[i[n] in 0 .. 5] }", "cast it to i64"
    ),
    "axis left out": ("(x: f32[3,4]) -> (y: f32[3])", "space i < 3, j < 4 stage { y[i] = x[i, j] }", "differ in j may"),
    "sequential axis left out": (
        "(x: f32[3,4]) -> (y: f32[3])", "space i < 3, sequential j < 4 stage { y[i] = x[i, j] }", "only its last point"
    ),
    "overlap": ("(x: f32[6]) -> (y: f32[6])", "space i < 4, j < 3 stage { y[i+j] = x[i] }", "differ in i, j may store"),
    "computed store in parallel": (
        "(i: i64[3]) -> (y: f32[5] init 0)", "space n < 3 stage { y[i[n] in 0 .. 5] = 1.0 }", "differ in n"
    ),
    "combining race": (
        "(x: f32[3,4]) -> (y: f32[3] init 0)", "space i < 3, j < 4 stage { y[i] += x[i, j] }", "sequential or go"
    ),
    "partials with nothing to cut": (
        "(x: f32[6]) -> (y: f32[6] init 0)", "space i < 4, j < 3 stage { y[i+j] += x[i] through 4 partials }", "need an"
    ),
    "partials of a clipped axis": (
        "(x: f32[6]) -> (y: f32[] init 0)", "space i in 1 .. 6 stage { y[] += x[i] through 4 partials }", "unclipped"
    ),
    "partials of a plain store": ("() -> (y: f32[3])", "space i < 3 stage { y[i] = 1.0 through 2 partials }", "plain"),
    "combining with no start": ("() -> (y: f32[3])", "space i < 3 stage { y[i] += 1.0 }", "no `init` to start from"),
    "two stores that meet": (
        "(x: f32[4]) -> (y: f32[8] init 0)", "space i < 4 stage { y[2*i] = x[i] y[i+1] = 0.0 }", "two stores to 'y'"
    ),
    "unwritten output read": (
        "() -> (e: f32[3], y: f32[3])", "space i < 3 stage { y[i] = e[i] e[i] = 1.0 }", "no earlier stage has written"
    ),
    "output read elsewhere": (
        "(x: f32[3]) -> (e: f32[3], y: f32[3])",
        "space i < 3 stage { e[i] = x[i] } stage { y[i] = e[2-i] }",
        "read at one point and stored at another",
    ),
    "inout read elsewhere": (
        "(inout w: f32[4]) -> ()", "space i < 4 stage { w[i] = w[3-i] }", "at another index than the store's"
    ),
    "inout read by a reduction": (
        "(inout w: f32[4]) -> ()", "space i < 4 stage { reduce j < 4 s = sum(w[j]) w[i] = s }", "another index"
    ),
    "uncovered": ("(x: f32[4]) -> (y: f32[9])", "space i < 4 stage { y[2*i] = x[i] }", "'y' may stay unwritten"),
    "uncovered by guard": ("() -> (y: f32[4])", "space i < 4 stage { y[i] = 1.0 if i < 3 }", "may stay unwritten"),
    "diagonal": ("() -> (y: f32[4,4])", "space i < 4 stage { y[i, i] = 1.0 }", "may stay unwritten"),
    "never stored": ("() -> (y: f32[4])", "", "may stay unwritten"),
    "capacity": ("() -> (y: f32[N])", "space n < N stage { y[n] = 1.0 }", "'N' has no capacity"),
    "capacity of an extent": ("() -> (y: i64[])", "stage { y[] = extent(t) }", "'t' has no capacity"),
    "operands of one name": ("(x: f32[]) -> (x: f32[])", "stage { x[] = 1.0 }", "'x' is used twice"),
    "axes of one name": ("() -> (y: f32[3])", "space i < 3, i < 3 stage { y[i] = 1.0 }", "'i' is used twice"),
    "value twice": ("() -> (y: f32[])", "stage { let a = 1.0 let a = 2.0 y[] = a }", "'a' is defined twice"),
    "value with an axis' name": ("() -> (y: f32[3])", "space i < 3 stage { let i = 1.0 y[i] = 1.0 }", "name of an ax"),
    "init of an input": ("(x: f32[] init 0) -> (y: f32[])", "stage { y[] = x[] }", "`init` would overwrite"),
    "init's dtype": ("() -> (y: i64[] init 0.5)", "stage { y[] = 1 }", "init 0.5 is no value of i64"),
    "bound over an inner axis": (
        "() -> (y: f32[3,3] init 0)", "space i < [1, 2, 3][j], j < 3 stage { y[i, j] = 1.0 }", "which is no axis around"
    ),
    "redefined in a later stage": (
        "() -> (y: f32[])", "stage { let a = 1.0 } stage { let a = 2.0 y[] = a }", "'a' is defined twice"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("signature", "body"), VALID.values(), ids=VALID)
def test_valid(signature: str, body: str) -> None:
    verify(kernel(signature, body))


@pytest.mark.parametrize(("signature", "body", "message"), INVALID.values(), ids=INVALID)
def test_invalid(signature: str, body: str, message: str) -> None:
    with pytest.raises(VerifyError, match=message) as caught:
        verify(kernel(signature, body))
    assert "kernel 'k'" in str(caught.value) and "kernel k(" in str(caught.value)


def plain(**changes: object) -> Kernel:
    """A valid map, built by hand."""
    stage = Stage(stores=(Store("y", (Affine.axis("i"),), Load("x", (Affine.axis("i"),))),))
    operands = (Operand("x", f32, (3,)), Operand("y", f32, (3,), "out"))
    return replace(Kernel("k", operands, (Axis.range("i", 3),), (stage,)), **changes)  # type: ignore[arg-type]


def test_what_no_text_can_say() -> None:
    verify(plain())
    cases = [
        (plain(name="3k"), "cannot be the name"),
        (plain(name="stage"), "cannot be the name"),
        (plain(space=(Axis("i", (), (Affine((), 3),)),)), "no lower or no upper"),
        (plain(operands=(Operand("x", f32, (3,), "read"), Operand("y", f32, (3,), "out"))), "role 'read'"),
        (plain(operands=(Operand("x", f32, (-3,)), Operand("y", f32, (3,), "out"))), "negative dimension"),
        (plain(space=(Axis("i", (Affine(),), (Affine((("j", 0),), 3),)),)), "depends on 'j'"),
    ]
    value = Store("y", (Affine((("i", 0),)),), Const(1.0, f32))
    cases.append((plain(stages=(Stage(stores=(value,)),)), "not sorted, or some are zero"))
    beyond = Stage(stores=(Store("y", (Affine.axis("j"),), Name("i")),))
    cases.append((plain(stages=(beyond,)), "name 'i' is not defined"))
    unknown = Stage(stores=(Store("y", (Affine.axis("i"),), Const(1.0, f32), guard=AxisIndex("j")),))
    cases.append((plain(stages=(unknown,)), "axis 'j' is not in scope"))
    for bad, message in cases:
        with pytest.raises(VerifyError, match=message):
            verify(bad)


@pytest.mark.parametrize(("value", "dtype"), [(256, u8), (-1, u8), (2**63, i64)])
def test_constants_fit_their_dtype(value: int, dtype: object) -> None:
    operands = (Operand("y", dtype, (3,), "out"),)  # type: ignore[arg-type]
    stage = Stage(stores=(Store("y", (Affine.axis("i"),), Const(value, dtype)),))  # type: ignore[arg-type]
    with pytest.raises(VerifyError, match="is no value of"):
        verify(plain(operands=operands, stages=(stage,)))
