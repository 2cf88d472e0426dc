"""The program cache: finished programs on disk, one file each, private to the user.

    file    = magic (8 bytes), version (u32), digest (32 bytes, SHA-256 of the rest), header size (u64), header, blobs
    header  = JSON: key, plan, extra, and name and size of each blob (objects first, then constants)

Notes are kept beside programs: what was found out that other programs can use. Their files are alike, with a header of
key and note and no blobs.

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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from graphc.errors import CacheWarning
from graphc.ir.types import as_dtype
from graphc.kernel.plan import Plan

MAGIC = b"\x89GRAPHC\n"
VERSION = 2
SUFFIX, NOTE_SUFFIX = ".program", ".note"
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
        found: ProgramImage | None = self._load(
            self._path(key, SUFFIX), lambda data: decode(data, key), "program", "it is compiled again"
        )
        return found

    def store(self, key: str, image: ProgramImage) -> bool:
        """Store a program under `key`, atomically, and remove old ones over the limit. False if it cannot be stored."""
        return self._store(self._path(key, SUFFIX), lambda: encode(image, key))

    def load_note(self, key: str) -> Any:
        """The note (any JSON) stored under `key`, or None. Damaged files count as absent, with a CacheWarning."""
        return self._load(self._path(key, NOTE_SUFFIX), lambda data: _decode_note(data, key), "note",
                          "what it told is found out again")

    def store_note(self, key: str, note: Any) -> bool:
        """Store a note, which is any JSON but None, as `store` does."""
        return self._store(self._path(key, NOTE_SUFFIX), lambda: _encode_note(note, key))

    def entries(self) -> list[CacheEntry]:
        """The stored programs, the most recently used first."""
        return self._entries(SUFFIX)

    def _load(self, path: Path | None, decoded: Callable[[bytes], Any], what: str, behind: str) -> Any:
        if path is None or not self._usable(create=False):
            return None
        try:
            found = decoded(_read_private(path))
        except FileNotFoundError:
            return None
        except (OSError, _Damaged) as error:
            warnings.warn(f"the cached {what} {path} is ignored ({error}); {behind}", CacheWarning, stacklevel=5)
            return None
        with contextlib.suppress(OSError):  # only the order of removal depends on it
            os.utime(path)
        return found

    def _store(self, path: Path | None, encoded: Callable[[], bytes]) -> bool:
        if path is None or not self._usable(create=True):
            return False
        try:
            _write_atomically(path, encoded())
            self._evict(keep=path)
        except OSError as error:
            self._warn(f"cannot write {path}: {error}")
            return False
        return True

    def _entries(self, *suffixes: str) -> list[CacheEntry]:
        if not self._usable(create=False):
            return []
        found = []
        for path in (path for suffix in suffixes for path in self._files(suffix)):
            with contextlib.suppress(OSError):
                status = path.stat()
                found.append(CacheEntry(path.stem, path, status.st_size, status.st_mtime))
        return sorted(found, key=lambda entry: (-entry.used, entry.key))

    @property
    def nbytes(self) -> int:
        """Bytes of all stored programs."""
        return sum(entry.nbytes for entry in self.entries())

    def clear(self) -> int:
        """Remove every stored program and note; returns how many programs. The folder and foreign files in it stay."""
        removed = 0
        for entry in self._entries(SUFFIX, NOTE_SUFFIX):
            with contextlib.suppress(OSError):
                entry.path.unlink()
                removed += entry.path.suffix == SUFFIX
        self._remove_abandoned(0.0)
        return removed

    # -- the folder ------------------------------------------------------------------------------------------

    def _path(self, key: str, suffix: str) -> Path | None:
        if not re.fullmatch(r"[0-9a-f]{8,128}", key):
            raise ValueError(f"a cache key is 8 to 128 lower-case hex digits, got {key!r}")
        return None if self.folder is None else self.folder / (key + suffix)

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
        for entry in self._entries(SUFFIX, NOTE_SUFFIX):
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
    image: ProgramImage = _checked(data, lambda body: _decode_body(body, key))
    return image


def _encode_note(note: Any, key: str) -> bytes:
    text = json.dumps({"key": key, "note": note}, separators=(",", ":")).encode()
    body = _HEADER_SIZE.pack(len(text)) + text
    return _PREFIX.pack(MAGIC, VERSION, hashlib.sha256(body).digest()) + body


def _decode_note(data: bytes, key: str) -> Any:
    return _checked(data, lambda body: _header(body, key)[0]["note"])


def _checked(data: bytes, decoded: Callable[[memoryview], Any]) -> Any:
    """What is in the bytes of a file, behind its digest. Raises _Damaged."""
    if len(data) < _PREFIX.size + _HEADER_SIZE.size:
        raise _Damaged("it is cut off")
    magic, version, digest = _PREFIX.unpack_from(data)
    if magic != MAGIC or version != VERSION:
        raise _Damaged("it is of another format")
    body = memoryview(data)[_PREFIX.size :]
    if hashlib.sha256(body).digest() != digest:
        raise _Damaged("its digest does not match")
    try:
        return decoded(body)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, struct.error, RecursionError) as error:
        raise _Damaged(f"its content is of another form: {error!r}") from error


def _header(body: memoryview, key: str) -> tuple[Any, int]:
    """The header, and where it ends."""
    (size,) = _HEADER_SIZE.unpack_from(body)
    end = _HEADER_SIZE.size + size
    header = json.loads(bytes(body[_HEADER_SIZE.size : end]))
    if header["key"] != key:
        raise ValueError(f"it was stored under the key {header['key']}")
    return header, end


def _decode_body(body: memoryview, key: str) -> ProgramImage:
    header, position = _header(body, key)
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
