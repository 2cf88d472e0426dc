"""Named arrays in safetensors files, the format in which PyTorch checkpoints are exchanged.

A file is the header's length (64-bit, little-endian), a JSON header with each array's dtype, shape and byte range, and
the bytes of the arrays. Reading executes nothing that is in the file. Format: https://github.com/huggingface/safetensors
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from graphc.errors import DataError

_LENGTH_BYTES = 8
_RESERVED_NAME = "__metadata__"
_DTYPES = frozenset(
    "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64".split()
)


def save_arrays(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write `arrays` to the safetensors file `path`, replacing it whole or not at all.

    The file is written beside `path` under another name and then renamed, so an interrupted or failed call leaves a
    file that was there as it was. Arrays may have any shape and memory layout, and a boolean, integer, float16,
    float32, float64 or complex64 dtype.

    Raises `DataError` if a name or dtype cannot be stored, or if the file cannot be written.
    """
    # `realpath` writes through a symbolic link instead of replacing it.
    target = Path(os.path.realpath(path))
    data = safetensors.numpy.save({name: _storable(path, name, array) for name, array in arrays.items()})
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error


def load_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read all arrays of the safetensors file `path`, by name; they are writable and independent of the file.

    Raises `DataError`, naming the file and, where its length is wrong, the byte counts expected and found, if the
    file cannot be read, is no safetensors file, is truncated or has bytes after its data, or holds a dtype that NumPy
    lacks (bfloat16 and the 8-bit floats).
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        arrays = safetensors.numpy.load(data)
    except SafetensorError as error:
        raise DataError(f"{path}: {_diagnosis(data)} ({error})") from None
    except KeyError as error:
        raise DataError(
            f"{path}: holds arrays of dtype {error.args[0]}, which NumPy lacks; save them as float32"
        ) from None
    # The library's arrays are read-only views of `data`.
    return {name: array.copy() for name, array in arrays.items()}


def _storable(path: str | os.PathLike[str], name: str, array: np.ndarray) -> np.ndarray:
    """`array` as the library needs it: it stores the memory as it lies, whatever the strides say."""
    if not isinstance(name, str) or name == _RESERVED_NAME or not _is_unicode(name):
        raise DataError(f"{path}: {name!r} cannot be the name of an array; use a text other than {_RESERVED_NAME!r}")
    if not isinstance(array, np.ndarray) or array.dtype.name not in _DTYPES:
        kind = f"an array of dtype {array.dtype}" if isinstance(array, np.ndarray) else f"a {type(array).__name__}"
        raise DataError(f"{path}: {name!r} is {kind}; a safetensors file stores arrays of {', '.join(sorted(_DTYPES))}")
    return np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")


def _is_unicode(text: str) -> bool:
    """Whether `text` can be stored as UTF-8; a lone surrogate cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _diagnosis(data: bytes) -> str:
    """What is wrong with `data`, told from the lengths that its header states."""
    if len(data) < _LENGTH_BYTES:
        return f"truncated or no safetensors file: expected at least {_LENGTH_BYTES} bytes, found {len(data)}"
    data_start = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
    if data[_LENGTH_BYTES : _LENGTH_BYTES + 1] != b"{":
        return "no safetensors file: no JSON header after the first 8 bytes"
    if len(data) < data_start:
        return f"truncated safetensors file: expected a header up to byte {data_start}, found {len(data)} bytes"
    try:
        entries = json.loads(data[_LENGTH_BYTES:data_start])
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != _RESERVED_NAME]
        expected = data_start + max(ends, default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return "damaged safetensors file: its header is not as the format demands"
    if len(data) == expected:
        return "damaged safetensors file: its header contradicts itself"
    kind = "truncated safetensors file" if len(data) < expected else "safetensors file with bytes after its data"
    return f"{kind}: expected {expected} bytes, found {len(data)}"
