"""Visibility and dtypes of names, stage by stage."""

from __future__ import annotations

from graphc.ir.types import f32, f64, i64
from graphc.kernel.scope import stage_scopes
from graphc.kernel.text import parse_kernel

KERNEL = """kernel k(x: f32[N,3]) -> (y: f32[N,3]) where N <= 8 {
  space n < N
  stage { reduce c < 3 let t = x[n, c] m, i = argmax(t, c) let wide = f64(m) }
  stage { let j = i + 1 }
  stage { space c < 3 let u = x[n, c] y[n, c] = u - m }
  stage { }
}"""


def test_scopes() -> None:
    first, second, third, fourth = stage_scopes(parse_kernel(KERNEL))
    assert first.outer == {} and first.inner == {"t": f32}
    assert first.names == {"m": f32, "i": i64, "wide": f64}
    assert [axis.name for axis in first.axes] == ["n", "c"] and [axis.name for axis in first.space] == ["n"]
    assert second.outer == first.names and second.names == {**first.names, "j": i64}
    assert [axis.name for axis in third.space] == ["n", "c"]
    assert third.names == {**second.names, "u": f32}
    assert fourth.outer == second.names
