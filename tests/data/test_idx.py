"""The IDX reader: every dtype, both encodings, and each way in which a file can be wrong."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from graphc.data import read_idx
from graphc.errors import DataError

CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}


def idx_bytes(array: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, CODES[array.dtype.name], array.ndim, *array.shape)
    return header + np.asarray(array, array.dtype.newbyteorder(">")).tobytes()


IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
GOOD = idx_bytes(IMAGES)  # 16 bytes of header, 24 of data


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4), (0, 3), ()])
@pytest.mark.parametrize("compressed", [False, True])
def test_round_trip(tmp_path: Path, dtype: str, shape: tuple[int, ...], compressed: bool) -> None:
    array = np.asarray(np.random.default_rng(0).standard_normal(shape) * 100).astype(dtype)
    path = tmp_path / "array"
    path.write_bytes(gzip.compress(idx_bytes(array)) if compressed else idx_bytes(array))

    read = read_idx(path)

    assert read.dtype == np.dtype(dtype) and read.dtype.isnative
    assert read.shape == shape
    np.testing.assert_array_equal(read, array)
    assert read.flags.writeable and read.flags.c_contiguous


def test_encoding_is_told_by_content_not_by_name(tmp_path: Path) -> None:
    plain_named_gz, gz_named_plain = tmp_path / "a.gz", tmp_path / "b"
    plain_named_gz.write_bytes(GOOD)
    gz_named_plain.write_bytes(gzip.compress(GOOD))
    np.testing.assert_array_equal(read_idx(plain_named_gz), IMAGES)
    np.testing.assert_array_equal(read_idx(str(gz_named_plain)), IMAGES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a magic number of 4 bytes, found 0 bytes"),
        (b"\x00\x00\x08", "expected a magic number of 4 bytes, found 3 bytes"),
        (b"\x89PNG" + GOOD[4:], "no IDX file.*found the bytes 89 50 4e 47"),
        (b"\x00\x00\x0a\x01" + GOOD[4:], "dtype code"),
        (b"\x00\x01" + GOOD[2:], "two zero bytes"),
        (GOOD[:9], "expected a header of 16 bytes for 3 dimensions, found 9 bytes"),
        (GOOD[:16], "truncated.*expected 40 bytes, found 16"),
        (GOOD[:-1], r"truncated.*shape \(2, 3, 4\) of uint8, expected 40 bytes, found 39"),
        (GOOD + b"\x00", "bytes after its data.*expected 40 bytes, found 41"),
        (b"\x00\x00\x08\x02" + b"\xff" * 8 + b"x", "expected 18446744065119617037 bytes, found 13"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_wrong_content(tmp_path: Path, content: bytes, message: str, compressed: bool) -> None:
    path = tmp_path / "some-file"
    path.write_bytes(gzip.compress(content) if compressed else content)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kept", [2, 9, 15, -1])
def test_truncated_gzip(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "some-file.gz"
    path.write_bytes(gzip.compress(GOOD)[:kept])
    with pytest.raises(DataError, match="expected .* bytes.*decompression, which failed"):
        read_idx(path)


def test_truncated_gzip_reports_what_could_be_decompressed(tmp_path: Path) -> None:
    noise = idx_bytes(np.random.default_rng(0).integers(0, 256, 3_000_000).astype(np.uint8))
    path = tmp_path / "some-file.gz"
    path.write_bytes(gzip.compress(noise)[:2_000_000])
    with pytest.raises(DataError, match=r"expected 3000008 bytes, found \d{7} after decompression, which failed"):
        read_idx(path)


def test_damaged_gzip(tmp_path: Path) -> None:
    """A flipped byte either breaks the stream or its checksum; it is never read as data."""
    packed = gzip.compress(GOOD, mtime=0)
    path = tmp_path / "some-file.gz"
    for position in range(10, len(packed)):
        damaged = bytearray(packed)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="decompression, which failed"):
            read_idx(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: cannot be read: No such file"):
        read_idx(tmp_path / "nowhere")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_idx(tmp_path)
