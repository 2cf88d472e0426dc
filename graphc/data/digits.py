"""MNIST: handwritten digits, from files of the user's or from the subset that comes with the package."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from graphc.data.idx import read_idx
from graphc.errors import DataError

_SUBSET_DIR = Path(__file__).parent / "mnist_subset"
_CLASSES = 10
_IMAGE_SHAPE = (28, 28)


class LabelledImages(NamedTuple):
    """Images, uint8 `[n, 28, 28]` with 0 for the background, and their digits, uint8 `[n]`."""

    images: np.ndarray
    labels: np.ndarray


class Mnist(NamedTuple):
    """The two parts of the data set; unpacks as `(x_train, y_train), (x_test, y_test)`."""

    train: LabelledImages
    test: LabelledImages


def mnist(data_dir: str | os.PathLike[str] | None = None) -> Mnist:
    """The MNIST handwritten digits, as in Keras: `(x_train, y_train), (x_test, y_test) = gc.data.mnist()`.

    `data_dir`, or else the environment variable GRAPHC_DATA, names a folder that holds the four files
    `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and `t10k-labels-idx1-ubyte`,
    plain or with `.gz`, in it or in a folder `mnist` in it: 60,000 training and 10,000 test images. With neither,
    the subset in the package is read: 10,000 training and 2,000 test images, every class equally often.

    Images are uint8 `[n, 28, 28]`, labels uint8 `[n]`. To train on values from 0 to 1, write
    `x_train.astype(np.float32) / 255`.

    Raises `DataError` if a folder was named and a file is missing there (the subset never stands in for it), or if a
    file is damaged, of another shape than MNIST's, or has labels outside 0 to 9.

    Source: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition",
    Proceedings of the IEEE 86(11), 1998. Licence of the subset: see `mnist_subset/README.md`.
    """
    directory = data_dir if data_dir is not None else os.environ.get("GRAPHC_DATA") or None
    if directory is None:
        folders, named_by = [_SUBSET_DIR], "the installed package"
    else:
        folders = [Path(directory), Path(directory) / "mnist"]
        named_by = "data_dir" if data_dir is not None else "the environment variable GRAPHC_DATA"
    return Mnist(_read_part("train", folders, named_by), _read_part("t10k", folders, named_by))


def _read_part(prefix: str, folders: list[Path], named_by: str) -> LabelledImages:
    """The images and labels whose files start with `prefix`, checked against each other."""
    image_path = _find(f"{prefix}-images-idx3-ubyte", folders, named_by)
    label_path = _find(f"{prefix}-labels-idx1-ubyte", folders, named_by)
    images, labels = read_idx(image_path), read_idx(label_path)
    if images.dtype != np.uint8 or images.shape[1:] != _IMAGE_SHAPE:
        raise DataError(f"{image_path}: expected images uint8 [n, 28, 28], found {images.dtype} {list(images.shape)}")
    if labels.dtype != np.uint8 or labels.shape != images.shape[:1]:
        raise DataError(
            f"{label_path}: expected one uint8 label for each of the {len(images)} images of {image_path.name}, "
            f"found {labels.dtype} {list(labels.shape)}"
        )
    if labels.size and labels.max() >= _CLASSES:
        row = int(labels.argmax())
        raise DataError(f"{label_path}: expected labels from 0 to {_CLASSES - 1}, found {labels[row]} in row {row}")
    return LabelledImages(images, labels)


def _find(name: str, folders: list[Path], named_by: str) -> Path:
    """The first of `name` and `name.gz` that is a file in one of `folders`."""
    candidates = [folder / file for folder in folders for file in (name, f"{name}.gz")]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    looked_for = ", ".join(str(candidate) for candidate in candidates)
    raise DataError(
        f"MNIST file {name} not found in the folder that {named_by} names; looked for {looked_for}. "
        "Put the four files there, or name no folder to use the subset in the package"
    )
