"""Is this installation sound? Versions, the vector unit, the cache folder, the data set, and a tiny program run."""

from __future__ import annotations

import importlib.util
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from graphc.codegen.host import host
from graphc.data import mnist
from graphc.dsl.activations import relu
from graphc.dsl.functions import sum as total
from graphc.dsl.transforms import grad
from graphc.dsl.variables import input, param
from graphc.errors import CacheWarning
from graphc.inspect.oracle import check_step
from graphc.inspect.record import record_step
from graphc.program import compile
from graphc.runtime.cache import default_cache
from graphc.runtime.cores import default_threads

OK, WARNING, FAILURE = "ok", "warning", "failure"
PACKAGES = ("numpy", "numba", "llvmlite", "sympy", "rich", "safetensors")
EXTRAS = {"cuda": "numba_cuda", "docs": "sphinx", "test": "pytest"}


@dataclass(frozen=True)
class Finding:
    """One thing looked at: `state` is "ok", "warning" (graphc works all the same) or "failure"."""

    subject: str
    state: str
    detail: str

    def to_json(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.state:8} {self.subject:14} {self.detail}"


def examine() -> list[Finding]:
    """Look at everything; never raises, for what raises is a finding."""
    looks: list[tuple[str, Callable[[], tuple[str, str]]]] = [
        ("python", _python), ("packages", _packages), ("vector unit", _vector_unit), ("cache", _cache),
        ("mnist", _data), ("extras", _extras), ("self-test", _self_test),
    ]  # fmt: skip
    return [_finding(subject, look) for subject, look in looks]


def _finding(subject: str, look: Callable[[], tuple[str, str]]) -> Finding:
    try:
        state, detail = look()
    except Exception as error:  # noqa: BLE001 - whatever is broken is what the user asked about
        state, detail = FAILURE, f"{type(error).__name__}: {' '.join(str(error).split())}"
    return Finding(subject, state, detail)


def _python() -> tuple[str, str]:
    return OK, f"{platform.python_implementation()} {platform.python_version()} on {platform.platform(terse=True)}"


def _packages() -> tuple[str, str]:
    found, missing = [], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    detail = ", ".join(found)
    return (FAILURE, f"{detail}; missing: {', '.join(missing)}") if missing else (OK, detail)


def _vector_unit() -> tuple[str, str]:
    machine = host()
    cores = f"{os.cpu_count()} CPUs, {default_threads(os.environ)} threads by default"
    detail = f"{machine.cpu}: {machine.lanes} float32 lanes, {machine.registers} registers, {cores}"
    if machine.lanes < 8 and platform.machine().lower() in ("x86_64", "amd64"):
        return WARNING, detail + "; without AVX2 and FMA kernels run at a fraction of their speed"
    return OK, detail


def _cache() -> tuple[str, str]:
    cache = default_cache()
    if cache.folder is None:
        return WARNING, "switched off; programs are compiled anew in every process"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CacheWarning)
        entries = cache.entries()
    if caught:
        return WARNING, " ".join(str(caught[0].message).split())
    if not _writable(cache.folder):
        return WARNING, f"{cache.folder} is not writable; programs are compiled anew in every process"
    return OK, f"{cache.folder}: {len(entries)} programs, {sum(e.nbytes for e in entries) / 1e6:.1f} MB"


def _writable(folder: os.PathLike[str]) -> bool:
    """Whether files can be made in `folder`, or in the nearest folder above it that exists."""
    path = os.path.abspath(folder)
    while not os.path.isdir(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    try:
        with tempfile.TemporaryFile(dir=path):
            return True
    except OSError:
        return False


def _data() -> tuple[str, str]:
    train, test = mnist()
    place = os.environ.get("GRAPHC_DATA") or "the subset in the package"
    return OK, f"{len(train.images):,} training and {len(test.images):,} test images from {place}"


def _extras() -> tuple[str, str]:
    state = [f"{extra} {'yes' if importlib.util.find_spec(module) else 'no'}" for extra, module in EXTRAS.items()]
    return OK, ", ".join(state)


def _self_test() -> tuple[str, str]:
    """Compile a training step without the cache, run it, and compare it with the float64 interpreter."""
    x, w = input("x", ("N", 5)), param("w", (5, 3))
    loss = total(relu(x @ w))
    start = time.perf_counter()
    program = compile([x], [loss], {w: w - 0.1 * grad(loss, w)}, dims={"N": 7}, name="self_test", cache=False)
    record, _ = record_step(program, [np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32)])
    seconds = time.perf_counter() - start
    worst = check_step(program, record)
    return OK, f"{len(program.kernels)} kernels compiled and run in {seconds:.2f} s, off by {worst:.0e} from float64"
