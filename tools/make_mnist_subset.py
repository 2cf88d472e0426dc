"""Make the MNIST subset that graphc ships: python tools/make_mnist_subset.py FOLDER_WITH_FULL_MNIST.

Draws the same number of images of every class from the training and from the test set, at random with a fixed seed,
in random order, and writes them as gzip-compressed IDX files. Running it again gives the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import struct
from pathlib import Path

import numpy as np

from graphc.data import LabelledImages, mnist

CLASSES = 10
TRAIN_PER_CLASS = 1000
TEST_PER_CLASS = 200
SEED = 1998
SUBSET_DIR = Path(__file__).parent.parent / "graphc" / "data" / "mnist_subset"


def balanced(part: LabelledImages, per_class: int, rng: np.random.Generator) -> LabelledImages:
    """`per_class` images of each class, shuffled."""
    rows = np.concatenate(
        [rng.choice(np.flatnonzero(part.labels == digit), per_class, replace=False) for digit in range(CLASSES)]
    )
    rng.shuffle(rows)
    return LabelledImages(part.images[rows], part.labels[rows])


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write the uint8 `array` as a gzip-compressed IDX file, without a time stamp."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 0x08, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes(), compresslevel=9, mtime=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mnist_dir", type=Path, help="folder with the four files of the full data set")
    parser.add_argument("--output", type=Path, default=SUBSET_DIR, help="where to write (default: into the package)")
    arguments = parser.parse_args()

    full = mnist(arguments.mnist_dir)
    rng = np.random.Generator(np.random.Philox(SEED))
    arguments.output.mkdir(parents=True, exist_ok=True)
    for prefix, part, per_class in (("train", full.train, TRAIN_PER_CLASS), ("t10k", full.test, TEST_PER_CLASS)):
        subset = balanced(part, per_class, rng)
        write_idx(arguments.output / f"{prefix}-images-idx3-ubyte.gz", subset.images)
        write_idx(arguments.output / f"{prefix}-labels-idx1-ubyte.gz", subset.labels)
    for path in sorted(arguments.output.glob("*.gz")):
        print(f"{path.stat().st_size:>9}  {path.name}")


if __name__ == "__main__":
    main()
