"""What callers may give a program, what they may not, and what they are told."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.errors import InputError
from graphc.ir.buffers import aligned_zeros
from graphc.ir.dims import parse_dim
from graphc.ir.types import as_dtype
from graphc.kernel.plan import Check
from graphc.runtime.driver import driver
from graphc.runtime.inputs import InputPlace, InputSpec, as_array, bind_counts, name_error


def spec(name: str, dtype: str, dims: str, *capacity: int) -> InputSpec:
    return InputSpec("p", name, as_dtype(dtype), capacity, tuple(parse_dim(d) for d in dims.split(",") if d))


X = spec("x", "f32", "N,784", 64, 784)
T = spec("t", "i32", "N", 64)


# ---- names and shapes -------------------------------------------------------------------------------------------


def test_a_spec_prints_its_capacity() -> None:
    assert str(X) == "f32[N<=64,784]"
    assert str(spec("s", "f64", "")) == "f64[]"
    assert str(spec("s", "u8", "2*N+1,3", 9, 3)) == "u8[2*N+1<=9,3]"


def test_missing_and_unknown_names() -> None:
    error = name_error("mlp", (X, T), ["x", "T1", "lr"])
    assert str(error) == ("program 'mlp': input 't' is missing; 'T1' is no input of it; 'lr' is no input of it; "
                          "it takes x: f32[N<=64,784], t: i32[N<=64]")
    labels = spec("labels", "i32", "N", 64)
    assert "'lables' is no input of it (did you mean 'labels'?)" in str(name_error("mlp", (X, labels), ["x", "lables"]))
    assert "takes no inputs" in str(name_error("noise", (), ["x"]))


@pytest.mark.parametrize("n", [0, 1, 37, 64])
def test_counts_come_from_shapes(n: int) -> None:
    assert bind_counts((X, T), ((n, 784), (n,)), {"N": 64}) == {"N": n}


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((32, 785), (32,)), r"input 'x' expected f32\[N<=64,784\], got shape \[32,785\]: axis 1 is 785, not 784"),
        (((32, 28, 28), (32,)), r"'x' expected .* got shape \[32,28,28\] with 3 axes instead of 2"),
        (((784,), (1,)), r"'x' expected .* with 1 axes instead of 2"),
        (((32, 784), (31,)), r"'t' expected i32\[N<=64\], got shape \[31\]: N = 31, but input 'x' has N = 32"),
        (((65, 784), (65,)), r"'x' .* got shape \[65,784\]: N = 65 is more than the capacity 64; compile with "
                             r"dims={'N': 65} or pass fewer"),
    ],
)
def test_shapes_that_do_not_fit(shapes: tuple[tuple[int, ...], ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        bind_counts((X, T), shapes, {"N": 64})


def test_counts_inside_expressions() -> None:
    specs = (spec("a", "f32", "2*N+1", 9), spec("b", "f32", "M*N", 12))
    extents = {"N": 4, "M": 3, "K": 7}
    assert bind_counts(specs, ((5,), (6,)), extents) == {"N": 2, "M": 3, "K": 7}
    with pytest.raises(InputError, match=r"'a' .* axis 0 is 6, but 2\*N\+1 is 5 with N = 2"):
        bind_counts(specs, ((6,), (6,)), extents)
    with pytest.raises(InputError, match=r"'a' .* axis 0 is 0, but 2\*N\+1 is 1 with N = 0"):
        bind_counts(specs, ((0,), (6,)), extents)
    with pytest.raises(InputError, match=r"'b' .* M = 6 is more than the capacity 3"):
        bind_counts(specs, ((3,), (6,)), extents)


def test_a_product_of_unknown_counts_needs_another_input() -> None:
    square = (spec("a", "f32", "N*N", 16),)
    assert bind_counts(square, ((16,),), {"N": 4}) == {"N": 4}
    with pytest.raises(InputError, match=r"axis 0 is 9, but N\*N is 16"):
        bind_counts(square, ((9,),), {"N": 4})


# ---- arrays -----------------------------------------------------------------------------------------------------


def test_lists_scalars_and_empty_lists_become_arrays() -> None:
    assert as_array(X, [[1, 2], [3, 4]]).shape == (2, 2)
    assert as_array(X, 2.5).shape == ()
    assert as_array(T, []).dtype == np.int32  # no element, so no float element


def test_what_is_no_array() -> None:
    with pytest.raises(InputError, match="input 'x' .* got list, which is no array"):
        as_array(X, [[1.0], [1.0, 2.0]])
    with pytest.raises(InputError, match="masked"):
        as_array(X, np.ma.masked_array([1.0, 2.0], [True, False]))


def place(dtype: str, shape: tuple[int, ...], *checks: Check) -> InputPlace:
    dims = ",".join(str(n) for n in shape)
    return InputPlace(spec("v", dtype, dims, *shape), aligned_zeros(shape, dtype), checks, driver().outside)


@pytest.mark.parametrize("target", ["f32", "f64"])
@pytest.mark.parametrize("source", ["f2", "f4", "f8", ">f4", ">f8", "i1", "i4", "i8", "u1", "u8", "?", ">i2"])
def test_numbers_become_floats(target: str, source: str) -> None:
    values = np.array([[0, 1, 1], [1, 0, 1]]).astype(source)
    to = place(target, (2, 3))
    to.fill(values, to.array)
    np.testing.assert_array_equal(to.array, values)


@pytest.mark.parametrize("target", ["i32", "i64", "u8", "bool"])
@pytest.mark.parametrize("source", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", ">i4", ">u8"])
def test_integers_that_fit(target: str, source: str) -> None:
    for checks in ((), (Check("v", 0, 2),)):
        values = np.array([[0, 1, 1], [1, 0, 1]]).astype(source)
        to = place(target, (2, 3), *checks)
        to.fill(values, to.array)
        np.testing.assert_array_equal(to.array, values.astype(to.array.dtype))


@pytest.mark.parametrize(
    ("target", "source", "value"),
    [("i32", "i8", 2**31), ("i32", "i8", -(2**31) - 1), ("i32", "u4", 2**31), ("i32", "u8", 2**63), ("u8", "i8", 256),
     ("i64", "u8", 2**63), ("i64", "u8", 2**64 - 1), ("u8", "i1", -1), ("bool", "i8", 2), ("bool", "u1", 255)],
)
def test_integers_that_do_not_fit(target: str, source: str, value: int) -> None:
    values = np.zeros((2, 3), f"{source[0]}{source[1]}")
    values[1, 2] = value
    to = place(target, (2, 3))
    with pytest.raises(InputError, match=rf"got the value {value} at index \[1, 2\], which {target} cannot hold"):
        to.fill(values, to.array)


@pytest.mark.parametrize("target", ["i32", "i64", "u8"])
def test_extreme_integers_arrive_unchanged(target: str) -> None:
    info = np.iinfo(as_dtype(target).numpy)
    values = np.array([info.min, info.max], np.int64)
    to = place(target, (2,))
    to.fill(values, to.array)
    np.testing.assert_array_equal(to.array, values)


@pytest.mark.parametrize("target", ["i32", "i64", "u8", "bool"])
def test_floats_never_become_integers(target: str) -> None:
    to = place(target, (2,))
    with pytest.raises(InputError, match="got dtype float64; floats are not cut to"):
        to.fill(np.array([0.0, 1.0]), to.array)


@pytest.mark.parametrize("values", [np.array([1j]), np.array(["1"]), np.array([None]), np.array([0], "M8[s]")])
def test_other_dtypes_are_refused(values: np.ndarray) -> None:
    to = place("f32", (1,))
    with pytest.raises(InputError, match=r"got dtype .*; convert it with .astype\(numpy.float32\)"):
        to.fill(values, to.array)


@pytest.mark.parametrize("dtype", ["f32", "i32"])
def test_the_layout_of_the_given_array_does_not_matter(dtype: str) -> None:
    base = np.arange(24).reshape(4, 6).astype(as_dtype(dtype).numpy)
    read_only = base.copy()
    read_only.flags.writeable = False
    unaligned = np.frombuffer(b"\0" + base.tobytes(), np.uint8)[1:].view(base.dtype).reshape(4, 6)
    variants = [base, np.asfortranarray(base), base[::-1], base[:, ::-1], read_only, unaligned,
                base.astype(base.dtype.newbyteorder(">")), np.broadcast_to(base[0], (4, 6))]
    for values in variants:
        to = place(dtype, (4, 6))
        to.fill(values, to.array)
        np.testing.assert_array_equal(to.array, values)


# ---- ranges -----------------------------------------------------------------------------------------------------

LABELS = Check("v", 0, 10, "cross_entropy at train.py:12")


@pytest.mark.parametrize("source", ["i4", "i8", "u1", "i2", "u4", "u8", ">i4", ">i8"])
@pytest.mark.parametrize("target", ["i32", "i64", "u8"])
def test_labels_outside_their_range(source: str, target: str) -> None:
    values = np.zeros((3, 4), source)
    values[1, 2], values[2, 0] = 10, 99
    to = place(target, (3, 4), LABELS)
    with pytest.raises(InputError) as caught:
        to.fill(values, to.array)
    assert str(caught.value) == (
        f"program 'p': input 'v' expected {target}[3,4], got the value 10 at index [1, 2], outside 0 <= v < 10 "
        "(needed by cross_entropy at train.py:12); nothing was run")


def test_negative_labels_and_the_edges_of_the_range() -> None:
    to = place("i32", (2,), LABELS)
    to.fill(np.array([0, 9]), to.array)
    with pytest.raises(InputError, match=r"value -1 at index \[1\], outside 0 <= v < 10"):
        to.fill(np.array([0, -1]), to.array)
    with pytest.raises(InputError, match="value 10 at index"):
        to.fill(np.array([0, 10], np.int32), to.array)


def test_a_scalar_outside_its_range() -> None:
    to = place("i32", (), LABELS)
    with pytest.raises(InputError, match="got the value 11, outside"):
        to.fill(np.array(11), to.array)


def test_several_checks_all_hold() -> None:
    to = place("i32", (2,), Check("v", 0, 100, "a"), Check("v", 5, 50, "b"), Check("v", 0, 20, "c"))
    to.fill(np.array([5, 19]), to.array)
    with pytest.raises(InputError, match=r"value 4 .* outside 5 <= v < 50 \(needed by b\)"):
        to.fill(np.array([4, 19]), to.array)
    with pytest.raises(InputError, match=r"value 20 .* outside 0 <= v < 20 \(needed by c\)"):
        to.fill(np.array([5, 20]), to.array)


def test_only_the_part_in_use_is_checked() -> None:
    to = place("i32", (4, 6), LABELS)
    to.array[...] = 77  # what an earlier call might have left
    for shape in ((2, 6), (3, 2), (0, 6)):  # rows, a strided part, nothing
        region = to.array[: shape[0], : shape[1]]
        to.fill(np.full(shape, 9, np.int32), region)
        np.testing.assert_array_equal(region, 9)
    bad = np.full((3, 2), 9, np.int32)
    bad[2, 1] = 12
    with pytest.raises(InputError, match=r"value 12 at index \[2, 1\]"):
        to.fill(bad, to.array[:3, :2])
