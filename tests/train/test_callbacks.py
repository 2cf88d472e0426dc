from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim
from graphc.errors import AttributeValueError
from graphc.train.callbacks import (
    Callback,
    EarlyStopping,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    Training,
)
from graphc.train.history import History

X = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
T = X[:, :1] * 2


@pytest.fixture(scope="module")
def model() -> nn.Sequential:
    made = nn.Sequential(nn.Linear(4, 1))
    made.compile("mse", optim.SGD(0.05))
    return made


def epochs(callback: Callback, model: nn.Sequential, losses: list[float], name: str = "val_loss") -> int:
    """Play epochs with given values; the number of epochs that ran."""
    training = Training(model, optim.SGD(0.1), History(), len(losses))
    callback.on_train_begin(training)
    for epoch, loss in enumerate(losses):
        model[0].bias.value = [float(epoch)]
        callback.on_epoch_end(training, epoch, {name: loss})
        if training.stopped:
            break
    callback.on_train_end(training)
    return epoch + 1


@pytest.mark.parametrize(
    ("patience", "min_delta", "losses", "ran"),
    [
        (0, 0.0, [3, 2, 2, 1], 3),
        (1, 0.0, [3, 2, 2, 1, 1, 1], 3),
        (2, 0.0, [3, 2, 2, 1, 1, 1], 6),
        (2, 0.0, [3, 4, 5, 6, 1], 3),
        (0, 0.5, [3, 2.6, 1], 2),
        (0, 0.0, [3, float("nan"), 1], 2),
        (5, 0.0, [3, 2, 1], 3),
    ],
)
def test_early_stopping(patience, min_delta, losses, ran, model) -> None:
    assert epochs(EarlyStopping(patience=patience, min_delta=min_delta), model, losses) == ran


def test_early_stopping_maximises_accuracies_and_restores_the_best(model) -> None:
    callback = EarlyStopping("val_accuracy", patience=1, restore_best=True)
    assert epochs(callback, model, [0.5, 0.9, 0.8, 0.7], "val_accuracy") == 3
    assert callback.best_epoch == 1 and model[0].bias.value == 1


def test_early_stopping_in_a_fit(model) -> None:
    stopped = []
    callbacks = [
        EarlyStopping("loss", min_delta=100.0),
        LambdaCallback(on_train_end=lambda t: stopped.append(t.stopped)),
    ]
    history = model.fit(X, T, epochs=50, verbose=0, callbacks=callbacks)
    assert len(history.epoch) == 2 and "has not improved since epoch 1" in stopped[0]


def test_model_checkpoint(model, tmp_path) -> None:
    epochs(ModelCheckpoint(tmp_path / "m{epoch:02d}-{val_loss:.1f}.safetensors"), model, [3, 4])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m01-3.0.safetensors", "m02-4.0.safetensors"]
    epochs(ModelCheckpoint(tmp_path / "best.safetensors", save_best_only=True), model, [3, 1, 2])
    model.load(tmp_path / "best.safetensors")
    assert model[0].bias.value == 1


def test_learning_rate_scheduler(model) -> None:
    rates = []
    seen = LambdaCallback(on_epoch_end=lambda training, epoch, logs: rates.append(training.optimizer.lr))
    schedule = LearningRateScheduler(lambda epoch, rate: 0.1 if epoch == 0 else rate / 2)
    model.fit(X, T, epochs=3, verbose=0, callbacks=[schedule, seen])
    assert rates == pytest.approx([0.1, 0.05, 0.025])


def test_order_of_calls(model) -> None:
    calls = []

    class Recorder(Callback):
        def on_train_begin(self, training):
            calls.append("begin")

        def on_epoch_begin(self, training, epoch):
            calls.append(f"epoch {epoch}")

        def on_batch_end(self, training, batch, logs):
            calls.append(f"batch {batch} {sorted(logs)}")

        def on_epoch_end(self, training, epoch, logs):
            calls.append(f"end {sorted(logs)} {len(training.history.epoch)}")

        def on_train_end(self, training):
            calls.append("done")

    model.fit(X, T, batch_size=40, verbose=0, callbacks=[Recorder()], validation_data=(X, T))
    assert calls == ["begin", "epoch 0", "batch 0 ['loss']", "batch 1 ['loss']", "end ['loss', 'val_loss'] 1", "done"]


def test_bad_arguments(model) -> None:
    with pytest.raises(AttributeValueError, match="validation_data"):
        model.fit(X, T, verbose=0, callbacks=[EarlyStopping()])
    with pytest.raises(AttributeValueError, match="mode"):
        EarlyStopping(mode="best")
    with pytest.raises(AttributeValueError, match="'on_step' is none of"):
        LambdaCallback(on_step=print)
    with pytest.raises(gc.errors.AttributeValueError, match="lr must be"):
        model.fit(X, T, verbose=0, callbacks=[LearningRateScheduler(lambda epoch, rate: -1.0)])
