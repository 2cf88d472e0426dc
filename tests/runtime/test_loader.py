"""Objects are loaded; what is no object is refused instead of ending the process."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from graphc.errors import CompileError
from graphc.runtime.loader import LoadedCode, load


def call(code: LoadedCode, symbol: str, *arrays: np.ndarray) -> None:
    args = np.array([array.ctypes.data for array in arrays], np.int64)
    ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)(code.addresses[symbol])(args.ctypes.data, 0, 1)


def test_many_objects_have_an_address_each(objects: dict[str, bytes]) -> None:
    code = load(objects)
    assert set(code.addresses) == set(objects)
    assert len(set(code.addresses.values())) == len(objects)
    counter = np.array([41])
    call(code, "add_one", counter)
    assert counter[0] == 42


def test_the_maths_library_is_found_in_the_process(objects: dict[str, bytes]) -> None:
    x, y = np.array([1.5], np.float32), np.zeros(1, np.float32)
    call(load({"exp": objects["exp"]}), "exp", x, y)
    np.testing.assert_allclose(y, np.exp(1.5), rtol=1e-6)


def test_the_same_object_can_be_loaded_twice(objects: dict[str, bytes]) -> None:
    first, second = load({"add_one": objects["add_one"]}), load({"add_one": objects["add_one"]})
    counter = np.array([0])
    call(first, "add_one", counter)
    call(second, "add_one", counter)
    assert counter[0] == 2


@pytest.mark.parametrize("data", [b"", b"no object file", b"\x00" * 100])
def test_what_is_no_object_is_refused(data: bytes) -> None:
    with pytest.raises(CompileError, match="machine code of k is no object file"):
        load({"k": data})


def test_a_truncated_object_is_refused(objects: dict[str, bytes]) -> None:
    with pytest.raises(CompileError, match="machine code of add_one is no object file"):
        load({"add_one": objects["add_one"][:40]})


def test_an_object_without_its_symbol_is_refused(objects: dict[str, bytes]) -> None:
    with pytest.raises(CompileError, match="does not define"):
        load({"another": objects["add_one"]})
