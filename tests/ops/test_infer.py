"""What the shape and dtype rules refuse, and that each message says what to do; what they allow with symbols."""

from __future__ import annotations

from typing import Any

import pytest

import graphc.ops  # noqa: F401  (fills the registry)
from graphc.errors import AttributeValueError, DTypeError, GraphcError, ShapeError
from graphc.ir.builder import Builder
from graphc.ir.dims import symbol
from graphc.ir.graph import Graph, Origin, Value
from graphc.ir.types import TensorType, bool_, f32, i32, tensor

N = symbol("N")


def apply(name: str, types: list[TensorType], **attributes: Any) -> Any:
    builder = Builder(Origin("net.fc", "train.py", 12))
    return getattr(builder, name)(*(Value(t, name=f"x{k}") for k, t in enumerate(types)), **attributes)


def f(*shape: int | str) -> TensorType:
    return tensor("f32", shape)


WINDOW = {"kernel": (2,), "stride": (2,), "padding": (0,), "dilation": (1,)}

BAD = [
    ("add", [f(2), f(3)], {}, ShapeError, r"shapes \[2\] and \[3\]; make them equal with broadcast_to"),
    ("add", [f(2)], {}, ShapeError, "takes 2 operands, got 1"),
    ("add", [f(2), tensor("i32", (2,))], {}, DTypeError, "dtypes f32 and i32; cast one"),
    ("mul", [tensor("bool", (2,))] * 2, {}, DTypeError, "operand 0 has dtype bool.*astype"),
    ("add", [tensor("u8", (2,))] * 2, {}, DTypeError, "u8.*astype"),
    ("exp", [tensor("i32", (2,))], {}, DTypeError, "dtype i32, not one of f32, f64"),
    ("div", [tensor("i64", (2,))] * 2, {}, DTypeError, "i64"),
    ("logical_not", [f(2)], {}, DTypeError, "not one of bool"),
    ("where", [f(2), f(2), f(2)], {}, DTypeError, "condition has dtype f32"),
    ("where", [tensor("bool", (3,)), f(2), f(2)], {}, ShapeError, r"\[3\] and \[2\]"),
    ("matmul", [f(4), f(4, 3)], {}, ShapeError, "two axes or more"),
    ("matmul", [f("N", 5), f(4, 3)], {}, ShapeError, r"inner sizes 5 and 4 of \[N,5\] and \[4,3\] differ"),
    ("matmul", [f(5, 2), f(5, 3)], {"transpose_b": True}, ShapeError, r"2 and 3 of \[5,2\] and \[3,5\] \(after trans"),
    ("matmul", [f(7, 2, 3), f(8, 3, 4)], {}, ShapeError, r"batch\) axes \[7\] and \[8\] differ"),
    ("matmul", [f(2, 3), tensor("f64", (3, 4))], {}, DTypeError, "f32 and f64"),
    ("sum", [f(2, 3)], {"axes": (2,)}, ShapeError, r"axis 2 is out of range for 2 axes \(allowed: -2 to 1\)"),
    ("sum", [f()], {"axes": (0,)}, ShapeError, "the operand is a scalar"),
    ("sum", [f(2, 3)], {"axes": (0, -2)}, ShapeError, "twice"),
    ("sum", [f(2, 3)], {}, AttributeValueError, "'axes'.*is missing"),
    ("sum", [f(2, 3)], {"axes": (0,), "axis": 1}, AttributeValueError, "unknown attribute 'axis'"),
    ("sum", [tensor("bool", (3,))], {"axes": (0,)}, DTypeError, "astype"),
    ("mean", [tensor("i32", (3,))], {"axes": (0,)}, DTypeError, "i32"),
    ("max", [f(2, 0)], {"axes": (1,)}, ShapeError, "size 0"),
    ("max", [f(2, 2)], {"axes": (0, 1), "ties": "first"}, AttributeValueError, "ties='first'"),
    ("max", [f(2, 2)], {"axes": (0,), "ties": "last"}, AttributeValueError, "ties='last'"),
    ("argmax", [f(2, 0)], {"axis": 1}, ShapeError, "size 0"),
    ("reshape", [f("N", 6)], {"shape": (N, 5)}, ShapeError, r"6\*N elements do not fill \[N,5\], which has 5\*N"),
    ("transpose", [f(2, 3)], {"permutation": (0, 0)}, ShapeError, "each of the 2 axes once"),
    ("transpose", [f(2, 3)], {"permutation": (1,)}, ShapeError, "each of the 2 axes once"),
    ("broadcast_to", [f(2, 3)], {"shape": (3, 3)}, ShapeError, r"\[2,3\] does not broadcast to \[3,3\]"),
    ("broadcast_to", [f(2, 3)], {"shape": (3,)}, ShapeError, "does not broadcast"),
    ("gather", [f("N", 10), f("N")], {}, DTypeError, "indices have dtype f32; they must be integers"),
    ("gather", [f("N", 10), tensor("i32", (5,))], {}, ShapeError, r"needs indices of shape \[N\].*got \[5\]"),
    ("gather", [f(), tensor("i32", ())], {}, ShapeError, "scalar"),
    ("one_hot", [f(3)], {"depth": 4}, DTypeError, "must be integers"),
    ("cross_entropy", [f("N", 10), f("N")], {}, DTypeError, "must be integers"),
    ("cross_entropy", [f("N", 10), tensor("i32", ("N", 10))], {}, ShapeError, r"needs indices of shape \[N\]"),
    ("cross_entropy", [f("N", 0), tensor("i32", ("N",))], {}, ShapeError, "no classes"),
    ("log_softmax", [f()], {}, ShapeError, "no classes"),
    ("log_softmax", [tensor("i32", (3,))], {}, DTypeError, "logits"),
    ("prod", [tensor("bool", (3,))], {"axes": (0,)}, DTypeError, "bool.*astype"),
    ("any", [f(3)], {"axes": (0,)}, DTypeError, "not one of bool"),
    ("argmin", [f(2, 0)], {"axis": 1}, ShapeError, "size 0"),
    ("var", [f(3)], {"axes": (0,), "correction": 3}, ShapeError, "3 elements less the correction 3"),
    ("std", [tensor("i32", (3,))], {"axes": (0,)}, DTypeError, "i32"),
    ("logsumexp", [f(0)], {"axes": (0,)}, ShapeError, "size 0"),
    ("cumsum", [f(3)], {"axis": 1}, ShapeError, "axis 1 is out of range"),
    ("ranks", [tensor("bool", (3,))], {"axis": 0}, DTypeError, "bool"),
    ("inverse_permutation", [f(3)], {"axis": 0, "size": 3}, DTypeError, "not one of i64"),
    ("slice", [f(5)], {"start": (3,), "shape": (3,), "step": (1,)}, ShapeError, "3 to 5 by 1 along axis 0 do not lie"),
    ("slice", [f(5)], {"start": (1,), "shape": (3,), "step": (-1,)}, ShapeError, "1 to -1 by -1 along axis 0 do not"),
    ("slice", [f(5)], {"start": (1,), "shape": (3,), "step": (0,)}, ShapeError, "step along axis 0 is 0"),
    ("slice", [f(5, 2)], {"start": (1,), "shape": (3,), "step": (1,)}, ShapeError, "1 starts, 1 steps"),
    ("slice", [f("N")], {"start": (2,), "shape": (N - 2,), "step": (1,)}, ShapeError, "for every size"),
    ("pad", [f(3)], {"start": (3,), "shape": (5,), "step": (1,)}, ShapeError, "3 to 5 by 1 .* within size 5"),
    ("pad", [tensor("i32", (3,))], {"start": (0,), "shape": (5,), "step": (1,), "value": 0.5}, DTypeError, "0.5"),
    ("concatenate", [], {"axis": 0}, ShapeError, "nothing to join"),
    ("concatenate", [f(2, 3), f(2, 4)], {"axis": 0}, ShapeError, r"\[2,3\] and operand 1 of \[2,4\] do not join"),
    ("concatenate", [f(2), tensor("i32", (2,))], {"axis": 0}, DTypeError, "f32 and i32; cast"),
    ("roll", [f(2, 3)], {"shifts": (1, 1), "axes": (0, -2)}, ShapeError, "twice"),
    ("take", [f(3), f(2)], {"axis": 0}, DTypeError, "indices have dtype f32.*cast"),
    ("take", [f(0, 2), tensor("i32", (2,))], {"axis": 0}, ShapeError, "size 0 has no elements to pick"),
    ("scatter_add", [f(3, 2), tensor("i32", (4,))], {"axis": 0, "size": 5}, ShapeError, "one update for each index"),
    ("scatter_add", [f(), tensor("i32", (2, 2))], {"axis": 0, "size": 5}, ShapeError, "fewer axes than the indices"),
    ("take_along_axis", [f(3, 2), tensor("i32", (1, 3))], {"axis": 0}, ShapeError, "differ in more than axis 0"),
    (
        "scatter_along_axis",
        [f(3), tensor("i32", (2,))],
        {"axis": 0, "size": 5},
        ShapeError,
        "one update for each index",
    ),
    ("einsum", [f(2, 3), f(3, 4)], {"equation": "ij,jk"}, AttributeValueError, "not of the form"),
    ("einsum", [f(2, 3), f(3, 4)], {"equation": "ij,jk->i"}, AttributeValueError, "axis 'k'.*stands alone"),
    ("einsum", [f(2, 2), f(2, 4)], {"equation": "ii,ij->j"}, AttributeValueError, "'ii' names an axis twice"),
    ("einsum", [f(2, 3), f(4, 5)], {"equation": "ij,jk->ik"}, ShapeError, "axis 'j' has size 3 .* and 4"),
    ("einsum", [f(2, 3), f(4)], {"equation": "ij,jk->ik"}, ShapeError, r"\[4\] has not the axes 'jk'"),
    ("uniform", [tensor("i64", (4,))], {"shape": (2,)}, DTypeError, r"random state, i64\[2\]"),
    ("grad", [f("N"), f(3)], {}, ShapeError, "must be a scalar: take its mean or sum"),
    ("grad", [f()], {}, ShapeError, "at least one value"),
    ("grad", [f(), tensor("i32", (3,))], {}, DTypeError, "value 0"),
    ("contract", [f(3), f(3)], {"equation": "i,i->i", "shape": (3,)}, AttributeValueError, "not of the form"),
    ("contract", [f(3), f(4)], {"equation": "[i] [i] -> [i]", "shape": (3,)}, ShapeError, "size 3 in operand 0 and 4"),
    ("contract", [f(3), f(4)], {"equation": "[i] [j] -> [i]", "shape": (3,)}, ShapeError, "'j' is in one tensor alone"),
    ("contract", [f(0), f(4)], {"equation": "[i+j] [j] -> [i]", "shape": (3,)}, ShapeError, "axis of size 0"),
    ("contract", [f(3), tensor("i32", (3,))], {"equation": "[i] [i] -> [i]", "shape": (3,)}, DTypeError, "f32 and i32"),
    ("max_pool", [f(2, 4)], {**WINDOW, "shape": (3, 2)}, ShapeError, "differ in the axes along which no window slides"),
    ("max_pool", [f(2, 4)], {**WINDOW, "shape": (2,)}, ShapeError, "need an entry for each of the last axes"),
    ("max_pool", [f(2, 4)], {**WINDOW, "stride": (2, 2), "shape": (2, 2)}, ShapeError, "need an entry for each"),
    ("max_pool", [f(2, 4)], {**WINDOW, "stride": (0,), "shape": (2, 2)}, AttributeValueError, "must be at least 1"),
    ("max_pool", [f(2, 0)], {**WINDOW, "shape": (2, 2)}, ShapeError, "axis of size 0"),
    ("max_pool", [tensor("bool", (2, 4))], {**WINDOW, "shape": (2, 2)}, DTypeError, "astype"),
    ("max_unpool", [f(2, 2), tensor("u8", (2, 3))], {**WINDOW, "shape": (2, 4)}, ShapeError, "not equal ones"),
    ("max_unpool", [f(2, 2), tensor("i32", (2, 2))], {**WINDOW, "shape": (2, 4)}, DTypeError, "number of the tap"),
    ("max_pick", [f(2, 4), tensor("i32", (2, 2))], WINDOW, DTypeError, "number of the tap"),
]


@pytest.mark.parametrize(("name", "types", "attributes", "error", "message"), BAD)
def test_bad_operands(
    name: str, types: list[TensorType], attributes: dict[str, Any], error: type[GraphcError], message: str
) -> None:
    with pytest.raises(error, match=f"(?s)^{name}\\(.*{message}") as caught:
        apply(name, types, **attributes)
    text = str(caught.value)
    assert "in module net.fc" in text and "declared at train.py:12" in text
    assert all(str(t) in text for t in types)


def test_symbols_pass_through() -> None:
    assert apply("matmul", [f("N", 5), f(7, 5)], transpose_b=True).type == f("N", 7)
    assert apply("mean", [f("N", 3)], axes=(-2,), keepdims=True).type == f(1, 3)
    assert apply("reshape", [f("N", 2, 3)], shape=(6 * N,)).type == f("6*N")
    assert apply("broadcast_to", [f(1, 3)], shape=(N, 3)).type == f("N", 3)
    assert apply("one_hot", [tensor("i32", ("N",))], depth=4, dtype=bool_).type == TensorType(bool_, (N, 4))
    assert apply("cross_entropy", [f("N", 4), tensor("u8", ("N",))]).type == f("N")
    assert apply("argmax", [f("N", 4)], axis=1).type == tensor("i64", ("N",))
    assert apply("sum", [tensor("i32", (3,))], axes=(0,)).type == TensorType(i32)


def test_fusion_takes_what_its_body_takes() -> None:
    x = Value(f(2), name="x")
    body = Graph("body", (x,), (Builder().exp(x),))
    assert apply("fusion", [f(2)], body=body).type == TensorType(f32, (2,))
    with pytest.raises(ShapeError, match=r"body's input x is f32\[2\], the operand is f32\[3\]"):
        apply("fusion", [f(3)], body=body)
    with pytest.raises(DTypeError, match="body's input x"):
        apply("fusion", [tensor("f64", (2,))], body=body)
