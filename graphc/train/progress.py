"""What a fit prints: a bar on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from graphc.errors import AttributeValueError

SILENT, BAR, LINES = 0, 1, 2


def verbosity(verbose: int | str | bool) -> int:
    """0 silent, 1 a bar, 2 a line an epoch; "auto" is a bar on a terminal and lines elsewhere."""
    if verbose == "auto":
        return BAR if sys.stdout.isatty() else LINES
    if verbose not in (SILENT, BAR, LINES):
        raise AttributeValueError(f"verbose {verbose!r} is not 0, 1, 2 or 'auto'")
    return int(verbose)


class Progress(AbstractContextManager["Progress"]):
    """Tells how far a fit is. The base class is silent."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the terminal in order, also after an exception."""

    def epoch_begin(self, epoch: int) -> None:
        """An epoch (from 0) starts."""

    def due(self) -> bool:
        """Whether `batch_end` would show anything: a step can take less time than drawing a bar."""
        return False

    def batch_end(self, batch: int, logs: Mapping[str, float]) -> None:
        """A step (from 0) is done; `logs` are means so far. Called when `due`."""

    def epoch_end(self, epoch: int, logs: Mapping[str, float], seconds: float) -> None:
        """An epoch is done."""


class Lines(Progress):
    """One line an epoch, on standard output."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs

    def epoch_end(self, epoch: int, logs: Mapping[str, float], seconds: float) -> None:
        """`epoch 3/5  1.2 s  loss 0.0891  accuracy 0.9731`."""
        print(line(epoch, self._epochs, logs, seconds), flush=True)


class Bar(Progress):
    """A bar that is redrawn in place, and a line when an epoch is done."""

    def __init__(self, epochs: int, batches: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar: Any = RichProgress(*columns, TextColumn("{task.fields[logs]}"), transient=True)
        self._epochs, self._batches = epochs, batches
        self._task: Any = None
        self._drawn = 0.0

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.stop()

    def epoch_begin(self, epoch: int) -> None:
        """Start the bar anew."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(f"epoch {epoch + 1}/{self._epochs}", total=self._batches, logs="")

    def due(self) -> bool:
        """Ten times a second, as often as the bar is drawn."""
        return time.monotonic() - self._drawn >= 0.1

    def batch_end(self, batch: int, logs: Mapping[str, float]) -> None:
        """Advance the bar."""
        self._drawn = time.monotonic()
        self._bar.update(self._task, completed=batch + 1, logs=_values(logs))

    def epoch_end(self, epoch: int, logs: Mapping[str, float], seconds: float) -> None:
        """Print the epoch's line above the bar."""
        self._bar.console.print(line(epoch, self._epochs, logs, seconds), markup=False, highlight=False)


def progress_for(verbose: int | str, epochs: int, batches: int) -> Progress:
    """The progress that `verbose` asks for. Raises AttributeValueError for a value that it cannot have."""
    level = verbosity(verbose)
    if level == BAR:
        return Bar(epochs, batches)
    return Lines(epochs) if level == LINES else Progress()


def line(epoch: int, epochs: int, logs: Mapping[str, float], seconds: float) -> str:
    """`epoch 3/5  1.2 s  loss 0.0891  accuracy 0.9731`."""
    return f"epoch {epoch + 1}/{epochs}  {seconds:.1f} s  {_values(logs)}"


def _values(logs: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in logs.items())
