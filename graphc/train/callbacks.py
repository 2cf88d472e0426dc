"""Callbacks: what happens around epochs, with Keras' names."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from graphc.dsl.variables import Variable
from graphc.errors import AttributeValueError
from graphc.optim.optimizer import Optimizer
from graphc.train.history import History

Logs = Mapping[str, float]


class Trainee(Protocol):
    """What callbacks may ask of a model."""

    def named_variables(self) -> list[tuple[str, Variable]]:
        """Parameters and state with their paths."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the parameters to a file."""


@dataclass
class Training:
    """A fit that is going on: what callbacks see of it. `stop` ends it after the epoch."""

    model: Any
    optimizer: Optimizer
    history: History
    epochs: int
    stopped: str = field(default="")

    def stop(self, reason: str = "a callback") -> None:
        """End the fit after this epoch."""
        self.stopped = reason


class Callback:
    """Override what is wanted. `logs` has the loss and the metrics so far, at the end of an epoch also `val_` ones."""

    def on_train_begin(self, training: Training) -> None:
        """Before the first epoch."""

    def on_epoch_begin(self, training: Training, epoch: int) -> None:
        """Before an epoch (numbered from 0)."""

    def on_batch_end(self, training: Training, batch: int, logs: Logs) -> None:
        """After a step; `logs` are means over the rows of the epoch so far."""

    def on_epoch_end(self, training: Training, epoch: int, logs: Logs) -> None:
        """After an epoch and its validation."""

    def on_train_end(self, training: Training) -> None:
        """After the last epoch; not after an exception."""


class LambdaCallback(Callback):
    """A callback of functions: `LambdaCallback(on_epoch_end=lambda training, epoch, logs: print(logs))`."""

    def __init__(self, **functions: Callable[..., None]) -> None:
        known = [name for name in vars(Callback) if name.startswith("on_")]
        for name, function in functions.items():
            if name not in known:
                raise AttributeValueError(f"LambdaCallback: {name!r} is none of: {', '.join(known)}")
            setattr(self, name, function)


class EarlyStopping(Callback):
    """Stop when `monitor` has not improved by more than `min_delta` for `patience` epochs (0 counts as 1).

    `mode` is "min", "max" or "auto" (max for names with "accuracy"). `restore_best` puts back the parameters and
    state of the best epoch.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 0,
        min_delta: float = 0.0,
        mode: str = "auto",
        restore_best: bool = False,
    ) -> None:
        self.monitor, self.patience, self.min_delta, self.restore_best = monitor, patience, min_delta, restore_best
        self.sign = _sign(monitor, mode)
        self.best = np.inf
        self.best_epoch = -1
        self._values: dict[str, Any] = {}

    def on_train_begin(self, training: Training) -> None:
        """Forget the last fit."""
        self.best, self.best_epoch, self._values = np.inf, -1, {}

    def on_epoch_end(self, training: Training, epoch: int, logs: Logs) -> None:
        """Compare, and stop when patience is at its end."""
        value = self.sign * _monitored(self, self.monitor, logs)
        if value < self.best - self.min_delta:
            self.best, self.best_epoch = value, epoch
            if self.restore_best:
                self._values = {path: v.value for path, v in training.model.named_variables()}
        elif epoch - self.best_epoch >= max(self.patience, 1):
            training.stop(f"{self.monitor} has not improved since epoch {self.best_epoch + 1}")

    def on_train_end(self, training: Training) -> None:
        """Put back the best values."""
        for path, variable in training.model.named_variables():
            if path in self._values:
                variable.value = self._values[path]


class ModelCheckpoint(Callback):
    """Save the model to `path` after each epoch, or (`save_best_only`) when `monitor` is better than ever.

    `path` may hold fields such as `{epoch:02d}` (from 1) and `{val_loss:.3f}`.
    """

    def __init__(
        self, path: str | os.PathLike[str], monitor: str = "val_loss", save_best_only: bool = False, mode: str = "auto"
    ) -> None:
        self.path, self.monitor, self.save_best_only = os.fspath(path), monitor, save_best_only
        self.sign = _sign(monitor, mode)
        self.best = np.inf

    def on_epoch_end(self, training: Training, epoch: int, logs: Logs) -> None:
        """Save if the epoch is worth it."""
        if self.save_best_only:
            value = self.sign * _monitored(self, self.monitor, logs)
            if not value < self.best:
                return
            self.best = value
        training.model.save(self.path.format(epoch=epoch + 1, **logs))


class LearningRateScheduler(Callback):
    """Set the learning rate before each epoch to `schedule(epoch, learning rate)`; nothing is compiled again."""

    def __init__(self, schedule: Callable[[int, float], float]) -> None:
        self.schedule = schedule

    def on_epoch_begin(self, training: Training, epoch: int) -> None:
        """Ask the schedule."""
        training.optimizer.lr = float(self.schedule(epoch, training.optimizer.lr))


def _sign(monitor: str, mode: str) -> int:
    if mode not in ("min", "max", "auto"):
        raise AttributeValueError(f"mode {mode!r} is not 'min', 'max' or 'auto'")
    return -1 if mode == "max" or (mode == "auto" and "accuracy" in monitor) else 1


def _monitored(callback: Callback, monitor: str, logs: Logs) -> float:
    if monitor not in logs:
        hint = "; give fit validation_data or validation_split" if monitor.startswith("val_") else ""
        raise AttributeValueError(
            f"{type(callback).__name__} monitors {monitor!r}, but an epoch has: {', '.join(logs)}{hint}"
        )
    return logs[monitor]
