"""Pictures of images: the arrangement, and that other programs could read the files."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from graphc.data import tiled, write_png
from graphc.errors import DataError


def decoded(file: Path) -> np.ndarray:
    """The pixels of a PNG file as this package writes them, every chunk's checksum checked."""
    data = file.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + body)
        chunks[kind] = body
        at += 12 + length
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    width, height, bits, colour, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert bits == 8 and rest == [0, 0, 0]
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape((height, width, 3) if colour == 2 else (height, width))


def test_pictures_are_written_as_they_are(tmp_path: Path) -> None:
    grey = np.arange(15, dtype=np.uint8).reshape(3, 5) * 17
    colour = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
    np.testing.assert_array_equal(decoded(write_png(tmp_path / "grey.png", grey)), grey)
    np.testing.assert_array_equal(decoded(write_png(str(tmp_path / "colour.png"), colour)), colour)


def test_tiles() -> None:
    images = np.stack([np.full((2, 3), v) for v in (-1.0, 0.0, 1.0)])
    sheet = tiled(images, 2, gap=1)
    assert sheet.shape == (1 + 2 * 3, 1 + 2 * 4) and sheet.dtype == np.uint8
    assert (sheet[1:3, 1:4] == 0).all() and (sheet[1:3, 5:8] == 128).all() and (sheet[4:6, 1:4] == 255).all()
    assert (sheet[4:6, 5:8] == 64).all() and (sheet[0] == 64).all()


def test_tiles_each_by_itself() -> None:
    images = np.array([[[0.0, 1.0]], [[5.0, 9.0]], [[3.0, 3.0]]])
    sheet = tiled(images, 3, gap=0, each=True)
    np.testing.assert_array_equal(sheet, [[0, 255, 0, 255, 0, 0]])


@pytest.mark.parametrize(
    ("images", "columns"),
    [(np.zeros((3, 4)), 1), (np.zeros((0, 2, 2)), 1), (np.zeros((1, 2, 2)), 0), (np.full((1, 1, 1), np.nan), 1)],
)
def test_what_is_no_row_of_images(images: np.ndarray, columns: int) -> None:
    with pytest.raises(DataError, match="tiled takes"):
        tiled(images, columns)


@pytest.mark.parametrize("shape", [(3,), (2, 2, 4), (0, 3)])
def test_what_is_no_picture(shape: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="write_png takes uint8"):
        write_png(tmp_path / "x.png", np.zeros(shape, np.uint8))
    with pytest.raises(DataError, match="got float64"):
        write_png(tmp_path / "x.png", np.zeros((2, 2)))
