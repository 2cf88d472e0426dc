"""Ctrl-C during training: variables, their versions and the random state stay at a step boundary."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from graphc.kernel.plan import Buffer, Call, Plan
from graphc.runtime.cache import ProgramCache, ProgramImage

KEY = "0" * 64
# A step of a few milliseconds that writes `a` first and `b` last.
PLAN = Plan(
    "slow",
    tuple(Buffer(name, "i64", (), "variable", place, 8) for place, name in enumerate(("a", "b", "waste"))),
    (Call("add_one", ("a",)), *[Call("spin", ("waste",))] * 4, Call("add_one", ("b",))),
    0, (), (), ("a", "b", "waste"), written=("a", "b", "waste"),
)
CHILD = """
import sys
from graphc.ir.buffers import Elements, aligned_zeros
from graphc.runtime.cache import default_cache
from graphc.runtime.executable import Executable
image = default_cache().load(sys.argv[1])
owners = {name: Elements(aligned_zeros((), "i64")) for name in image.plan.variables}
step = Executable(image.plan, image.objects, owners, {}, 0)
for turn in range(5):
    try:
        print("running", flush=True)
        while True:
            step({})
    except KeyboardInterrupt:
        pass
    a, b = int(owners["a"].array), int(owners["b"].array)
    assert a == b == step.steps == owners["a"].version == owners["b"].version, (a, b, step.steps, owners)
    assert a > 0
step({})  # the program still works, and its lock is free
assert owners["a"].array == a + 1
print("whole steps", flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_an_interrupt_leaves_whole_steps(tmp_path: Path, objects: dict[str, bytes]) -> None:
    cache = ProgramCache(tmp_path / "programs")
    cache.store(KEY, ProgramImage(PLAN, {name: objects[name] for name in ("add_one", "spin")}))
    environment = {**os.environ, "GRAPHC_CACHE": str(cache.folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen([sys.executable, "-c", CHILD, KEY], env=environment, text=True, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
    assert child.stdout is not None and child.stderr is not None
    try:
        for turn in range(5):
            assert child.stdout.readline() == "running\n", child.stderr.read()
            time.sleep(0.05 + 0.003 * turn)  # by then it is in the middle of a step
            child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 0 and out == "whole steps\n", err

