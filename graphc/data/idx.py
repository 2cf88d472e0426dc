"""Reader of the IDX format, in which MNIST and its relatives are published.

A file is a four-byte magic number (two zero bytes, a code for the dtype, the number of dimensions), one big-endian
32-bit unsigned size per dimension, and the elements in row-major, big-endian order; often gzip-compressed as a whole.
Format: "The MNIST database of handwritten digits", Y. LeCun, C. Cortes, C. J. C. Burges, section "File formats".
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np

from graphc.errors import DataError

_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK_BYTES = 1 << 20
_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Read the array in the IDX file `path`, plain or gzip-compressed (told apart by content, not by name).

    Returns a writable array in native byte order, of the shape the file's header states and of dtype uint8, int8,
    int16, int32, float32 or float64.

    Raises `DataError`, naming the file and the byte counts expected and found, if the file cannot be read, is no IDX
    file, is truncated, has bytes after its data, or its compression is damaged.
    """
    path = Path(path)
    data, damage = _read_uncompressed(path)
    try:
        dtype, shape, header_bytes = _parse_header(data)
    except DataError as error:
        raise DataError(f"{path}: {error}{damage}") from None
    expected = header_bytes + math.prod(shape) * dtype.itemsize
    if len(data) != expected or damage:
        kind = "truncated or damaged" if len(data) < expected or damage else "has bytes after its data"
        raise DataError(
            f"{path}: IDX file {kind}: its header states shape {shape} of {dtype.name}, "
            f"expected {expected} bytes, found {len(data)}{damage}; fetch the file again"
        )
    # The copy makes the array writable and frees the header; the dtype change swaps big-endian bytes.
    return np.frombuffer(data, dtype, offset=header_bytes).reshape(shape).astype(dtype.newbyteorder("="), copy=True)


def _read_uncompressed(path: Path) -> tuple[bytes, str]:
    """The file's bytes, decompressed as far as possible, and a note on what stopped that ("" if nothing did)."""
    chunks: list[bytes] = []
    try:
        with path.open("rb") as raw:
            if raw.read(len(_GZIP_MAGIC)) != _GZIP_MAGIC:
                return path.read_bytes(), ""
            raw.seek(0)
            with gzip.GzipFile(fileobj=raw) as stream:
                while chunk := stream.read(_CHUNK_BYTES):
                    chunks.append(chunk)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        return b"".join(chunks), f" after decompression, which failed: {error}"
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    return b"".join(chunks), ""


def _parse_header(data: bytes) -> tuple[np.dtype, tuple[int, ...], int]:
    """Dtype (as stored), shape and length in bytes of the header at the start of `data`."""
    if len(data) < 4:
        raise DataError(f"no IDX file: expected a magic number of 4 bytes, found {len(data)} bytes")
    zero, code, dimensions = struct.unpack_from(">HBB", data)
    if zero != 0 or code not in _DTYPES:
        known = ", ".join(f"0x{known_code:02x}" for known_code in _DTYPES)
        raise DataError(
            f"no IDX file: expected two zero bytes and a dtype code ({known}), found the bytes {data[:4].hex(' ')}"
        )
    header_bytes = 4 + 4 * dimensions
    if len(data) < header_bytes:
        raise DataError(
            f"IDX file truncated: expected a header of {header_bytes} bytes for {dimensions} dimensions, "
            f"found {len(data)} bytes"
        )
    return np.dtype(_DTYPES[code]), struct.unpack_from(f">{dimensions}I", data, 4), header_bytes
