"""The program cache: round trips, damage, folders that cannot be trusted, the size limit."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from graphc.errors import CacheWarning
from graphc.kernel.plan import Barrier, Buffer, Call, Check, Loop, Plan, Update
from graphc.runtime import cache as cache_module
from graphc.runtime.cache import ProgramCache, ProgramImage, default_cache, encode
from graphc.runtime.executable import Executable

KEY, OTHER = "0" * 64, "f" * 64

PLAN = Plan(
    name="p",
    buffers=(Buffer("x", "f32", (4, 3), "input", 0, 48, "N,3"), Buffer("y", "f32", (4, 3), "scratch", 64, 48, "N,3"),
             Buffer("c", "f32", (2, 3), "constant", 0, 24, "2,3")),
    entries=(Call("double", ("x", "y"), ("N",)), Barrier(), Loop("t", 2, (Loop("s", 1, (Barrier(),)),), (("y", 12),))),
    arena_bytes=128,
    inputs=("x",),
    results=("y", "c"),
    variables=(),
    constants=("c",),
    extents={"N": 4},
    updates=(Update("a", "b"),),
    written=("w",),
    checks=(Check("x", 0, 9, "here"),),
)


@pytest.fixture
def image(objects: dict[str, bytes]) -> ProgramImage:
    constants = {"c": np.arange(6, dtype=np.float32).reshape(2, 3), "scalar": np.array(2.5),
                 "none": np.zeros((0, 2), np.int32)}
    return ProgramImage(PLAN, {"double": objects["double"]}, constants,
                        {"variables": {"a": "b"}, "numbers": [1, 2.5, None, True]})


@pytest.fixture
def cache(tmp_path: Path) -> ProgramCache:
    return ProgramCache(tmp_path / "programs")


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def same(a: ProgramImage, b: ProgramImage) -> bool:
    constants = a.constants.keys() == b.constants.keys() and all(
        a.constants[n].dtype == b.constants[n].dtype and np.array_equal(a.constants[n], b.constants[n])
        and a.constants[n].shape == b.constants[n].shape for n in a.constants)
    return constants and (a.plan, a.objects, a.extra) == (b.plan, b.objects, b.extra)


# ---- round trips ------------------------------------------------------------------------------------------------


def test_what_is_stored_is_loaded(cache: ProgramCache, image: ProgramImage) -> None:
    assert cache.load(KEY) is None
    assert cache.store(KEY, image)
    loaded = cache.load(KEY)
    assert loaded is not None and same(loaded, image)
    assert cache.load(OTHER) is None


def test_a_stored_program_is_replaced(cache: ProgramCache, image: ProgramImage) -> None:
    cache.store(KEY, image)
    changed = ProgramImage(PLAN, image.objects, {}, {"changed": 1})
    cache.store(KEY, changed)
    loaded = cache.load(KEY)
    assert loaded is not None and same(loaded, changed)
    assert len(cache.entries()) == 1


@pytest.mark.usefixtures("umask")
def test_folder_and_files_are_private(cache: ProgramCache, image: ProgramImage) -> None:
    cache.store(KEY, image)
    assert cache.folder is not None
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700
    (path,) = cache.folder.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_keys_are_hex_digits(cache: ProgramCache, image: ProgramImage) -> None:
    for key in ("", "../../etc/passwd", "abc", "G" * 64, "A" * 64, "0" * 64 + "\n"):
        with pytest.raises(ValueError, match="hex"):
            cache.load(key)
        with pytest.raises(ValueError, match="hex"):
            cache.store(key, image)


# ---- damage -----------------------------------------------------------------------------------------------------


def path_of(cache: ProgramCache) -> Path:
    (entry,) = cache.entries()
    return entry.path


def refused(cache: ProgramCache, image: ProgramImage, match: str = "ignored") -> None:
    """The entry counts as absent with a warning, and can be replaced."""
    with pytest.warns(CacheWarning, match=match):
        assert cache.load(KEY) is None
    assert cache.store(KEY, image)
    loaded = cache.load(KEY)
    assert loaded is not None and same(loaded, image)


def test_a_flipped_byte_anywhere_is_noticed(cache: ProgramCache, image: ProgramImage) -> None:
    cache.store(KEY, image)
    path = path_of(cache)
    good = path.read_bytes()
    positions = {*range(80), *range(80, len(good), 41), *range(len(good) - 30, len(good))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        for position in sorted(positions):
            for flip in (0x01, 0x80, 0xFF):
                bad = bytearray(good)
                bad[position] ^= flip
                path.write_bytes(bad)
                assert cache.load(KEY) is None, (position, flip)
    refused(cache, image, "ignored .its digest does not match")


def test_a_truncated_or_longer_file_is_noticed(cache: ProgramCache, image: ProgramImage) -> None:
    cache.store(KEY, image)
    path = path_of(cache)
    good = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        for size in {*range(0, 100), *range(100, len(good), 97), len(good) - 1}:
            path.write_bytes(good[:size])
            assert cache.load(KEY) is None, size
    path.write_bytes(good + b"\0")
    refused(cache, image)


@pytest.mark.parametrize("content", [b"", b"\x80\x04.", b"PK\x03\x04" * 100, os.urandom(500)])
def test_foreign_files_are_ignored(cache: ProgramCache, image: ProgramImage, content: bytes) -> None:
    cache.store(KEY, image)
    path_of(cache).write_bytes(content)
    refused(cache, image)


def test_an_entry_under_another_key_is_ignored(cache: ProgramCache, image: ProgramImage) -> None:
    cache.store(OTHER, image)
    path = path_of(cache)
    path.rename(path.with_name(KEY + path.suffix))
    refused(cache, image, "stored under the key f")


def test_a_content_of_another_form_is_ignored(
    cache: ProgramCache, image: ProgramImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digest is right, but the plan lacks a field or has one too many, as after a change of the format."""
    for change in ({"inputs": None}, {"buffers": [{"name": "x"}]}, {"entries": [{"call": "k"}]}):
        cache.store(KEY, image)
        data = PLAN.to_json() | change
        with monkeypatch.context() as patch:
            patch.setattr(Plan, "to_json", lambda self, data=data: data)
            path_of(cache).write_bytes(encode(image, KEY))
        refused(cache, image, "content is of another form")


def test_files_of_other_users_or_writable_ones_are_ignored(
    cache: ProgramCache, image: ProgramImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.store(KEY, image)
    path_of(cache).chmod(0o622)
    refused(cache, image, "can be written by other users")
    elsewhere = path_of(cache).rename(path_of(cache).parent.parent / "elsewhere")
    (cache.folder / (KEY + ".program")).symlink_to(elsewhere)  # type: ignore[operator]
    refused(cache, image)
    assert not path_of(cache).is_symlink()
    os.unlink(path_of(cache))
    os.mkfifo(cache.folder / (KEY + ".program"))  # type: ignore[operator]
    refused(cache, image, "no regular file")


# ---- folders ----------------------------------------------------------------------------------------------------


def unusable(folder: Path, image: ProgramImage, match: str) -> None:
    """One warning, no exception, nothing stored."""
    cache = ProgramCache(folder)
    with pytest.warns(CacheWarning, match=match) as caught:
        assert not cache.store(KEY, image)
        assert cache.load(KEY) is None
        assert not cache.store(KEY, image)
        assert cache.entries() == [] and cache.nbytes == 0 and cache.clear() == 0
    assert len(caught) == 1
    assert "GRAPHC_CACHE" in str(caught[0].message)


def test_a_file_in_place_of_the_folder(tmp_path: Path, image: ProgramImage) -> None:
    (tmp_path / "file").write_text("mine")
    unusable(tmp_path / "file", image, "is no folder")
    unusable(tmp_path / "file" / "below", image, "not used")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_cannot_be_written(
    tmp_path: Path, image: ProgramImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, data: bytes) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache_module, "_write_atomically", refuse)
    unusable(tmp_path / "programs", image, "cannot write .*Permission denied")


def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, image: ProgramImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_module.os, "replace", full)
    with pytest.warns(CacheWarning, match="No space left"):
        assert not ProgramCache(tmp_path / "programs").store(KEY, image)
    assert list((tmp_path / "programs").iterdir()) == []


def test_symbolic_links_and_folders_open_to_others(
    tmp_path: Path, image: ProgramImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    unusable(tmp_path / "link", image, "symbolic link")
    for mode in (0o777, 0o1777, 0o770, 0o720):
        (tmp_path / "real").chmod(mode)
        unusable(tmp_path / "real", image, "can be written by other users")
    (tmp_path / "real").chmod(0o755)  # readable by others is the owner's choice
    assert ProgramCache(tmp_path / "real").store(KEY, image)
    monkeypatch.setattr(cache_module.os, "geteuid", lambda: 12345)
    unusable(tmp_path / "real", image, "belongs to another user")


def test_no_cache(image: ProgramImage) -> None:
    cache = ProgramCache(None)
    assert not cache.store(KEY, image) and cache.load(KEY) is None
    assert cache.entries() == [] and cache.clear() == 0


def test_the_environment_chooses_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path / "here"))
    assert default_cache().folder == tmp_path / "here"
    assert default_cache() is default_cache()  # so that it warns once
    monkeypatch.setenv("GRAPHC_CACHE", "off")
    assert default_cache().folder is None
    monkeypatch.setenv("GRAPHC_CACHE", "~/there")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache().folder == tmp_path / "there"
    monkeypatch.delenv("GRAPHC_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache().folder == tmp_path / "xdg" / "graphc"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_cache().folder == tmp_path / ".cache" / "graphc"


# ---- size -------------------------------------------------------------------------------------------------------


def test_the_least_recently_used_programs_go_first(tmp_path: Path, image: ProgramImage) -> None:
    size = len(encode(image, KEY))
    cache = ProgramCache(tmp_path / "programs", limit=3 * size)
    keys = [f"{number:064x}" for number in range(4)]
    for age, key in enumerate(reversed(keys[:3])):
        cache.store(key, image)
        long_ago = time.time() - 1000 * (age + 1)
        os.utime(tmp_path / "programs" / (key + ".program"), (long_ago, long_ago))
    assert cache.nbytes == 3 * size
    assert cache.load(keys[0]) is not None  # the oldest one is used again
    cache.store(keys[3], image)
    assert {entry.key for entry in cache.entries()} == {keys[0], keys[2], keys[3]}
    assert cache.nbytes <= cache.limit


def test_a_program_over_the_limit_is_kept_alone(tmp_path: Path, image: ProgramImage) -> None:
    cache = ProgramCache(tmp_path / "programs", limit=1)
    cache.store(OTHER, image)
    cache.store(KEY, image)
    assert [entry.key for entry in cache.entries()] == [KEY]


def test_clear_leaves_foreign_files(cache: ProgramCache, image: ProgramImage) -> None:
    cache.store(KEY, image)
    cache.store(OTHER, image)
    assert cache.folder is not None
    (cache.folder / "mine.txt").write_text("mine")
    (cache.folder / "0-x.program.tmp").write_text("unfinished")
    assert [entry.key for entry in cache.entries()] and cache.clear() == 2
    assert [path.name for path in cache.folder.iterdir()] == ["mine.txt"]


def test_several_writers_and_readers(cache: ProgramCache, image: ProgramImage) -> None:
    """No reader ever sees half a program: every load is a hit without a warning."""
    cache.store(KEY, image)
    failures: list[object] = []

    def work() -> None:
        for _ in range(30):
            if not cache.store(KEY, image) or cache.load(KEY) is None:
                failures.append("absent")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


# ---- another process --------------------------------------------------------------------------------------------

SECOND_PROCESS = """
import sys
import numpy as np
from graphc.runtime.cache import default_cache
from graphc.runtime.executable import Executable
image = default_cache().load(sys.argv[1])
(y,) = Executable(image.plan, image.objects, {}, image.constants, 0)({"x": np.ones((2, 3))})
assert (y == 2).all()
heavy = {name.split(".")[1] if name.startswith("graphc.") else name for name in sys.modules}
print(sorted(heavy & {"numba", "sympy", "codegen", "passes", "autodiff", "ops", "dsl", "pickle"}))
"""


def test_a_second_process_needs_the_runtime_alone(cache: ProgramCache, objects: dict[str, bytes]) -> None:
    plan = Plan("p", PLAN.buffers[:2], PLAN.entries[:1], 128, ("x",), ("y",), (), extents={"N": 4})
    cache.store(KEY, ProgramImage(plan, {"double": objects["double"]}))
    environment = {**os.environ, "GRAPHC_CACHE": str(cache.folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-W", "error", "-c", SECOND_PROCESS, KEY], env=environment, text=True,
                          capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("[]", "['pickle']")  # NumPy itself imports pickle


def test_an_image_makes_an_executable(cache: ProgramCache, objects: dict[str, bytes]) -> None:
    plan = Plan("p", PLAN.buffers, PLAN.entries, 128, ("x",), ("y", "c"), (), ("c",), {"N": 4})
    constant = np.arange(6, dtype=np.float32).reshape(2, 3)
    cache.store(KEY, ProgramImage(plan, {"double": objects["double"]}, {"c": constant}))
    loaded = cache.load(KEY)
    assert loaded is not None
    y, c = Executable(loaded.plan, loaded.objects, {}, loaded.constants, 0)({"x": np.ones((4, 3))})
    np.testing.assert_array_equal(y, 2)
    np.testing.assert_array_equal(c, constant)


# ---- notes


def test_notes_are_kept_beside_programs(cache: ProgramCache, image: ProgramImage) -> None:
    note = {"best": "outer", "seconds": [1e-6, 2.5], "none": None}
    assert cache.load_note(KEY) is None
    assert cache.store_note(KEY, note)
    assert cache.load_note(KEY) == note
    assert cache.load(KEY) is None
    assert cache.entries() == []
    cache.store(KEY, image)
    assert cache.load_note(KEY) == note
    assert cache.folder is not None
    (path,) = cache.folder.glob("*.note")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert cache.clear() == 1
    assert cache.load_note(KEY) is None
    assert not ProgramCache(None).store_note(KEY, note)


@pytest.mark.parametrize("change", ["cut", "flip", "key", "program", "writable"])
def test_damaged_notes_count_as_absent(change: str, cache: ProgramCache, image: ProgramImage) -> None:
    cache.store_note(KEY, [1, 2])
    assert cache.folder is not None
    path = cache.folder / f"{KEY}.note"
    data = path.read_bytes()
    if change == "key":
        cache.store_note(OTHER, [1])
        path.write_bytes((cache.folder / f"{OTHER}.note").read_bytes())
    elif change == "writable":
        path.chmod(0o666)
    else:
        path.write_bytes({"cut": data[:30], "flip": data[:-1] + b"!", "program": encode(image, KEY)}[change])
    with pytest.warns(CacheWarning, match="the cached note .* is ignored .*; what it told is found out again"):
        assert cache.load_note(KEY) is None


def test_notes_count_towards_the_limit(tmp_path: Path, image: ProgramImage) -> None:
    cache = ProgramCache(tmp_path / "small", limit=200)
    cache.store_note(KEY, "x" * 100)
    os.utime(tmp_path / "small" / f"{KEY}.note", (1, 1))
    cache.store_note(OTHER, "x" * 100)
    assert cache.load_note(KEY) is None
    assert cache.load_note(OTHER) == "x" * 100
