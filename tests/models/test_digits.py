"""Digits for networks, and how `graphc train mlp` trains on them."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from graphc import optim
from graphc.errors import AttributeValueError, DataError
from graphc.models.digits import Digits, Recipe, classifier, digits, fit


def test_shipped_digits_are_rows_of_fractions() -> None:
    data = digits(validation=0.1)
    assert data.validation is not None
    assert [len(part[1]) for part in (data.train, data.validation, data.test)] == [9000, 1000, 2000]
    assert [part[0].shape[1:] for part in (data.train, data.validation, data.test)] == [(784,)] * 3
    images, labels = data.train
    assert images.dtype == np.float32 and labels.dtype == np.uint8
    assert images.min() == 0 and images.max() == 1
    # Held-out images come from everywhere: every digit is among them.
    assert set(data.validation[1]) == set(range(10))
    assert digits().validation is None


def test_held_out_images_depend_on_the_seed_alone() -> None:
    one, same, other = (digits(validation=0.1, seed=s) for s in (1, 1, 2))
    assert one.validation and same.validation and other.validation
    assert np.array_equal(one.validation[1], same.validation[1])
    assert not np.array_equal(one.validation[1], other.validation[1])


def test_own_folder(tmp_path: Path) -> None:
    for part, n in (("train", 20), ("t10k", 10)):
        images = np.full((n, 28, 28), 51, np.uint8)
        labels = np.arange(n, dtype=np.uint8) % 10
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (tmp_path / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))
    data = digits(tmp_path)
    assert data.train[0].shape == (20, 784)
    np.testing.assert_allclose(data.train[0], 0.2, rtol=1e-6)
    with pytest.raises(DataError):
        digits(tmp_path / "nothing")


def test_learning_rate_falls_along_a_cosine() -> None:
    recipe = Recipe(epochs=4, lr=0.2)
    np.testing.assert_allclose([recipe.rate_of(e) for e in range(5)], [0.2, 0.170711, 0.1, 0.029289, 0], atol=1e-6)
    constant = Recipe(epochs=4, lr=0.2, decay="none")
    assert [constant.rate_of(e) for e in range(4)] == [0.2] * 4


def test_optimisers() -> None:
    sgd, adam = Recipe().make_optimizer(), Recipe(optimizer="adam").make_optimizer()
    assert isinstance(sgd, optim.SGD) and sgd.lr == pytest.approx(0.1) and sgd.momentum == 0.9
    assert isinstance(adam, optim.Adam) and adam.lr == pytest.approx(0.001)


@pytest.mark.parametrize(("given", "known"), [({"optimizer": "x"}, "sgd, adam"), ({"decay": "x"}, "cosine, none")])
def test_unknown_words_are_refused(given: dict[str, str], known: str) -> None:
    with pytest.raises(AttributeValueError, match=f"is none of: {known}"):
        Recipe(**given)  # type: ignore[arg-type]


def test_fit_tells_every_epoch_and_lowers_the_rate() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 60).astype(np.uint8)
    images = np.eye(10, 784, dtype=np.float32)[labels]
    recipe = Recipe(epochs=3, batch_size=20)
    model = classifier((8,), recipe)
    told: list[tuple[int, dict[str, float]]] = []
    data = Digits((images, labels), (images, labels), (images, labels))
    fit(model, data, recipe, on_epoch=lambda epoch, logs: told.append((epoch, dict(logs))), verbose=0)
    assert [epoch for epoch, _ in told] == [1, 2, 3]
    assert {"loss", "accuracy", "val_loss", "val_accuracy", "seconds"} == told[0][1].keys()
    assert told[-1][1]["loss"] < told[0][1]["loss"]
