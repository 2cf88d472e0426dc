"""Which schedules kernels get, and what threads may share."""

from __future__ import annotations

import pytest

from graphc.codegen.choose import choose
from graphc.codegen.cpu.emit import schedulable
from graphc.codegen.host import Host
from graphc.kernel.parser import parse_kernel
from graphc.kernel.schedule import Schedule

AVX512 = Host("test", "", 16, 32, first_level=48 << 10)
AVX2 = Host("test", "", 8, 16)
NEON = Host("test", "", 4, 32)


def schedule(text: str, host: Host = AVX512) -> Schedule:
    return choose(parse_kernel(f"kernel k {text}"), host)


def product(weights: str, rows: int = 128, reduced: int = 784, columns: int = 512, dtype: str = "f32") -> str:
    shape = f"{reduced},{columns}" if weights == "W[k, o]" else f"{columns},{reduced}"
    return (
        f"(x: {dtype}[N,{reduced}], W: {dtype}[{shape}]) -> (y: {dtype}[N,{columns}]) where N <= {rows} {{ space n < N,"
        f" o < {columns} stage {{ reduce k < {reduced} a: {dtype} = sum(x[n, k] * {weights}) y[n, o] = a }} }}"
    )


def test_contractions_use_register_tiles() -> None:
    outer, dot = schedule(product("W[k, o]")), schedule(product("W[o, k]"))
    assert (outer.kind, outer.vector_axis, outer.tile) == ("outer", "o", (("n", 8), ("o", 32)))
    assert (dot.kind, dot.vector_axis, dot.tile) == ("dot", "k", (("n", 2), ("o", 8), ("k", 16)))


@pytest.mark.parametrize("host", [AVX512, AVX2, NEON])
@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("weights", ["W[k, o]", "W[o, k]"])
@pytest.mark.parametrize("columns", [1, 10, 100, 512])
def test_register_tiles_fit_the_host(host: Host, dtype: str, weights: str, columns: int) -> None:
    found = schedule(product(weights, columns=columns, dtype=dtype), host)
    sizes, wide = dict(found.tile), 2 if dtype == "f64" else 1
    if found.kind == "outer":
        vectors = sizes["o"] // host.lanes
        used = sizes["n"] * vectors + vectors + 2
    else:
        used = sizes["n"] * sizes["o"] + min(sizes["n"], sizes["o"]) + 1
    assert used * wide <= host.registers


def test_short_columns_get_tall_tiles() -> None:
    found = schedule(product("W[k, o]", columns=10))
    assert dict(found.tile)["o"] == 16 and dict(found.tile)["n"] >= 8


def test_dense_maps_are_one_loop() -> None:
    text = (
        "(x: f32[N,8,16]) -> (y: f32[N,8,16]) where N <= 64 { space n < N, i < 8, j < 16 stage {"
        " y[n, i, j] = exp(x[n, i, j]) } }"
    )
    kernel = schedulable(parse_kernel(f"kernel k {text}"))
    assert [(a.name, str(a.extent)) for a in kernel.space] == [("j", "128*N")]
    found = schedule(text)
    assert (found.kind, found.vector_axis) == ("vector", "j")


def test_long_rows_have_lanes_along_them_and_short_ones_across() -> None:
    text = (
        "(x: f32[N,{c}]) -> (y: f32[N]) where N <= 128 {{ space n < N stage {{ reduce c < {c}"
        " s: f32 = sum(exp(x[n, c])) y[n] = s }} }}"
    )
    assert schedule(text.format(c=1000)).vector_axis == "c"
    assert schedule(text.format(c=4)).vector_axis == "n"


@pytest.mark.parametrize(
    ("text", "parallel"),
    [
        (product("W[k, o]"), "o"),  # half of W for each of two threads
        (product("W[k, o]", rows=2000), "n"),  # half of x
        ("(x: f32[N,512], g: f32[N,784], inout W: f32[512,784]) -> () where N <= 128 { space i < 512, j < 784 stage {"
         " reduce n < N a: f32 = sum(x[n, i] * g[n, j]) W[i, j] = W[i, j] + a } }", "i"),  # rows of an update
        (product("W[k, o]", rows=4), "o"),
        (product("W[k, o]", rows=4, reduced=8, columns=8), None),  # too little work
        ("(x: f32[N,64]) -> (s: f32[64] init 0) where N <= 4096 { space sequential n < N, c < 64 stage {"
         " s[c] += x[n, c] } }", None),  # an initial value that no thread owns rows of
        ("(x: f32[N,64], b: f32[64]) -> (y: f32[N,64] init 0) where N <= 4096 { space n < N, c < 64 stage {"
         " y[n, c] = b[c] if x[n, c] > 0.0 } }", "n"),
        ("(x: f32[N,64]) -> (y: f32[N,64], s: f32[64] init 0) where N <= 4096 { space n < N, c < 64 stage {"
         " y[n, c] = x[n, c] s[c] += x[n, c] through 8 partials } }", None),
        ("(x: f32[9000]) -> (s: f32[]) { stage { reduce i < 9000 a: f32 = sum(x[i] * x[i]) s[] = a } }", None),
    ],
)  # fmt: skip
def test_threads_share_what_they_may(text: str, parallel: str | None) -> None:
    assert schedule(text).parallel == parallel


def test_operands_read_elsewhere_than_written_run_in_order() -> None:
    """Fibonacci-like: each point reads what an earlier one wrote."""
    found = schedule("(inout x: f32[40000]) -> () { space sequential i < 39999 stage { x[i+1] = x[i+1] + x[i] } }")
    assert (found.kind, found.parallel) == ("scalar", None)
