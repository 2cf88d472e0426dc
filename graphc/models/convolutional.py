"""Small convolutional networks for images."""

from __future__ import annotations

from graphc import nn


def lenet(classes: int = 10) -> nn.Sequential:
    """LeNet-5 with ReLU and max pooling: float32 `[N, 1, 28, 28]` -> logits `[N, classes]`.

    Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Gradient-based learning applied to document recognition, 1998,
    whose units were tanh, whose pooling were scaled means and whose second convolution was sparse.
    """
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, classes),
    )


def vgg_small(classes: int = 10) -> nn.Sequential:
    """Two blocks of two 3x3 convolutions, 32 and 64 channels: float32 `[N, 3, 32, 32]` -> logits `[N, classes]`.

    Source: K. Simonyan, A. Zisserman, Very deep convolutional networks for large-scale image recognition, 2015, cut
    down to images of 32 x 32.
    """
    layers: list[nn.Module] = []
    before = 3
    for channels in (32, 64):
        for inputs in (before, channels):
            layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
        before = channels
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(64 * 8 * 8, 256), nn.ReLU(), nn.Linear(256, classes)
    )
