"""The tile tests once more as on machines with narrower vectors than this one."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from graphc.codegen.host import host

AVX2 = 'Host("haswell", "", 8, 16)'
SSE = 'Host("x86-64", "", 4, 16, fused=False)'


@pytest.mark.slow
@pytest.mark.parametrize(("lanes", "narrow"), [(8, AVX2), (4, SSE)])
def test_tiles_of_fewer_lanes(lanes, narrow):
    if platform.machine() not in ("x86_64", "AMD64") or host().lanes <= lanes:
        pytest.skip("runs code for narrower x86-64 processors, which this one is not wider than")
    script = f"""
import sys
import graphc.codegen.host as module
narrow = module.{narrow}
module.host = lambda: narrow  # before anything imports it by name
import pytest
sys.exit(pytest.main([sys.argv[1], "-q", "-p", "no:cacheprovider"]))
"""
    done = subprocess.run([sys.executable, "-c", script, str(Path(__file__).parent)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
