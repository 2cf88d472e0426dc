"""Named arrays in safetensors files: exact round trips, exchange with the library itself, damaged files."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from graphc.errors import DataError
from graphc.interop.safetensors import load_arrays, save_arrays

ARRAYS = {
    "fc.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fc.bias": np.array([np.nan, -0.0, np.inf], dtype=np.float64),
    "step": np.array(7, dtype=np.int64),
    "empty": np.zeros((0, 3), dtype=np.float32),
    "mask": np.array([True, False]),
}


def write_raw(path: Path, header: object, data: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_round_trip(tmp_path: Path) -> None:
    save_arrays(tmp_path / "model.safetensors", ARRAYS)
    read = load_arrays(tmp_path / "model.safetensors")
    assert read.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert read[name].dtype == array.dtype and read[name].shape == array.shape
        assert read[name].tobytes() == array.tobytes()
        assert read[name].flags.writeable
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_same_as_the_librarys_files(tmp_path: Path) -> None:
    save_arrays(tmp_path / "ours", ARRAYS)
    safetensors.numpy.save_file(ARRAYS, tmp_path / "theirs")
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_values_not_memory_are_stored(tmp_path: Path) -> None:
    """The library itself stores the bytes as they lie, so views need care."""
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    views = {
        "transposed": base.T,
        "strided": base[::2, 1::2],
        "reversed": base[::-1],
        "broadcast": np.broadcast_to(base[0], (3, 6)),
        "big_endian": base.astype(">f4").T,
    }
    save_arrays(tmp_path / "views", views)
    read = load_arrays(tmp_path / "views")
    for name, view in views.items():
        np.testing.assert_array_equal(read[name], view)


def test_reads_pytorchs_checkpoint(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch, which graphc does not depend on")
    safetensors_torch = pytest.importorskip("safetensors.torch")
    layer = torch.nn.Linear(4, 3)
    safetensors_torch.save_file(layer.state_dict(), tmp_path / "layer")
    read = load_arrays(tmp_path / "layer")
    assert read.keys() == {"weight", "bias"}
    np.testing.assert_array_equal(read["weight"], layer.weight.detach().numpy())


def test_truncation_at_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_arrays(path, {"w": np.ones(3, np.float32)})
    whole = path.read_bytes()
    for kept in range(len(whole)):
        path.write_bytes(whole[:kept])
        with pytest.raises(DataError, match=f"truncated.*found {kept}|no safetensors file") as caught:
            load_arrays(path)
        assert str(path) in str(caught.value)
    path.write_bytes(whole[:-1])
    with pytest.raises(DataError, match=f"expected {len(whole)} bytes, found {len(whole) - 1}"):
        load_arrays(path)


def test_trailing_bytes(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_arrays(path, {"w": np.ones(3, np.float32)})
    whole = path.read_bytes()
    path.write_bytes(whole + b"more")
    with pytest.raises(DataError, match=f"bytes after its data: expected {len(whole)} bytes, found {len(whole) + 4}"):
        load_arrays(path)


@pytest.mark.parametrize("content", [b"PK\x03\x04" + b"\x00" * 100, b"\x89HDF\r\n\x1a\n" + b"x" * 100, b"\xff" * 64])
def test_foreign_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model").write_bytes(content)
    with pytest.raises(DataError, match="model: no safetensors file"):
        load_arrays(tmp_path / "model")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}, "dtype BF16, which NumPy lacks"),
        ({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, "contradicts itself"),
        ({"w": {"dtype": "F32", "shape": [1]}}, "header is not as the format demands"),
        ({"w": [1, 2]}, "header is not as the format demands"),
    ],
)
def test_wrong_headers(tmp_path: Path, header: object, message: str) -> None:
    write_raw(tmp_path / "model", header, b"1234")
    with pytest.raises(DataError, match=message):
        load_arrays(tmp_path / "model")


def test_metadata_is_no_array(tmp_path: Path) -> None:
    header = {"__metadata__": {"format": "pt"}, "w": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}
    write_raw(tmp_path / "model", header, b"1234")
    assert load_arrays(tmp_path / "model")["w"].tolist() == list(b"1234")
    write_raw(tmp_path / "model", header, b"123")
    with pytest.raises(DataError, match="truncated safetensors file"):
        load_arrays(tmp_path / "model")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"__metadata__": np.zeros(1)}, "'__metadata__' cannot be the name"),
        ({"\ud800": np.zeros(1)}, "cannot be the name"),
        ({3: np.zeros(1)}, "3 cannot be the name"),
        ({"w": np.zeros(1, np.complex128)}, "'w' is an array of dtype complex128"),
        ({"w": np.array(["text"])}, "'w' is an array of dtype <U4"),
        ({"w": [1.0]}, "'w' is a list"),
    ],
)
def test_what_cannot_be_stored(tmp_path: Path, arrays: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        save_arrays(tmp_path / "model", {"good": np.zeros(1), **arrays})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model"
    save_arrays(path, {"w": np.ones(3, np.float32)})

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(DataError, match="model: cannot be written: No space left on device"):
        save_arrays(path, {"w": np.zeros(3, np.float32)})
    assert load_arrays(path)["w"].tolist() == [1, 1, 1]
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_an_interrupted_save_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_arrays(tmp_path / "model", ARRAYS)
    assert list(tmp_path.iterdir()) == []


def test_links_are_written_through_and_the_users_umask_holds(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "latest").symlink_to(tmp_path / "runs" / "model")
    before = os.umask(0o027)
    try:
        save_arrays(tmp_path / "latest", ARRAYS)
    finally:
        os.umask(before)
    assert (tmp_path / "latest").is_symlink()
    assert stat.S_IMODE((tmp_path / "runs" / "model").stat().st_mode) == 0o640


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: cannot be read: No such file"):
        load_arrays(tmp_path / "nowhere")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        load_arrays(tmp_path)
    with pytest.raises(DataError, match="cannot be written: No such file"):
        save_arrays(tmp_path / "nowhere" / "model", ARRAYS)
