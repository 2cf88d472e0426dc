"""The program cache: finished programs on disk, one file each, private to the user.

    file    = magic (8 bytes), version (u32), digest (32 bytes, SHA-256 of the rest), header size (u64), header, blobs
    header  = JSON: key, plan, extra, and name and size of each blob (objects first, then constants)

Nothing in a file is executed before the digest has been found right, and no file is read that another user could
have written. Whatever is wrong with a file or the folder, programs compile and run without it; a CacheWarning says so.
Environment: GRAPHC_CACHE names the folder, or is `off`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import os
import re
import stat
import struct
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from graphc.errors import CacheWarning
from graphc.ir.types import as_dtype
from graphc.kernel.plan import Plan

MAGIC = b"\x89GRAPHC\n"
VERSION = 2
SUFFIX = ".program"
DEFAULT_LIMIT = 2**30
_PREFIX = struct.Struct("<8sI32s")
_HEADER_SIZE = struct.Struct("<Q")
_ABANDONED_SECONDS = 3600.0


@dataclass(frozen=True)
class ProgramImage:
    """All that running a program needs, and what its inspection shows; `extra` is any JSON."""

    plan: Plan
    objects: Mapping[str, bytes]
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CacheEntry:
    """A file of the cache: its key, size, and when it was last used (seconds since the epoch)."""

    key: str
    path: Path
    nbytes: int
    used: float


class ProgramCache:
    """Programs in `folder` (None: keeps nothing), the least recently used removed when they exceed `limit` bytes."""

    def __init__(self, folder: str | os.PathLike[str] | None, limit: int = DEFAULT_LIMIT) -> None:
        self.folder = None if folder is None else Path(folder)
        self.limit = limit
        self._warned = False

    def load(self, key: str) -> ProgramImage | None:
        """The program stored under `key` (hex digits), or None. Damaged files count as absent, with a CacheWarning."""
        path = self._path(key)
        if path is None or not self._usable(create=False):
            return None
        try:
            data = _read_private(path)
        except FileNotFoundError:
            return None
        except (OSError, _Damaged) as error:
            self._warn_damaged(path, error)
            return None
        try:
            image = decode(data, key)
        except _Damaged as error:
            self._warn_damaged(path, error)
            return None
        with contextlib.suppress(OSError):  # only the order of removal depends on it
            os.utime(path)
        return image

    def store(self, key: str, image: ProgramImage) -> bool:
        """Store a program under `key`, atomically, and remove old ones over the limit. False if it cannot be stored."""
        path = self._path(key)
        if path is None or not self._usable(create=True):
            return False
        try:
            _write_atomically(path, encode(image, key))
            self._evict(keep=path)
        except OSError as error:
            self._warn(f"cannot write {path}: {error}")
            return False
        return True

    def entries(self) -> list[CacheEntry]:
        """The stored programs, the most recently used first."""
        if not self._usable(create=False):
            return []
        found = []
        for path in self._files(SUFFIX):
            with contextlib.suppress(OSError):
                status = path.stat()
                found.append(CacheEntry(path.stem, path, status.st_size, status.st_mtime))
        return sorted(found, key=lambda entry: (-entry.used, entry.key))

    @property
    def nbytes(self) -> int:
        """Bytes of all stored programs."""
        return sum(entry.nbytes for entry in self.entries())

    def clear(self) -> int:
        """Remove every stored program; returns how many. The folder and foreign files in it stay."""
        removed = 0
        for entry in self.entries():
            with contextlib.suppress(OSError):
                entry.path.unlink()
                removed += 1
        self._remove_abandoned(0.0)
        return removed

    # -- the folder ------------------------------------------------------------------------------------------

    def _path(self, key: str) -> Path | None:
        if not re.fullmatch(r"[0-9a-f]{8,128}", key):
            raise ValueError(f"a cache key is 8 to 128 lower-case hex digits, got {key!r}")
        return None if self.folder is None else self.folder / (key + SUFFIX)

    def _usable(self, *, create: bool) -> bool:
        if self.folder is None:
            return False
        try:
            if create:
                self.folder.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileExistsError):
                    self.folder.mkdir(mode=0o700)
            problem = _folder_problem(self.folder)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not create:
                return False  # a folder that is not there yet has no programs
            problem = str(error)
        if problem:
            self._warn(problem)
        return not problem

    def _files(self, suffix: str) -> Iterator[Path]:
        assert self.folder is not None
        with contextlib.suppress(OSError):
            yield from (path for path in self.folder.iterdir() if path.name.endswith(suffix))

    def _evict(self, keep: Path) -> None:
        self._remove_abandoned(_ABANDONED_SECONDS)
        total = 0
        for entry in self.entries():
            total += entry.nbytes
            if total > self.limit and entry.path != keep:
                with contextlib.suppress(OSError):  # another process may have removed it
                    entry.path.unlink()

    def _remove_abandoned(self, age: float) -> None:
        """Unfinished files of processes that were killed while writing."""
        if not self._usable(create=False):
            return
        for path in self._files(SUFFIX + ".tmp"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime >= age:
                    path.unlink()

    def _warn(self, problem: str) -> None:
        """Say once that the cache is out of use."""
        if not self._warned:
            self._warned = True
            warnings.warn(f"the program cache is not used: {problem}. Programs are compiled anew in every process; set "
                          "GRAPHC_CACHE to a folder of yours, or to 'off'", CacheWarning, stacklevel=4)

    def _warn_damaged(self, path: Path, error: Exception) -> None:
        message = f"the cached program {path} is ignored ({error}); it is compiled again"
        warnings.warn(message, CacheWarning, stacklevel=4)


def default_cache() -> ProgramCache:
    """The cache that the environment asks for: GRAPHC_CACHE (a folder, or `off`), else the platform's cache folder."""
    return _cache_at(os.environ.get("GRAPHC_CACHE") or _platform_folder())


@functools.cache
def _cache_at(folder: str) -> ProgramCache:
    """One object for each folder, so that a process warns of it once."""
    return ProgramCache(None if folder == "off" else os.path.expanduser(folder))


def _platform_folder() -> str:
    home = os.path.expanduser("~")
    if home == "~":
        return "off"
    if sys.platform == "darwin":
        return os.path.join(home, "Library", "Caches", "graphc")
    if sys.platform == "win32":
        return os.path.join(os.environ.get("LOCALAPPDATA") or home, "graphc", "cache")
    base = os.environ.get("XDG_CACHE_HOME", "")
    return os.path.join(base if os.path.isabs(base) else os.path.join(home, ".cache"), "graphc")


def _folder_problem(folder: Path) -> str:
    """Why a folder cannot be trusted with machine code, or ''. Raises OSError."""
    status = os.lstat(folder)
    if not stat.S_ISDIR(status.st_mode):
        return f"{folder} is {'a symbolic link' if stat.S_ISLNK(status.st_mode) else 'no folder'}"
    return _ownership_problem(status, str(folder))


def _ownership_problem(status: os.stat_result, name: str) -> str:
    if not hasattr(os, "geteuid"):
        return ""
    if status.st_uid != os.geteuid():
        return f"{name} belongs to another user"
    return f"{name} can be written by other users" if status.st_mode & 0o022 else ""


# ---- files ------------------------------------------------------------------------------------------------------


class _Damaged(Exception):
    """What is wrong with a file."""


def _read_private(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
                         | getattr(os, "O_NONBLOCK", 0))
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _Damaged("no regular file")
        if problem := _ownership_problem(status, "it"):
            raise _Damaged(problem)
        return file.read()


def _write_atomically(path: Path, data: bytes) -> None:
    """Under another name first (mode 0600), so that no reader and no crash meets half a file under the right one."""
    name = path.with_name(f"{path.stem[:16]}-{os.urandom(8).hex()}{SUFFIX}.tmp")
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def encode(image: ProgramImage, key: str) -> bytes:
    """The bytes of a cache file."""
    constants = {name: np.asarray(array, order="C") for name, array in image.constants.items()}
    header = {
        "key": key,
        "plan": image.plan.to_json(),
        "extra": dict(image.extra),
        "objects": [[symbol, len(data)] for symbol, data in image.objects.items()],
        "constants": [[name, as_dtype(a.dtype).name, list(a.shape)] for name, a in constants.items()],
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    body = b"".join([_HEADER_SIZE.pack(len(text)), text, *image.objects.values(),
                     *(array.tobytes() for array in constants.values())])
    return _PREFIX.pack(MAGIC, VERSION, hashlib.sha256(body).digest()) + body


def decode(data: bytes, key: str) -> ProgramImage:
    """The program in the bytes of a cache file. Raises _Damaged for anything that `encode` did not write."""
    if len(data) < _PREFIX.size + _HEADER_SIZE.size:
        raise _Damaged("it is cut off")
    magic, version, digest = _PREFIX.unpack_from(data)
    if magic != MAGIC or version != VERSION:
        raise _Damaged("it is of another format")
    body = memoryview(data)[_PREFIX.size :]
    if hashlib.sha256(body).digest() != digest:
        raise _Damaged("its digest does not match")
    try:
        return _decode_body(body, key)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, struct.error, RecursionError) as error:
        raise _Damaged(f"its content is of another form: {error!r}") from error


def _decode_body(body: memoryview, key: str) -> ProgramImage:
    (size,) = _HEADER_SIZE.unpack_from(body)
    position = _HEADER_SIZE.size + size
    header = json.loads(bytes(body[_HEADER_SIZE.size : position]))
    if header["key"] != key:
        raise ValueError(f"it was stored under the key {header['key']}")
    objects, constants = {}, {}
    for symbol, length in header["objects"]:
        objects[symbol] = bytes(body[position : position + length])
        position += length
    for name, dtype_name, shape in header["constants"]:
        dtype = as_dtype(dtype_name).numpy
        count = math.prod(shape)
        constants[name] = np.frombuffer(body, dtype, count, offset=position).reshape(shape)
        position += count * dtype.itemsize
    if position != len(body):
        raise ValueError(f"{len(body)} bytes instead of {position}")
    return ProgramImage(Plan.from_json(header["plan"]), objects, constants, header["extra"])
