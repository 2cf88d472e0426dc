"""Settings of the whole test run."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import hypothesis
import pytest

# A time limit per example would fail on a busy machine; fixed examples make every run the same.
hypothesis.settings.register_profile("graphc", deadline=None, derandomize=True)
hypothesis.settings.load_profile("graphc")

_cache_dir = pytest.StashKey[tempfile.TemporaryDirectory]()
_environment = pytest.StashKey[dict[str, str | None]]()


def pytest_configure(config: pytest.Config) -> None:
    """Run without the user's cache and data folders, child processes included.

    The tests of a run share one cache, as a user's programs do; a test about the cache itself sets GRAPHC_CACHE anew.
    """
    names = ("GRAPHC_CACHE", "GRAPHC_DATA", "GRAPHC_LOGS", "GRAPHC_DUMP", "GRAPHC_THREADS")
    config.stash[_environment] = {name: os.environ.get(name) for name in (*names, "PYTHONSAFEPATH")}
    config.stash[_cache_dir] = tempfile.TemporaryDirectory(prefix="graphc-tests-")
    os.environ["GRAPHC_CACHE"] = config.stash[_cache_dir].name
    os.environ["PYTHONSAFEPATH"] = "1"  # children import what this process imports, not the folder
    for name in names[1:]:
        os.environ.pop(name, None)


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[_cache_dir].cleanup()
    for name, value in config.stash[_environment].items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


@pytest.fixture(scope="session")
def full_mnist_dir(pytestconfig: pytest.Config) -> Path:
    """The folder of the full MNIST data set, which is not shipped: what GRAPHC_DATA named when the run began."""
    folder = pytestconfig.stash[_environment]["GRAPHC_DATA"]
    if not folder:
        pytest.skip("needs the full MNIST data set: set GRAPHC_DATA to its folder")
    return Path(folder)
