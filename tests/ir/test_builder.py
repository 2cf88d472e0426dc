"""The builder: inference, explicit broadcasting, errors that name op, operands and place."""

from __future__ import annotations

import numpy as np
import pytest

import graphc.ops  # noqa: F401  (fills the registry)
from graphc.errors import AttributeValueError, DTypeError, ShapeError
from graphc.ir.builder import Builder, broadcast_shapes, derived
from graphc.ir.dims import symbol
from graphc.ir.graph import NOWHERE, Origin, Value
from graphc.ir.types import f32, i32, tensor

N = symbol("N")


def value(*shape: int | str, dtype: str = "f32") -> Value:
    return Value(tensor(dtype, shape), name="x")


def test_nodes_have_inferred_types_full_attributes_and_the_origin() -> None:
    origin = Origin("fc", "train.py", 12)
    result = Builder(origin).matmul(value("N", 784), value(10, 784), transpose_b=True)
    assert result.type == tensor("f32", ("N", 10))
    assert dict(result.producer.attributes) == {"transpose_a": False, "transpose_b": True}
    assert result.origin == origin


def test_elementwise_inserts_broadcasts() -> None:
    b = Builder()
    result = b.elementwise("add", value("N", 10), value(10))
    assert result.type.shape == (N, 10)
    full, spread = result.producer.inputs
    assert full.producer is None
    assert spread.producer.op.name == "broadcast_to" and spread.producer.attributes["shape"] == (N, 10)
    same = b.elementwise("add", value(3), value(3))
    assert all(v.producer is None for v in same.producer.inputs)


def test_broadcast_shapes() -> None:
    assert broadcast_shapes([(N, 1), (10,)]) == (N, 10)
    assert broadcast_shapes([(), (2, 1), (1, 3)]) == (2, 3)
    assert broadcast_shapes([]) == ()
    with pytest.raises(ShapeError, match=r"shapes \[N\] and \[3\] do not broadcast: axis -1 has N and 3"):
        broadcast_shapes([(N,), (3,)])


def test_constants() -> None:
    b = Builder()
    assert b.constant(0.5, f32).type == tensor("f32") and b.constant([1, 2]).type == tensor("i64", (2,))
    filled = b.full(2, tensor("i32", ("N", 3)))
    assert filled.type == tensor("i32", ("N", 3)) and filled.producer.op.name == "broadcast_to"
    np.testing.assert_array_equal(filled.producer.inputs[0].producer.attributes["value"].array, np.int32(2))


def test_errors_name_op_operands_module_and_place() -> None:
    b = Builder(Origin("encoder.fc", "train.py", 12))
    with pytest.raises(ShapeError) as error:
        b.matmul(value("N", 3), value(4, 5))
    message = str(error.value)
    assert message.startswith("matmul(f32[N,3], f32[4,5]) in module encoder.fc: inner sizes 3 and 4")
    assert message.endswith("declared at train.py:12")
    with pytest.raises(ShapeError, match=r"add\(f32\[N\], f32\[3\]\) in module encoder.fc: shapes"):
        b.elementwise("add", value("N"), value(3))
    with pytest.raises(DTypeError, match=r"add\(f32\[3\], i32\[3\]\)"):
        b.add(value(3), value(3, dtype="i32"))


def test_unknown_ops_and_attributes() -> None:
    b = Builder()
    with pytest.raises(AttributeError, match="no op is called 'frobnicate'"):
        b.frobnicate(value(3))
    with pytest.raises(AttributeValueError, match="unknown attribute 'axis'; it takes: axes, keepdims"):
        b.sum(value(3), axis=0)
    with pytest.raises(AttributeValueError, match="attribute 'dtype' .* is missing"):
        b.cast(value(3))


def test_at_sets_the_origin_for_a_block() -> None:
    b, inner = Builder(), Origin("fc")
    with b.at(inner):
        assert b.neg(value(3)).origin == inner
    assert b.neg(value(3)).origin == NOWHERE
    assert derived(Origin("fc", "a.py", 1), "grad") == Origin("fc.grad", "a.py", 1)
    assert derived(NOWHERE, "grad").module == "grad"
    assert b.cast(value(3), dtype=i32).type == tensor("i32", (3,))
