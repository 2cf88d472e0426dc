"""The machine's limits: plausible, and no lower than what a program reaches."""

from __future__ import annotations

import json

import pytest

from graphc.inspect.peak import fma_gflops, measure_peak


@pytest.mark.parametrize("threads", [1, 2])
def test_peak(threads: int) -> None:
    peak = measure_peak(threads, seconds=0.06)
    assert peak.threads == threads
    assert 5 < peak.fma_gflops < 2000 * threads
    assert 0.5 < peak.triad_gbytes_s < 5000 and 0.5 < peak.read_gbytes_s < 5000
    line = peak.to_json()
    assert json.loads(json.dumps(line)) == line and line["workload"] == "peak"
    assert "GFLOP/s" in str(peak)


def test_fma_alone_agrees() -> None:
    # Two short measurements on a machine that others use too: only the order of magnitude is certain.
    assert 0.3 < fma_gflops(seconds=0.05) / measure_peak(seconds=0.15).fma_gflops < 3
