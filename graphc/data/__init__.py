"""Data sets and minibatches."""

from __future__ import annotations

from graphc.data.batches import Batches, train_validation_split
from graphc.data.digits import LabelledImages, Mnist, mnist
from graphc.data.idx import read_idx
from graphc.data.pictures import tiled, write_png

__all__ = ["Batches", "LabelledImages", "Mnist", "mnist", "read_idx", "tiled", "train_validation_split", "write_png"]
