"""Models written in the public face, ready to train: what the command line and the examples use."""

from __future__ import annotations

from graphc.models.convolutional import lenet, vgg_small
from graphc.models.mlp import mlp

__all__ = ["lenet", "mlp", "vgg_small"]
