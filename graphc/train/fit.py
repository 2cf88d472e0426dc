"""The loop over epochs and batches."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.data.batches import Batches, train_validation_split
from graphc.errors import AttributeValueError, InputError, NumericalWarning, StateError
from graphc.program import Program
from graphc.train.callbacks import Callback, Training
from graphc.train.history import History
from graphc.train.progress import Progress, progress_for
from graphc.train.rows import Array, Rows
from graphc.train.trainer import RowMean, Trainer


@dataclass(frozen=True)
class Loop:
    """How the rows are gone through: which, in what order, and how many at a time."""

    rows: Rows
    validation: Rows | None
    batch_size: int
    order: Batches
    first_epoch: int  # of the order: a second fit goes on with other permutations


def _check_options(epochs: Any, seed: Any, callbacks: Sequence[Any]) -> None:
    if not hasattr(epochs, "__index__") or epochs < 0:
        raise InputError(f"epochs must be a whole number of at least 0, got {epochs!r}")
    if seed is not None and not hasattr(seed, "__index__"):
        raise InputError(f"seed must be a whole number or None, got {seed!r}")
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise InputError(f"callbacks must be objects of graphc.train.callbacks.Callback, got {callback!r}")


def fit(
    trainer: Trainer,
    x: Any,
    y: Any,
    *,
    epochs: int,
    batch_size: int,
    shuffle: bool,
    validation_data: Sequence[Any] | None,
    validation_split: float,
    callbacks: Sequence[Callback],
    seed: int | None,
    verbose: int | str,
) -> History:
    """See `Module.fit`."""
    if trainer.optimizer is None:
        raise StateError("the model has no optimizer; call .compile(loss=..., optimizer=...) first")
    _check_options(epochs, seed, callbacks)
    rows, validation = _split(trainer, trainer.rows(x, y, "fit"), validation_data, validation_split)
    program, capacity = trainer.program_for("train", rows, batch_size)
    for part in (rows, validation):
        if part is not None:
            check_ranges(program, part)
    order = Batches((np.empty((len(rows), 0)),), capacity, shuffle, trainer.seed if seed is None else seed)
    loop = Loop(rows, validation, capacity, order, trainer.epochs_seen if seed is None else 0)
    trainer.history = History()
    training = Training(trainer.model, trainer.optimizer, trainer.history, epochs)
    with progress_for(verbose, epochs, len(order)) as progress:
        _run(trainer, program, loop, training, callbacks, progress)
    return trainer.history


def _run(
    trainer: Trainer,
    program: Program,
    loop: Loop,
    training: Training,
    callbacks: Sequence[Callback],
    progress: Progress,
) -> None:
    for callback in callbacks:
        callback.on_train_begin(training)
    for epoch in range(training.epochs):
        started = time.perf_counter()
        progress.epoch_begin(epoch)
        for callback in callbacks:
            callback.on_epoch_begin(training, epoch)
        program, _ = trainer.program_for("train", loop.rows, loop.batch_size)  # a callback may have changed the model
        logs = _one_epoch(trainer, program, loop, training, epoch, callbacks, progress)
        if loop.validation is not None:
            measured = trainer.mean_over(loop.validation, loop.batch_size)
            logs |= {f"val_{name}": value for name, value in measured.items()}
        trainer.epochs_seen += 1
        seconds = time.perf_counter() - started
        training.history.append(epoch, logs, seconds)
        progress.epoch_end(epoch, logs, seconds)
        for callback in callbacks:
            callback.on_epoch_end(training, epoch, logs)
        if training.stopped:
            break
    for callback in callbacks:
        callback.on_train_end(training)


def _one_epoch(
    trainer: Trainer,
    program: Program,
    loop: Loop,
    training: Training,
    epoch: int,
    callbacks: Sequence[Callback],
    progress: Progress,
) -> dict[str, float]:
    """Every row once; returns means over the rows. Warns once when the loss is no finite number."""
    mean = RowMean(trainer.names)
    order = loop.order.order(loop.first_epoch + epoch)
    for batch, start in enumerate(range(0, len(order), loop.batch_size)):
        chosen = order[start : start + loop.batch_size]
        mean.add(program(*loop.rows.take(chosen)), len(chosen))
        if progress.due():
            progress.batch_end(batch, mean.values)
        for callback in callbacks:
            callback.on_batch_end(training, batch, mean.values)
    logs = mean.values
    if not math.isfinite(logs["loss"]) and all(map(math.isfinite, training.history.history.get("loss", []))):
        message = (
            f"the loss of epoch {epoch + 1} is {logs['loss']}: lower the learning rate, or look for NaN in the data"
        )
        warnings.warn(message, NumericalWarning, stacklevel=5)
    return logs


def check_ranges(program: Program, rows: Rows) -> None:
    """Check all labels before the first update. Raises InputError naming the row, the label and the range."""
    x, y = rows.ports
    arrays: dict[str, Array] = {p.name: a for p, a in zip((*x, *(y or ())), rows.arrays, strict=True)}
    for check in program.plan.checks:
        array = arrays[check.input]
        if not array.size:
            continue
        wrong = (array < check.lower) | (array >= check.upper)
        if wrong.any():
            row = tuple(int(k) for k in np.argwhere(wrong)[0])
            place = f" (used at {check.origin})" if check.origin else ""
            raise InputError(
                f"fit: {check.input}[{', '.join(map(str, row))}] is {array[row]}, outside {check.lower} ... "
                f"{check.upper - 1}{place}; nothing was trained"
            )


def _split(
    trainer: Trainer, rows: Rows, data: Sequence[Any] | None, fraction: float
) -> tuple[Rows, Rows | None]:
    """Training and validation rows."""
    if data is not None and fraction:
        raise AttributeValueError("fit: give validation_data or validation_split, not both")
    if data is not None:
        wanted = 1 if rows.y is None else 2
        if not isinstance(data, (tuple, list)) or len(data) != wanted:
            what = "(x_val, y_val)" if wanted == 2 else "(x_val,)"
            raise InputError(f"fit: validation_data must be {what}")
        validation = trainer.rows(data[0], data[1] if wanted == 2 else None, "fit: validation_data")
        if validation.ports != rows.ports:
            raise InputError(
                f"fit: validation_data ({validation.described}) and data ({rows.described}) differ in shape or dtype"
            )
        return rows, validation
    if not fraction:
        return rows, None
    try:
        kept, held = train_validation_split(rows.arrays, fraction)
    except InputError:  # the arrays fit each other, so it is the fraction
        raise InputError(
            f"fit: validation_split {fraction} of {len(rows)} rows leaves no rows to train on or none to validate "
            "with; give a fraction between 0 and 1, and at least two rows"
        ) from None
    count = len(rows.x)
    parts = [Rows(part[:count], None if rows.y is None else part[count:]) for part in (kept, held)]
    return parts[0], parts[1]
