from __future__ import annotations

import sys

import numpy as np
import pytest

from graphc import nn, optim
from graphc.errors import AttributeValueError
from graphc.train.progress import BAR, LINES, SILENT, Bar, Lines, Progress, line, progress_for, verbosity

X = np.ones((10, 2), np.float32)


@pytest.fixture(scope="module")
def model() -> nn.Sequential:
    made = nn.Sequential(nn.Linear(2, 1))
    made.compile("mse", optim.SGD(0.01), ["mae"])
    return made


def test_off_a_terminal_auto_prints_one_line_an_epoch(model, capsys) -> None:
    model.fit(X, X[:, :1], epochs=3, batch_size=4)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("epoch 2/3  ") and "loss " in lines[1] and "mae " in lines[1]


def test_verbose_levels(model, capsys, monkeypatch) -> None:
    model.fit(X, X[:, :1], verbose=0)
    assert capsys.readouterr().out == ""
    model.fit(X, X[:, :1], verbose=2)
    assert capsys.readouterr().out.count("\n") == 1
    assert verbosity("auto") == LINES and verbosity(0) == SILENT
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert verbosity("auto") == BAR
    assert isinstance(progress_for(2, 1, 1), Lines) and type(progress_for(0, 1, 1)) is Progress
    for bad in (3, "on", -1):
        with pytest.raises(AttributeValueError, match="verbose"):
            verbosity(bad)


def test_the_bar_prints_every_epoch_and_ends_after_an_exception(model, capsys) -> None:
    model.fit(X, X[:, :1], epochs=2, batch_size=4, verbose=1)
    out = capsys.readouterr().out
    assert "epoch 1/2" in out and "epoch 2/2" in out and "loss" in out
    bar = Bar(1, 3)
    with pytest.raises(ZeroDivisionError), bar:
        bar.epoch_begin(0)
        bar.batch_end(0, {"loss": 1.0})
        raise ZeroDivisionError
    assert not bar._bar.live.is_started


def test_line() -> None:
    assert line(2, 5, {"loss": 0.08914, "accuracy": 0.97}, 1.23) == "epoch 3/5  1.2 s  loss 0.0891  accuracy 0.9700"
