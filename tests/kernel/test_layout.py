"""Layouts: panels, padding, text, composition; pack and unpack against offsets element by element."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc.errors import ParseError, ShapeError
from graphc.kernel.layout import Layout, Part, parse_layout

PANELS = Layout((1, 0, 2), ((1, 64),))


@st.composite
def layouts(draw: st.DrawFn, rank: int | None = None, padded: bool = True) -> Layout:
    """Any layout of a small rank, nested splits included."""
    rank = draw(st.integers(0, 3)) if rank is None else rank
    splits = []
    for axis in range(rank):
        sizes = draw(st.sampled_from([(), (), (2,), (3,), (4, 2), (6, 3, 1), (4, 4)]))
        splits += [(axis, size) for size in sizes]
    parts = rank + len(splits)
    order = draw(st.permutations(range(parts)))
    padding = draw(st.lists(st.integers(0, 3), min_size=parts, max_size=parts)) if padded else ()
    return Layout(tuple(order), tuple(splits), tuple(padding))


@st.composite
def layouts_with_shapes(draw: st.DrawFn) -> tuple[Layout, tuple[int, ...]]:
    layout = draw(layouts())
    return layout, tuple(draw(st.integers(0, 7)) for _ in range(layout.rank))


def test_panels_of_64_columns() -> None:
    assert PANELS.text(("n", "f")) == "[f/64][n][f%64]"
    assert PANELS.parts == (Part(0, 1, 0), Part(1, 64, 0), Part(1, 1, 64))
    assert PANELS.part_sizes((128, 784)) == (13, 128, 64)
    assert PANELS.strides((128, 784)) == (128 * 64, 64, 1)
    assert PANELS.size((128, 784)) == 13 * 128 * 64
    assert PANELS.nbytes((128, 784), 4) == 13 * 128 * 64 * 4
    assert PANELS.offset((5, 130), (128, 784)) == 2 * 128 * 64 + 5 * 64 + 2
    x = np.arange(3 * 130, dtype=np.float32).reshape(3, 130)
    packed = PANELS.pack(x).reshape(3, 3, 64)
    np.testing.assert_array_equal(packed[1], x[:, 64:128])
    np.testing.assert_array_equal(packed[2, :, 2:], 0)
    np.testing.assert_array_equal(PANELS.unpack(PANELS.pack(x), x.shape), x)


def test_padded_rows() -> None:
    padded = Layout((0, 1), padding=(0, 16))
    assert str(padded) == "[a0][a1]+16"
    assert padded.strides((4, 1024)) == (1040, 1)
    assert padded.size((4, 1024)) == 4 * 1040
    assert Layout((1, 0)).strides((4, 1024)) == (4, 1)
    assert Layout((0, 1), padding=(0, 0)) == Layout.row_major(2)


def test_padding_after_any_part() -> None:
    """Rows 32 elements apart and planes 16 more: `padding` counts elements, not rows."""
    planes = Layout((1, 2, 3, 0), padding=(0, 16, 32, 5))
    shape = (27, 3, 4, 8)  # [N, C, H, W] with 27 images innermost
    assert planes.text("ncyx") == "[c][y]+16[x]+32[n]+5"
    assert planes.strides(shape) == (4 * (8 * 32 + 32) + 16, 8 * 32 + 32, 32, 1)
    assert planes.size(shape) == 3 * planes.strides(shape)[0]
    assert parse_layout("[c][y]+16[x]+32[n]+5", "ncyx") == planes
    assert planes.transposed((1, 2, 3, 0)) == Layout((0, 1, 2, 3), padding=(0, 16, 32, 5))
    panels = Layout((1, 0, 2), ((1, 64),), (0, 16, 0))
    assert panels.text(("n", "f")) == "[f/64][n]+16[f%64]" and panels.strides((128, 784)) == (128 * 64 + 16, 64, 1)


@given(layouts_with_shapes())
def test_pack_puts_each_element_at_its_offset(case: tuple[Layout, tuple[int, ...]]) -> None:
    layout, shape = case
    x = np.arange(1, math.prod(shape) + 1).reshape(shape)
    packed = layout.pack(x)
    assert packed.shape == (layout.size(shape),)
    offsets = [layout.offset(index, shape) for index in np.ndindex(*shape)]
    assert len(set(offsets)) == len(offsets)
    np.testing.assert_array_equal(packed[offsets], x.ravel())
    assert np.count_nonzero(packed) == x.size
    np.testing.assert_array_equal(layout.unpack(packed, shape), x)


@given(layouts())
def test_text_round_trip(layout: Layout) -> None:
    axes = ["n", "c", "x_1"][: layout.rank]
    assert parse_layout(layout.text(axes), axes) == layout


@given(layouts_with_shapes(), st.data())
def test_transposed_tensors_lie_in_the_same_memory(case: tuple[Layout, tuple[int, ...]], data: st.DataObject) -> None:
    layout, shape = case
    axes = data.draw(st.permutations(range(layout.rank)))
    x = np.arange(math.prod(shape)).reshape(shape)
    np.testing.assert_array_equal(layout.transposed(axes).pack(x.transpose(axes)), layout.pack(x))


def test_composition_of_parts_of_length_one() -> None:
    first, second = Layout((0, 1, 2), ((0, 4), (0, 4))), Layout((0, 1, 2, 3, 4), ((2, 4), (2, 2)))
    x = np.arange(10)
    one_by_one = second.pack(first.pack(x).reshape(first.part_sizes(x.shape)))
    np.testing.assert_array_equal(first.then(second).pack(x), one_by_one)


@given(st.data())
def test_composition(data: st.DataObject) -> None:
    first = data.draw(layouts(padded=False))
    second = data.draw(layouts(rank=len(first.permutation)))
    shape = tuple(data.draw(st.integers(0, 7)) for _ in range(first.rank))
    try:
        both = first.then(second)
    except ShapeError:
        fixed = [first.parts[k].modulus for k in first.permutation]
        assert any(fixed[axis] % size for axis, size in second.splits)
        return
    x = np.arange(math.prod(shape)).reshape(shape)
    one_by_one = second.pack(first.pack(x).reshape(first.part_sizes(shape)))
    np.testing.assert_array_equal(both.pack(x), one_by_one)


@pytest.mark.parametrize(
    "arguments",
    [((0, 0),), ((1, 2),), ((0, 1), ((1, 4),)[:1] * 3), ((0, 1), ((1, 4),)), ((0, 1, 2), ((0, 0),)),
     ((0, 1, 2), ((0, 3), (0, 2))), ((0, 1, 2, 3), ((1, 2), (0, 2))), ((0,), (), (-1,)), ((0, 1), (), (1,))],
)  # fmt: skip
def test_inconsistent_layouts(arguments: tuple) -> None:
    with pytest.raises(ShapeError):
        Layout(*arguments)


def test_wrong_use() -> None:
    with pytest.raises(ShapeError, match="rank 2"):
        PANELS.strides((3,))
    with pytest.raises(ShapeError, match="not in shape"):
        PANELS.offset((3, 3), (3, 130))
    with pytest.raises(ShapeError, match="takes 576 elements"):
        PANELS.unpack(np.zeros(5), (3, 130))
    with pytest.raises(ShapeError, match="another rank, or the first one is padded"):
        Layout((0,), padding=(1,)).then(Layout((0,)))
    with pytest.raises(ShapeError, match="no permutation"):
        PANELS.transposed((0, 0))


@pytest.mark.parametrize("text", ["[n][m]", "[n", "[n/2]", "[n][c%4]", "[n][n][c]", "[n]", "[n/0%2][c]", "[n][c/64]+x"])
def test_text_that_is_no_layout(text: str) -> None:
    with pytest.raises(ParseError, match="line 1, column"):
        parse_layout(text, ["n", "c"])
