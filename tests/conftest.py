"""Settings of the whole test run."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# A time limit per example would fail on a busy machine; fixed examples make every run the same.
hypothesis.settings.register_profile("graphc", deadline=None, derandomize=True)
hypothesis.settings.load_profile("graphc")

_cache_dir = pytest.StashKey[tempfile.TemporaryDirectory]()
_environment = pytest.StashKey[dict[str, str | None]]()
_tally = pytest.StashKey[dict[str, set[Hashable]]]()

Tally = Callable[[str, Hashable], None]


def pytest_configure(config: pytest.Config) -> None:
    """Run without the user's cache and data folders, child processes included.

    The tests of a run share one cache, as a user's programs do; a test about the cache itself sets GRAPHC_CACHE anew.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in the background of a shell: tests send Ctrl-C
        signal.signal(signal.SIGINT, signal.default_int_handler)
    names = ("GRAPHC_CACHE", "GRAPHC_DATA", "GRAPHC_LOGS", "GRAPHC_DUMP", "GRAPHC_THREADS")
    config.stash[_environment] = {name: os.environ.get(name) for name in (*names, "PYTHONSAFEPATH")}
    config.stash[_tally] = {}
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


# What the run has covered, told at its end


@pytest.fixture(scope="session")
def tally(pytestconfig: pytest.Config) -> Tally:
    """Note one of the things whose number the summary tells: `tally("ops against their references", op.name)`."""

    def note(what: str, which: Hashable) -> None:
        pytestconfig.stash[_tally].setdefault(what, set()).add(which)

    return note


@pytest.fixture(scope="session")
def torch_calls(tally: Tally) -> Callable[[], AbstractContextManager[object]]:
    """`with torch_calls() as names:` collects the names of the PyTorch functions and methods that are called."""
    try:
        from torch.overrides import TorchFunctionMode
    except ImportError:
        return nullcontext

    class Calls(TorchFunctionMode):  # type: ignore[misc]
        names: set[str]

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = getattr(func, "__name__", "").strip("_")
            if name not in ("get", "set", "detach", "getitem", "numpy", "long"):  # what tests handle tensors with
                tally("functions of PyTorch compared with", name)
                self.names.add(name)
            return func(*args, **(kwargs or {}))

    @contextmanager
    def calls() -> Iterator[set[str]]:
        with Calls() as mode:
            mode.names = set()
            yield mode.names

    return calls


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """How many ops, samples, derivatives, PyTorch functions and random graphs the tests went through."""
    found = config.stash[_tally]
    if found:
        terminalreporter.section("coverage of the language")
        width = max(len(str(len(things))) for things in found.values())
        for what in sorted(found):
            terminalreporter.line(f"{len(found[what]):{width}} {what}")
