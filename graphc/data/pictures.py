"""Arrays of images as picture files, with nothing but the standard library."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np

from graphc.errors import DataError

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _COLOUR = 0, 2  # PNG's colour types


def tiled(images: np.ndarray, columns: int, *, gap: int = 2, each: bool = False) -> np.ndarray:
    """One grey picture, uint8 `[height, width]`, of images `[n, h, w]` in rows of `columns`, `gap` pixels apart.

    The smallest value of all images is black and the largest white; with `each`, the values of each image by itself.
    Raises DataError for other shapes, for no columns and for values that are not finite.
    """
    values = np.asarray(images, np.float64)
    if values.ndim != 3 or not values.size or columns < 1:
        raise DataError(f"tiled takes images [n, h, w] and at least one column, got {list(values.shape)}, {columns}")
    if not np.isfinite(values).all():
        raise DataError("tiled takes finite values; some are infinite or NaN")
    axes = (1, 2) if each else None
    low, high = values.min(axis=axes, keepdims=True), values.max(axis=axes, keepdims=True)
    grey = np.round(255 * (values - low) / np.where(high > low, high - low, 1)).astype(np.uint8)
    count, height, width = grey.shape
    rows = -(-count // columns)
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap), 64, np.uint8)
    for k, image in enumerate(grey):
        top, left = gap + k // columns * (height + gap), gap + k % columns * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return sheet


def write_png(file: str | os.PathLike[str], picture: np.ndarray) -> Path:
    """Write a picture, uint8 `[h, w]` (grey) or `[h, w, 3]` (red, green, blue), as a PNG file; returns its path.

    Raises DataError for other arrays. Source: PNG specification, third edition, W3C 2025.
    """
    pixels = np.asarray(picture)
    colour = pixels.ndim == 3 and pixels.shape[2] == 3
    if pixels.dtype != np.uint8 or not pixels.size or not (pixels.ndim == 2 or colour):
        raise DataError(f"write_png takes uint8 [h, w] or [h, w, 3], got {pixels.dtype} {list(pixels.shape)}")
    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR if colour else _GREY, 0, 0, 0)
    lines = np.zeros((height, 1 + pixels[0].size), np.uint8)  # each line begins with its filter: 0, none
    lines[:, 1:] = pixels.reshape(height, -1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    path = Path(file)
    path.write_bytes(_PNG_SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks))
    return path


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
