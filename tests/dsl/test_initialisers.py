from __future__ import annotations

import math

import numpy as np
import pytest

import graphc as gc
from graphc.dsl.initialisers import fans, generator
from graphc.errors import AttributeValueError

SHAPE = (400, 300)  # [out, in]


@pytest.mark.parametrize(
    ("init", "bound", "std"),
    [
        (gc.init.glorot_uniform(), math.sqrt(6 / 700), math.sqrt(2 / 700)),
        (gc.init.glorot_uniform(gain=2), 2 * math.sqrt(6 / 700), 2 * math.sqrt(2 / 700)),
        (gc.init.glorot_normal(), None, math.sqrt(2 / 700)),
        (gc.init.he_uniform(), math.sqrt(6 / 300), math.sqrt(2 / 300)),
        (gc.init.he_uniform(layout="in_out"), math.sqrt(6 / 400), math.sqrt(2 / 400)),
        (gc.init.he_normal(), None, math.sqrt(2 / 300)),
        (gc.init.kaiming_uniform(math.sqrt(5)), 1 / math.sqrt(300), 1 / math.sqrt(900)),
        (gc.init.normal(0, 0.5), None, 0.5),
        (gc.init.uniform(-3, 3), 3.0, math.sqrt(3)),
    ],
)
def test_scale(init, bound, std) -> None:
    w = gc.param("w", SHAPE, init=init).value
    assert w.std() == pytest.approx(std, rel=0.01)
    assert abs(w.mean()) < 4 * std / math.sqrt(w.size)
    if bound is not None:
        assert 0.999 * bound < w.max() <= bound and -bound <= w.min() < -0.999 * bound


def test_constants() -> None:
    for init, value in ((gc.init.zeros(), 0), (gc.init.ones(), 1), (gc.init.constant(-7), -7), (2.5, 2.5)):
        np.testing.assert_array_equal(gc.param("w", (2, 3), init=init).value, np.full((2, 3), value))
    for dtype in ("float32", "float64", "int32", "int64", "uint8", "bool"):
        assert gc.state("s", (2,), init=1, dtype=dtype).value.dtype == dtype
    np.testing.assert_array_equal(gc.param("w", (2,), init=[1.0, 2.0]).value, [1, 2])


def test_values_depend_on_seed_and_name_alone() -> None:
    first = gc.param("w", SHAPE, init=gc.init.he_normal(), seed=3).value
    gc.param("other", SHAPE).value  # noqa: B018
    np.testing.assert_array_equal(gc.param("w", SHAPE, init=gc.init.he_normal(), seed=3).value, first)
    assert not np.array_equal(gc.param("v", SHAPE, init=gc.init.he_normal(), seed=3).value, first)
    assert not np.array_equal(gc.param("w", SHAPE, init=gc.init.he_normal(), seed=4).value, first)
    assert generator(-1, "w").integers(2**32) == generator(2**64 - 1, "w").integers(2**32)


def test_fans() -> None:
    assert fans((16, 6, 5, 5)) == (150, 400)
    assert fans((3, 4), "in_out") == (3, 4)
    with pytest.raises(AttributeValueError, match="no fans"):
        fans((3,))
    with pytest.raises(AttributeValueError, match="'out_in' or 'in_out'"):
        fans((3, 4), "io")
