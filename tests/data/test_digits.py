"""MNIST: the subset in the package, files of the user's, and what goes wrong with either."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from graphc.data import mnist, read_idx
from graphc.errors import DataError

NAMES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "t10k": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def write_idx(path: Path, array: np.ndarray) -> None:
    content = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three training and two test images, one part of them compressed."""
    rng = np.random.default_rng(0)
    for (images, labels), count, suffix in ((NAMES["train"], 3, ".gz"), (NAMES["t10k"], 2, "")):
        write_idx(tmp_path / (images + suffix), rng.integers(0, 256, (count, 28, 28)).astype(np.uint8))
        write_idx(tmp_path / (labels + suffix), rng.integers(0, 10, count).astype(np.uint8))
    return tmp_path


def test_subset_is_balanced_and_typed() -> None:
    (x_train, y_train), (x_test, y_test) = mnist()
    assert x_train.shape == (10_000, 28, 28) and x_test.shape == (2_000, 28, 28)
    assert {a.dtype for a in (x_train, y_train, x_test, y_test)} == {np.dtype(np.uint8)}
    assert np.bincount(y_train).tolist() == [1000] * 10
    assert np.bincount(y_test).tolist() == [200] * 10


def test_subset_is_shuffled_and_has_no_repeated_images() -> None:
    (x_train, y_train), (x_test, _) = mnist()
    # A run of one class at the start would make the first batches useless.
    assert len(set(y_train[:100].tolist())) == 10
    together = np.concatenate([x_train, x_test]).reshape(12_000, -1)
    assert len(np.unique(together, axis=0)) == 12_000


def test_subset_images_show_their_labels() -> None:
    """Nearest class mean gives 82 % on MNIST; labels that belong to other images would give 10 %."""
    (x_train, y_train), (x_test, y_test) = mnist()
    means = np.stack([x_train[y_train == digit].mean(axis=0).ravel() for digit in range(10)])
    images = x_test.reshape(len(x_test), -1).astype(np.float64)
    guesses = (images @ means.T - 0.5 * (means**2).sum(axis=1)).argmax(axis=1)
    assert (guesses == y_test).mean() > 0.78


@pytest.mark.parametrize("inside", ["", "mnist"])
@pytest.mark.parametrize("by_environment", [False, True])
def test_files_of_the_users(
    folder: Path, inside: str, by_environment: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = list(folder.iterdir())
    (folder / inside).mkdir(exist_ok=True)
    for file in files:
        file.rename(folder / inside / file.name)
    if by_environment:
        monkeypatch.setenv("GRAPHC_DATA", str(folder))
    data = mnist() if by_environment else mnist(folder)

    assert data.train.images.shape == (3, 28, 28) and data.test.labels.shape == (2,)
    np.testing.assert_array_equal(data.train.images, read_idx(folder / inside / f"{NAMES['train'][0]}.gz"))
    np.testing.assert_array_equal(data.test.labels, read_idx(folder / inside / NAMES["t10k"][1]))


def test_data_dir_goes_before_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_DATA", str(folder / "nowhere"))
    assert len(mnist(folder).train.images) == 3


def test_the_subset_never_stands_in_for_missing_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / NAMES["t10k"][1]).unlink()
    monkeypatch.setenv("GRAPHC_DATA", str(folder))
    with pytest.raises(DataError) as caught:
        mnist()
    message = str(caught.value)
    assert "t10k-labels-idx1-ubyte not found" in message and "GRAPHC_DATA" in message
    for candidate in ("t10k-labels-idx1-ubyte", "t10k-labels-idx1-ubyte.gz", "mnist/t10k-labels-idx1-ubyte.gz"):
        assert str(folder / candidate) in message


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("t10k-images-idx3-ubyte", np.zeros((2, 28, 27), np.uint8), r"expected images uint8 \[n, 28, 28\], found"),
        ("t10k-images-idx3-ubyte", np.zeros((2, 784), np.uint8), r"found uint8 \[2, 784\]"),
        ("t10k-labels-idx1-ubyte", np.zeros(3, np.uint8), r"each of the 2 images of .*, found uint8 \[3\]"),
        ("t10k-labels-idx1-ubyte", np.zeros((2, 1), np.uint8), r"found uint8 \[2, 1\]"),
        ("t10k-labels-idx1-ubyte", np.array([9, 10], np.uint8), "labels from 0 to 9, found 10 in row 1"),
    ],
)
def test_files_that_are_not_mnist(folder: Path, name: str, array: np.ndarray, message: str) -> None:
    write_idx(folder / name, array)
    with pytest.raises(DataError, match=message) as caught:
        mnist(folder)
    assert str(folder / name) in str(caught.value)


def test_truncated_file(folder: Path) -> None:
    path = folder / NAMES["t10k"][0]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="expected 1584 bytes, found 1484"):
        mnist(folder)


def test_subset_is_part_of_the_full_data_set(full_mnist_dir: Path) -> None:
    full, subset = mnist(full_mnist_dir), mnist()
    for part, whole in zip(subset, full, strict=True):
        rows = {image.tobytes() + bytes([label]) for image, label in zip(whole.images, whole.labels, strict=True)}
        assert all(
            image.tobytes() + bytes([label]) in rows for image, label in zip(part.images, part.labels, strict=True)
        )
