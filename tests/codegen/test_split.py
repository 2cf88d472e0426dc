"""Long reductions in pieces: both kernels together compute what the one kernel does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graphc.codegen.host import Host, host
from graphc.codegen.split import Split, split_reduction
from graphc.codegen.tiles import Stream, dot_cost
from graphc.kernel import interpret
from graphc.kernel.form import Kernel
from graphc.kernel.parser import parse_kernel
from graphc.kernel.schedule import Schedule
from graphc.kernel.text import print_kernel
from graphc.kernel.verify import verify

SMALL = Host("small caches", "", 16, 32, True, 1 << 14, 1 << 15)  # so that small tensors are worth cutting


def weight_gradient(ci: int, co: int, size: int, taps: int, pad: int, batch: int, apart: int = 1) -> Kernel:
    """dW[co, ci, ky, kx] with SGD and momentum: images and pixels are summed over."""
    out = size + 2 * pad - apart * (taps - 1)
    y, x = (f"{a} in max(0, {pad}-{apart}*k{a}) .. min({out}, {size + pad}-{apart}*k{a})" for a in "yx")
    shape = f"f32[{co},{ci},{taps},{taps}]"
    return parse_kernel(
        f"kernel gradient(X: f32[{ci},{size},{size},N], G: f32[{co},{out},{out},N], inout W: {shape}, inout M: {shape})"
        f" -> () where N <= {batch} {{ space co < {co}, ci < {ci}, ky < {taps}, kx < {taps} stage {{"
        f" reduce {y}, {x}, n < N acc: f32 = sum(X[ci, y+{apart}*ky-{pad}, x+{apart}*kx-{pad}, n] * G[co, y, x, n])"
        " let m: f32 = M[co, ci, ky, kx] * 0.9 + acc M[co, ci, ky, kx] = m"
        " W[co, ci, ky, kx] = W[co, ci, ky, kx] - m * 0.01 } }"
    )


def arrays(kernel: Kernel, count: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    shapes = {o.name: tuple(count if str(d) == "N" else int(str(d)) for d in o.shape) for o in kernel.operands}
    return {name: rng.standard_normal(shape).astype("float32") for name, shape in shapes.items()}


def cut(kernel: Kernel, host: Host = SMALL) -> Split:
    found = split_reduction(kernel, host)
    assert found is not None
    verify(found.summing)
    verify(found.finishing)
    return found


@pytest.mark.parametrize(
    "sizes",
    [
        (9, 9, 8, 3, 1, 24),
        (3, 8, 10, 3, 1, 32),
        (5, 7, 9, 3, 0, 37),
        (9, 9, 12, 3, 1, 16),
        (5, 5, 6, 2, 2, 37, 3),  # no tap meets all rows of the result, which has more than the image
    ],
)
def test_two_kernels_compute_what_one_does(build: Callable[..., Any], sizes: tuple[int, ...]) -> None:
    kernel, batch = weight_gradient(*sizes), sizes[5]
    found = cut(kernel)
    summing, finishing = build(found.summing, found.schedule), build(found.finishing)
    for count in (1, batch - 1, batch):
        given = arrays(kernel, count)
        wanted = interpret.run(kernel, given, {"N": count}, float64=True)
        sums = summing.check({n: given[n] for n in ("X", "G")}, {"N": count}, rtol=1e-4, atol=1e-4)[found.sums.name]
        results = finishing.check({found.sums.name: sums, "W": given["W"], "M": given["M"]}, rtol=1e-4, atol=1e-4)
        for name in ("W", "M"):
            np.testing.assert_allclose(results[name], wanted[name], rtol=1e-4, atol=1e-4)


def test_a_thread_owns_the_sums_that_it_adds_up() -> None:
    found = cut(weight_gradient(32, 32, 16, 3, 1, 32))
    assert found.schedule.parallel == found.summing.space[0].name
    assert found.sums.shape[0] == 32


def test_pieces_that_stay_in_the_second_cache_are_walked_one_by_one() -> None:
    """Operands come from memory once; where a piece is larger than the cache, rows go outermost and stay."""
    kernel = weight_gradient(8, 12, 16, 3, 1, 32)
    large = replace(SMALL, second_level=1 << 17)
    for machine, place in ((large, 0), (SMALL, 1)):
        found = cut(kernel, machine)
        order = [axis.name for axis in found.summing.space]
        assert list(found.schedule.order) == order and order.index("piece") == place
        assert found.schedule.parallel in ("co", "ci")


@pytest.mark.parametrize("threads", [1, 3])
def test_pieces_outermost_compute_the_same_sums(build: Callable[..., Any], threads: int) -> None:
    kernel = weight_gradient(8, 12, 16, 3, 1, 32)
    whole, rows = cut(kernel, replace(SMALL, second_level=1 << 17)), cut(kernel)
    assert whole.schedule.order[0] == "piece" != rows.schedule.order[0]
    given = {name: value for name, value in arrays(kernel, 32).items() if name in ("X", "G")}
    found = [build(s.summing, s.schedule).run(given, {"N": 32}, threads=threads)[s.sums.name] for s in (whole, rows)]
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found[0], build(whole.summing, whole.schedule).run(given, {"N": 32})[whole.sums.name])


def test_full_batches_need_no_masks(build: Callable[..., Any]) -> None:
    """Whole vectors have code without masks of their own, which any smaller count must not take."""
    for batch in (32, 37):
        kernel = weight_gradient(4, 4, 6, 3, 1, batch)
        lanes = host().lanes
        built = build(kernel, Schedule("dot", "n", (("co", 4), ("ci", 4), ("n", lanes)), ("co", "ci", "ky", "kx")))
        assert (f"if N == {batch}:" in built.source) == (batch % lanes == 0)
        for count in (1, 16, batch - 1, batch):
            built.check(arrays(kernel, count), {"N": count}, rtol=1e-4, atol=1e-4)


def test_pieces_are_compared_as_wholes() -> None:
    """A short piece costs less than a long one, all of them together do not."""
    long, short = Stream(64.0, 1.0, pieces=2.0), Stream(32.0, 1.0, pieces=4.0)
    assert dot_cost(4, 4, replace(short, pieces=1.0)) < dot_cost(4, 4, replace(long, pieces=1.0))
    assert dot_cost(4, 4, short) > dot_cost(4, 4, long)


def test_operands_in_the_first_cache_are_not_worth_it() -> None:
    assert split_reduction(weight_gradient(2, 2, 4, 3, 1, 16), Host("", "", 16, 32)) is None


def test_only_contractions_are_split() -> None:
    space = "space i < 64 stage { reduce j < 4096 a: f32 = sum(x[i, j]) y[i] = a }"
    sums = parse_kernel(f"kernel k(x: f32[64,4096]) -> (y: f32[64]) {{ {space} }}")
    assert split_reduction(sums, SMALL) is None


# ---- outer products -------------------------------------------------------------------------------------------------


def recurrent_gradient(steps: int, rows: int, columns: int, batch: int, *, swapped: bool = False) -> Kernel:
    """dW[i, j] with momentum, summed over time steps and sequences; swapped: g lies sequence by sequence."""
    shape, at = f"f32[{rows},{columns}]", "n, t, j" if swapped else "t, n, j"
    return parse_kernel(
        f"kernel gradient(h: f32[{steps},N,{rows}], g: f32[{f'N,{steps}' if swapped else f'{steps},N'},{columns}],"
        f" inout W: {shape}, inout M: {shape}) -> () where N <= {batch} {{ space i < {rows}, j < {columns} stage {{"
        f" reduce n < N, t < {steps} acc: f32 = sum(h[t, n, i] * g[{at}])"
        " let m: f32 = M[i, j] * 0.9 + acc M[i, j] = m W[i, j] = W[i, j] - m * 0.01 } }"
    )


@pytest.mark.parametrize("sizes", [(40, 33, 64, 19), (70, 16, 37, 8), (64, 128, 65, 9), (600, 5, 96, 1)])
@pytest.mark.parametrize("swapped", [False, True])
def test_sums_of_outer_products_are_cut_too(build: Callable[..., Any], sizes: tuple[int, ...], swapped: bool) -> None:
    kernel, batch = recurrent_gradient(*sizes, swapped=swapped), sizes[-1]
    found = cut(kernel)
    summing, finishing = build(found.summing, found.schedule), build(found.finishing)
    for count in (1, batch):
        given = arrays(kernel, count)
        wanted = interpret.run(kernel, given, {"N": count}, float64=True)
        sums = summing.check({n: given[n] for n in ("h", "g")}, {"N": count}, rtol=1e-4, atol=1e-4,
                             threads=(1, 2, 3, 4))[found.sums.name]  # fmt: skip
        results = finishing.check({found.sums.name: sums, "W": given["W"], "M": given["M"]}, rtol=1e-4, atol=1e-4)
        for name in ("W", "M"):
            np.testing.assert_allclose(results[name], wanted[name], rtol=1e-4, atol=1e-4)


def test_lanes_run_along_the_axis_that_fills_them() -> None:
    wide, narrow = cut(recurrent_gradient(64, 96, 128, 32)), cut(recurrent_gradient(64, 128, 65, 32))
    assert (wide.schedule.vector_axis, wide.sums.shape) == ("j", (96, 128))
    assert (narrow.schedule.vector_axis, narrow.sums.shape) == ("i", (65, 128))
    assert str(narrow.schedule) == "outer; vector i; tile j:12 i:32; order piece j i; parallel i"


def test_pieces_walk_densely_through_their_operands() -> None:
    """Steps of 16 KB would map all rows of a tile to one place in the cache."""
    summing = print_kernel(cut(recurrent_gradient(64, 128, 65, 32, swapped=True)).summing)
    assert "reduce t in max(4*piece, 0) .. min(4*piece+4, 64), n < N\n" in summing


def test_sums_that_are_short_or_small_are_left() -> None:
    machine = Host("", "", 16, 32)
    assert split_reduction(recurrent_gradient(4, 784, 512, 32), machine) is None
    assert split_reduction(recurrent_gradient(32, 32, 64, 32), machine) is None
    assert split_reduction(recurrent_gradient(64, 128, 128, 32), machine) is not None
