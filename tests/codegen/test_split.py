"""Long reductions in pieces: both kernels together compute what the one kernel does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphc.codegen.host import Host
from graphc.codegen.split import Split, split_reduction
from graphc.kernel import interpret
from graphc.kernel.form import Kernel
from graphc.kernel.parser import parse_kernel
from graphc.kernel.verify import verify

SMALL = Host("small caches", "", 16, 32, True, 1 << 14, 1 << 15)  # so that small tensors are worth cutting


def weight_gradient(ci: int, co: int, size: int, taps: int, pad: int, batch: int) -> Kernel:
    """dW[co, ci, ky, kx] with SGD and momentum: images and pixels are summed over."""
    out = size + 2 * pad - taps + 1
    y, x = (f"{a} in max(0, {pad}-k{a}) .. min({out}, {size + pad}-k{a})" for a in "yx")
    shape = f"f32[{co},{ci},{taps},{taps}]"
    return parse_kernel(
        f"kernel gradient(X: f32[{ci},{size},{size},N], G: f32[{co},{out},{out},N], inout W: {shape}, inout M: {shape})"
        f" -> () where N <= {batch} {{ space co < {co}, ci < {ci}, ky < {taps}, kx < {taps} stage {{"
        f" reduce {y}, {x}, n < N acc: f32 = sum(X[ci, y+ky-{pad}, x+kx-{pad}, n] * G[co, y, x, n])"
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


@pytest.mark.parametrize("sizes", [(1, 6, 9, 5, 2, 40), (3, 8, 10, 3, 1, 32), (5, 7, 9, 3, 0, 37), (9, 9, 8, 3, 1, 16)])
def test_two_kernels_compute_what_one_does(build: Callable[..., Any], sizes: tuple[int, ...]) -> None:
    kernel, batch = weight_gradient(*sizes), sizes[-1]
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


def test_operands_in_the_first_cache_are_not_worth_it() -> None:
    assert split_reduction(weight_gradient(2, 2, 4, 3, 1, 16), Host("", "", 16, 32)) is None


def test_only_contractions_are_split() -> None:
    space = "space i < 64 stage { reduce j < 4096 a: f32 = sum(x[i, j]) y[i] = a }"
    sums = parse_kernel(f"kernel k(x: f32[64,4096]) -> (y: f32[64]) {{ {space} }}")
    assert split_reduction(sums, SMALL) is None
