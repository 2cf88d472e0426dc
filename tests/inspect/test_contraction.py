"""The contraction benchmark times the kernels that it names, and nothing falls back to plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.inspect.contraction import CONTRACTIONS, FEATURES, OUTPUTS, ROWS, measure_contractions
from graphc.program import compile


@pytest.mark.parametrize("name", CONTRACTIONS)
def test_every_contraction_is_one_tiled_kernel(name: str) -> None:
    inputs, result = CONTRACTIONS[name]()
    (kernel,) = compile(inputs, [result]).kernels.values()
    assert kernel.schedule.startswith(("outer", "dot")) and "tile_fma" in kernel.source


def test_weight_gradient_is_the_product_that_it_names() -> None:
    inputs, result = CONTRACTIONS["gradient of W [512,784]"]()
    rng = np.random.default_rng(0)
    x, g = (rng.standard_normal((ROWS, n)).astype(np.float32) for n in (FEATURES, OUTPUTS))
    np.testing.assert_allclose(compile(inputs, [result])(x, g)[0], g.T @ x, rtol=1e-3, atol=1e-3)


def test_figures_are_shares_of_the_measured_peak() -> None:
    timings = measure_contractions(seconds=0.1)
    assert [k.name for k in timings.kernels] == list(CONTRACTIONS)
    for kernel in timings.kernels:
        assert kernel.share_of_peak == pytest.approx(kernel.gflops / timings.peak_gflops)
        assert 0 < kernel.share_of_peak < 1.2
    assert timings.to_json()["workload"] == "contraction" and "of the peak" in str(timings)
