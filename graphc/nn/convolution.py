"""Convolution and pooling layers, with PyTorch's names, arguments, weight layouts and initial values."""

from __future__ import annotations

import math
from typing import Any

from graphc.dsl import functions, initialisers
from graphc.dsl.geometry import Call, Ints, Padding
from graphc.dsl.symbol import Symbol
from graphc.dsl.variables import Param, param
from graphc.nn.module import Module

__all__ = [
    "AvgPool1d", "AvgPool2d", "AvgPool3d", "Conv1d", "Conv2d", "Conv3d", "MaxPool1d", "MaxPool2d", "MaxPool3d",
]  # fmt: skip

_CONVOLUTIONS = {1: functions.conv1d, 2: functions.conv2d, 3: functions.conv3d}
_MAXIMA = {1: functions.max_pool1d, 2: functions.max_pool2d, 3: functions.max_pool3d}
_MEANS = {1: functions.avg_pool1d, 2: functions.avg_pool2d, 3: functions.avg_pool3d}


class _Convolution(Module):
    """A convolution along `rank` axes."""

    rank = 0
    bias: Param | None

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Ints, stride: Ints = 1, padding: Padding = 0,
                 dilation: Ints = 1, groups: int = 1, bias: bool = True) -> None:  # fmt: skip
        call = Call(type(self).__name__, ())
        if in_channels < 1 or out_channels < 1:
            call.bad_shape(f"{in_channels} input and {out_channels} output channels: both must be at least 1")
        if groups < 1 or in_channels % groups or out_channels % groups:
            call.bad_shape(f"{in_channels} input and {out_channels} output channels do not divide into {groups} groups")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = call.ints("kernel_size", kernel_size, self.rank, 1)
        self.stride = call.ints("stride", stride, self.rank, 1)
        self.dilation = call.ints("dilation", dilation, self.rank, 1)
        self.padding = call.padding(padding, self.stride)
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        bound = 1 / math.sqrt(math.prod(shape[1:]))
        self.weight = param("weight", shape, initialisers.kaiming_uniform(math.sqrt(5)))
        self.bias = param("bias", (out_channels,), initialisers.uniform(-bound, bound)) if bias else None

    def forward(self, x: Symbol) -> Symbol:
        """`[N, in, ...]` -> `[N, out, ...]`."""
        return _CONVOLUTIONS[self.rank](
            x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )

    def extra_repr(self) -> str:
        """`1, 6, kernel_size=(5, 5), stride=(1, 1), padding=(2, 2)`, and what differs from the defaults."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        ones = (1,) * self.rank
        shown: list[tuple[str, Any, Any]] = [
            ("padding", self.padding, (0,) * self.rank),
            ("dilation", self.dilation, ones),
            ("groups", self.groups, 1),
            ("bias", self.bias is not None, True),
        ]
        return text + "".join(f", {name}={value!r}" for name, value, default in shown if value != default)


class Conv1d(_Convolution):
    """A convolution along the last axis: `[N, in, L]` -> `[N, out, L']`, weight `[out, in/groups, k]`; see `Conv2d`."""

    rank = 1


class Conv2d(_Convolution):
    """A convolution along the last two axes: `[N, in, H, W]` -> `[N, out, H', W']`, plus a bias for each channel.

    Arguments and sizes are those of `gc.conv2d`; the weight is `[out, in/groups, kH, kW]`. Weight and bias start
    uniform in +-1/sqrt(in/groups kH kW): `kaiming_uniform(a=sqrt(5))` for the weight. Source: torch.nn.Conv2d.
    """

    rank = 2


class Conv3d(_Convolution):
    """A convolution along the last three axes: `[N, in, D, H, W]` -> `[N, out, D', H', W']`; see `Conv2d`."""

    rank = 3


class _Pool(Module):
    """Windows along `rank` axes, each of which gives one element."""

    rank = 0

    def __init__(self, kernel_size: Ints, stride: Ints | None, padding: Ints, dilation: Ints = 1) -> None:
        call = Call(type(self).__name__, ())
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation = padding, dilation
        for name, least in (("kernel_size", 1), ("stride", 1), ("padding", 0), ("dilation", 1)):
            call.ints(name, getattr(self, name), self.rank, least)

    def extra_repr(self) -> str:
        """`kernel_size=2, stride=2, padding=0`."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _MaxPool(_Pool):
    """The greatest element of windows along `rank` axes."""

    def __init__(self, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, dilation: Ints = 1, *,
                 ceil_mode: bool = False) -> None:  # fmt: skip
        super().__init__(kernel_size, stride, padding, dilation)
        self.ceil_mode = ceil_mode

    def forward(self, x: Symbol) -> Symbol:
        """`[N, C, ...]` -> `[N, C, ...]`."""
        return _MAXIMA[self.rank](x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)

    def extra_repr(self) -> str:
        """`kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False`."""
        return f"{super().extra_repr()}, dilation={self.dilation}, ceil_mode={self.ceil_mode}"


class MaxPool1d(_MaxPool):
    """The greatest element of windows along the last axis; see `MaxPool2d`."""

    rank = 1


class MaxPool2d(_MaxPool):
    """The greatest element of windows along the last two axes; see `gc.max_pool2d`. Source: torch.nn.MaxPool2d."""

    rank = 2


class MaxPool3d(_MaxPool):
    """The greatest element of windows along the last three axes; see `MaxPool2d`."""

    rank = 3


class _AvgPool(_Pool):
    """The mean of windows along `rank` axes."""

    def __init__(self, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, ceil_mode: bool = False,
                 count_include_pad: bool = True) -> None:  # fmt: skip
        super().__init__(kernel_size, stride, padding)
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def forward(self, x: Symbol) -> Symbol:
        """`[N, C, ...]` -> `[N, C, ...]`."""
        return _MEANS[self.rank](
            x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad
        )


class AvgPool1d(_AvgPool):
    """The mean of windows along the last axis; see `AvgPool2d`."""

    rank = 1


class AvgPool2d(_AvgPool):
    """The mean of windows along the last two axes; see `gc.avg_pool2d`. Source: torch.nn.AvgPool2d."""

    rank = 2


class AvgPool3d(_AvgPool):
    """The mean of windows along the last three axes; see `AvgPool2d`."""

    rank = 3
