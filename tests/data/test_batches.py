"""Minibatches and the validation split: coverage, reproducibility, errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc.data import Batches, train_validation_split
from graphc.errors import InputError


def rows_and_labels(rows: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(3 * rows, dtype=np.float32).reshape(rows, 3), np.arange(rows, dtype=np.int64)


@given(rows=st.integers(1, 60), batch_size=st.integers(1, 70), shuffle=st.booleans(), seed=st.integers(0, 2**64 - 1))
def test_every_row_once_an_epoch(rows: int, batch_size: int, shuffle: bool, seed: int) -> None:
    x, y = rows_and_labels(rows)
    batches = Batches((x, y), batch_size, shuffle=shuffle, seed=seed)
    for _ in range(2):
        seen = list(batches)
        assert len(seen) == len(batches) == -(-rows // batch_size)
        assert all(len(labels) == batch_size for _, labels in seen[:-1])
        assert 1 <= len(seen[-1][1]) <= batch_size
        labels = np.concatenate([labels for _, labels in seen])
        assert sorted(labels.tolist()) == list(range(rows))
        # Rows of different arrays stay together.
        np.testing.assert_array_equal(np.concatenate([images for images, _ in seen]), x[labels])


def test_same_seed_same_batches_and_another_order_each_epoch() -> None:
    (_, y) = rows_and_labels(100)
    first, second, other = (Batches((y,), 32, seed=seed) for seed in (7, 7, 8))
    orders = [
        [np.concatenate([labels for (labels,) in batches]).tolist() for _ in range(2)]
        for batches in (first, second, other)
    ]
    assert orders[0] == orders[1]
    assert orders[0][0] != orders[0][1]
    assert orders[0][0] != orders[2][0]
    assert orders[0] == [first.order(epoch).tolist() for epoch in range(2)]


def test_order_of_a_seed_is_fixed() -> None:
    """Repeated experiments depend on it: a change of the generator, ours or NumPy's, must be noticed."""
    assert Batches((np.zeros(8),), 4, seed=0).order(0).tolist() == [5, 0, 6, 1, 7, 2, 4, 3]


def test_without_shuffling_batches_are_views_in_order() -> None:
    x, y = rows_and_labels(5)
    batches = list(Batches((x, y), 2, shuffle=False))
    assert [labels.tolist() for _, labels in batches] == [[0, 1], [2, 3], [4]]
    assert all(np.shares_memory(images, x) for images, _ in batches)


@pytest.mark.parametrize(
    ("arrays", "arguments", "message"),
    [
        ((np.zeros(3),), {"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ((np.zeros(3),), {"batch_size": 2, "seed": -1}, "seed must be in 0"),
        ((np.zeros((3, 2)), np.zeros(4)), {"batch_size": 2}, r"same number of rows.*\(3, 2\), \(4,\)"),
        ((np.zeros((0, 2)),), {"batch_size": 2}, "no rows"),
        ((np.zeros(()),), {"batch_size": 2}, r"arrays with rows \(axis 0\), got shapes \[\(\)\]"),
        ((), {"batch_size": 2}, "arrays with rows"),
        (np.zeros((3, 2)), {"batch_size": 2}, r"tuple of arrays, got one array of shape \(3, 2\)"),
    ],
)
def test_errors(arrays: tuple[np.ndarray, ...], arguments: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Batches(arrays, **arguments)


@given(rows=st.integers(2, 200), percent=st.integers(1, 99), seed=st.none() | st.integers(0, 1000))
def test_split_is_a_partition(rows: int, percent: int, seed: int | None) -> None:
    x, y = rows_and_labels(rows)
    validation_rows = -(-percent * rows // 100)
    if validation_rows == rows:
        with pytest.raises(InputError, match="one part empty"):
            train_validation_split((x, y), percent / 100, seed=seed)
        return
    (x_train, y_train), (x_val, y_val) = train_validation_split((x, y), percent / 100, seed=seed)
    assert len(y_val) == validation_rows
    assert sorted(np.concatenate([y_train, y_val]).tolist()) == list(range(rows))
    np.testing.assert_array_equal(x_train, x[y_train])
    np.testing.assert_array_equal(x_val, x[y_val])


def test_split_without_seed_takes_the_last_rows_as_keras_does() -> None:
    (train,), (validation,) = train_validation_split((np.arange(10),), 0.3)
    assert train.tolist() == [0, 1, 2, 3, 4, 5, 6] and validation.tolist() == [7, 8, 9]


def test_split_with_seed_is_random_and_reproducible() -> None:
    parts = [train_validation_split((np.arange(100),), 0.25, seed=seed)[1][0].tolist() for seed in (1, 1, 2)]
    assert parts[0] == parts[1] != parts[2]
    assert parts[0] != list(range(75, 100))


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, 1.5, float("nan")])
def test_split_fraction_out_of_range(fraction: float) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        train_validation_split((np.arange(10),), fraction)
