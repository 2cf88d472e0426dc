"""The textual form: what it looks like, that it reads back, and what its errors say."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc.ops  # noqa: F401  (fills the registry)
from graphc.errors import ParseError
from graphc.ir.builder import Builder
from graphc.ir.dims import symbol
from graphc.ir.graph import NOWHERE, Graph, Literal, Node, Origin, Value
from graphc.ir.op import ATTRIBUTE_KINDS, OPS, Attribute, Op, Sample
from graphc.ir.text import format_attribute, format_literal, parse, print_graph, print_lines, value_names
from graphc.ir.types import TensorType, as_dtype, f32, f64, tensor

SAMPLES = [
    pytest.param(op, sample, id=f"{op.name}-{k}")
    for op in OPS.values()
    if op.samples is not None
    for k, sample in enumerate(op.samples())
]

MLP = """\
graph mlp(%x: f32[N,784], %fc.weight: f32[10,784], %fc.bias: f32[10]) -> f32[N,10] {
  %0 = matmul(%x, %fc.weight, transpose_b=true) : f32[N,10]   # fc  train.py:12
  %1 = broadcast_to(%fc.bias, shape=[N,10]) : f32[N,10]       # fc  train.py:12
  %2 = add(%0, %1) : f32[N,10]                                # fc  train.py:12
  return %2
}"""


def origins(graph: Graph) -> list[Origin]:
    return [node.origin for node in graph.nodes]


def round_trip(graph: Graph) -> str:
    text = print_graph(graph)
    again = parse(text)
    assert again == graph
    assert origins(again) == origins(graph)
    assert print_graph(again) == text
    return text


def of_sample(op: Op, sample: Sample) -> Graph:
    arrays = [np.asarray(a) for a in sample.inputs]
    inputs = tuple(Value(TensorType(as_dtype(a.dtype), a.shape), name=f"x{k}") for k, a in enumerate(arrays))
    result = Builder(Origin("block.fc", "net.py", 7)).apply(op, inputs, dict(sample.attributes))
    return Graph(op.name, inputs, (result,) if isinstance(result, Value) else result)


# ------------------------------------------------------------------------------------------- printing


def test_the_sample_of_the_documentation() -> None:
    x, w, bias = (
        Value(tensor("f32", s), name=n) for n, s in (("x", ("N", 784)), ("fc.weight", (10, 784)), ("fc.bias", (10,)))
    )
    b = Builder(Origin("fc", "train.py", 12))
    graph = Graph("mlp", (x, w, bias), (b.elementwise("add", b.matmul(x, w, transpose_b=True), bias),))
    assert round_trip(graph) == MLP


def test_long_headers_take_a_line_for_each_input() -> None:
    inputs = tuple(Value(tensor("f32", ("N", 100)), name=f"layer{k}.weight") for k in range(6))
    text = round_trip(Graph("wide", inputs, inputs[:1]))
    assert text.startswith("graph wide(\n    %layer0.weight: f32[N,100],\n    %layer1.weight")
    assert text.endswith("layer5.weight: f32[N,100]\n) -> f32[N,100] {\n  return %layer0.weight\n}")


def test_several_outputs_and_none() -> None:
    x = Value(tensor("f32", ("N",)), name="x")
    text = round_trip(Graph("g", (x,), (Builder().neg(x), x, x)))
    assert text.splitlines()[0] == "graph g(%x: f32[N]) -> (f32[N], f32[N], f32[N]) {"
    assert text.splitlines()[2] == "  return %0, %x, %x"
    assert round_trip(Graph("nothing", (), ())) == "graph nothing() -> () {\n  return\n}"


@pytest.mark.parametrize(
    "name",
    ["0", "12", "0.weight", "a b", 'quo"te', "back\\slash", "θ.W", "%x", "-x", "", "a\nb", "x:0", "return", "none"],
)
def test_any_name_reads_back(name: str) -> None:
    x = Value(tensor("f32", ("N",)), name=name)
    round_trip(Graph(name, (x,), (Builder().exp(x),)))


def test_places_stand_in_columns_and_read_back() -> None:
    x = Value(tensor("f32", ("N",)), name="x")
    places = [
        Origin("a", "f.py", 1),
        NOWHERE,
        Origin("encoder.layer", "", 0),
        Origin("", "my file.py", 30),
        Origin("b.c", "f.py", 2),
    ]
    value = x
    for place in places:
        value = Builder(place).neg(value)
    lines = round_trip(Graph("g", (x,), (value,))).splitlines()
    assert lines[1:6] == [
        "  %0 = neg(%x) : f32[N]   # a    f.py:1",
        "  %1 = neg(%0) : f32[N]",
        "  %2 = neg(%1) : f32[N]   # encoder.layer",
        "  %3 = neg(%2) : f32[N]   #      my file.py:30",
        "  %4 = neg(%3) : f32[N]   # b.c  f.py:2",
    ]


def test_without_origins_and_with_other_names() -> None:
    graph = parse(MLP)
    assert "#" not in print_graph(graph, origins=False)
    assert parse(print_graph(graph, origins=False)) == graph
    names = {v: f"v{n}" if v.producer else n for v, n in value_names(graph).items()}
    assert "%v2 = add(%v0, %v1) : f32[N,10]" in print_graph(graph, names)
    unaligned = [line for line, _ in print_lines(graph, align=False)]
    assert unaligned[3] == "  %2 = add(%0, %1) : f32[N,10]   # fc  train.py:12"


def test_lines_know_their_nodes() -> None:
    graph = parse(MLP)
    assert [node for _, node in print_lines(graph)] == [None, *graph.nodes, None, None]


def nested() -> Graph:
    a, c = (Value(tensor("f32", ("N",)), name=n) for n in "ac")
    inside = Builder(Origin("fc", "net.py", 3))
    body = Graph("mul_exp", (a, c), (inside.exp(inside.mul(a, c)), inside.neg(a)))
    x = Value(tensor("f32", ("N",)), name="x")
    first, second = Builder(Origin("fc")).fusion(x, x, body=body, anchors=(0,))
    return Graph("outer", (x,), (Builder().add(first, second),))


def test_nested_graphs_are_indented_in_braces() -> None:
    text = round_trip(nested())
    lines = text.splitlines()
    assert lines[1] == "  %0, %1 = fusion(%x, %x, body=graph mul_exp(%a: f32[N], %c: f32[N]) -> (f32[N], f32[N]) {"
    assert lines[2] == "    %0 = mul(%a, %c) : f32[N]   # fc  net.py:3"
    assert lines[5] == "    return %1, %2"
    assert lines[6].startswith("  }") and lines[6].endswith(") : f32[N], f32[N]   # fc")
    body = parse(text).nodes[0].attributes["body"]
    assert [n.origin for n in body.nodes] == [Origin("fc", "net.py", 3)] * 3
    assert "#" not in print_graph(nested(), origins=False)


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("int", -3, "-3"),
        ("ints", (0, -1), "[0,-1]"),
        ("ints", (), "[]"),
        ("bool", True, "true"),
        ("float", 0.1, "0.1"),
        ("float", 1e-300, "1e-300"),
        ("float", float("-inf"), "-inf"),
        ("float", 2, "2.0"),
        ("str", 'a "b" #\n', '"a \\"b\\" #\\n"'),
        ("dtype", f64, "f64"),
        ("shape", (symbol("N"), 3, 2 * symbol("N") - 1), "[N,3,2*N-1]"),
        ("shape", (), "[]"),
        ("dim", symbol("N") * symbol("M"), "M*N"),
        ("literal", Literal.of(np.float32(0.1)), "f32 0.1"),
        ("graph", nested(), None),
        ("int", None, "none"),
    ],
)
def test_attribute_kinds(kind: str, value: Any, text: str | None) -> None:
    assert text is None or format_attribute(kind, value) == text
    op = Op(
        "probe", "d", "l", infer=lambda types, attributes: (tensor("f32"),), attributes={"a": Attribute(kind, "an a")}
    )
    OPS["probe"] = op
    try:
        node = Node(op, (), MappingProxyType({"a": value}), (tensor("f32"),))
        round_trip(Graph("g", (), node.outputs))
        default = replace(op, attributes={"a": Attribute(kind, "an a", value)})
        OPS["probe"] = default
        node = Node(default, (), MappingProxyType({"a": value}), (tensor("f32"),))
        assert "probe()" in round_trip(Graph("g", (), node.outputs))
    finally:
        del OPS["probe"]


def test_every_attribute_kind_was_tried() -> None:
    (mark,) = test_attribute_kinds.pytestmark
    assert {case[0] for case in mark.args[1]} == set(ATTRIBUTE_KINDS)


# ------------------------------------------------------------------------------------------- literals

NAN_WITH_PAYLOAD = np.frombuffer(np.uint32(0x7FC00123).tobytes(), np.float32)


@pytest.mark.parametrize(
    "array",
    [
        np.float32(np.pi),
        np.float32(1e-45),
        np.float64(0.1),
        np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, 1e38], np.float32),
        NAN_WITH_PAYLOAD,
        -np.array([np.nan]),
        np.array(-(2**63)),
        np.array([[1, 2], [-3, 4]], np.int32),
        np.array([0, 255], np.uint8),
        np.array([[True], [False]]),
        np.array(True),
        np.zeros((0,)),
        np.zeros((2, 0, 3), np.float32),
        np.zeros((0, 5), bool),
        np.arange(1000.0),
        np.arange(33, dtype=np.uint8),
    ],
    ids=str,
)
def test_literals_are_exact(array: np.ndarray) -> None:
    graph = Graph("g", (), (Builder().constant(array),))
    read = parse(print_graph(graph)).nodes[0].attributes["value"]
    assert read == Literal.of(array) and read.data == np.asarray(array).tobytes()


def test_small_literals_are_readable_and_large_ones_short() -> None:
    assert (
        format_literal(Literal.of(np.array([[1.5, 2], [3, np.nan]], np.float32))) == "f32[2,2] [[1.5, 2.0], [3.0, nan]]"
    )
    assert format_literal(Literal.of(np.array(7))) == "i64 7"
    assert format_literal(Literal.of(NAN_WITH_PAYLOAD)) == 'f32[1] base64 "IwHAfw=="'
    assert len(format_literal(Literal.of(np.zeros(3000, np.uint8)))) < 4100


@given(st.lists(st.floats(width=32), min_size=1, max_size=8))
def test_any_float32_reads_back(values: list[float]) -> None:
    test_literals_are_exact(np.array(values, np.float32))


@given(st.lists(st.floats(), min_size=1, max_size=8))
def test_any_float64_reads_back(values: list[float]) -> None:
    test_literals_are_exact(np.array(values))


# ---------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize(("op", "sample"), SAMPLES)
def test_every_sample_of_every_op_reads_back(op: Op, sample: Sample) -> None:
    text = round_trip(of_sample(op, sample))
    assert f"= {op.name}(" in text and "# block.fc  net.py:7" in text


def test_gradients_read_back() -> None:
    x = Value(tensor("f32", ("N",)), name="x")
    loss = Builder().sum(x, axes=(0,))
    text = round_trip(Graph("g", (x,), (Builder().grad(loss, x),)))
    assert "%1 = grad(%0, %x) : f32[N]" in text


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Random well-typed graphs: nodes from the registry's samples, operands from whatever has the right type."""
    cases = [case.values for case in SAMPLES]
    inputs: list[Value] = []
    pool: list[Value] = []
    texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=6)
    for _ in range(draw(st.integers(1, 12))):
        op, sample = draw(st.sampled_from(cases))
        operands = []
        for array in map(np.asarray, sample.inputs):
            type_ = TensorType(as_dtype(array.dtype), array.shape)
            known = [v for v in pool if v.type == type_]
            if known and draw(st.booleans()):
                operands.append(draw(st.sampled_from(known)))
            else:
                operands.append(Value(type_, name=f"{draw(texts)}{len(inputs)}"))
                inputs.append(operands[-1])
        module = draw(st.sampled_from(["", "fc", "encoder.0.fc"]))
        origin = Origin(module, "train.py", draw(st.integers(1, 99))) if draw(st.booleans()) else Origin(module)
        result = Builder(origin).apply(op, operands, dict(sample.attributes))
        pool.extend((result,) if isinstance(result, Value) else result)
    outputs = draw(st.lists(st.sampled_from([*pool, *inputs]), max_size=4))
    return Graph(draw(texts), tuple(inputs), tuple(outputs))


@settings(max_examples=60)
@given(graphs())
def test_random_graphs_read_back(graph: Graph) -> None:
    round_trip(graph)


PRINT_MANY = """
import graphc.ops
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Value
from graphc.ir.text import print_graph
from graphc.ir.types import tensor
b = Builder()
xs = tuple(Value(tensor("f32", ("N", "M")), name=f"x{k}") for k in range(9))
values = [b.exp(b.mul(x, y)) for x in xs for y in xs]
print(print_graph(Graph("g", xs, tuple(b.sum(b.add(u, v), axes=(0,)) for u, v in zip(values, values[::-1])))))
"""


def test_text_does_not_depend_on_the_process() -> None:
    texts = set()
    for seed in ("0", "1", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        run = subprocess.run([sys.executable, "-c", PRINT_MANY], env=environment, capture_output=True, check=True)
        texts.add(run.stdout)
    assert len(texts) == 1 and texts.pop().count(b"exp") == 81


# ------------------------------------------------------------------------------------ hand-written text


def test_types_may_be_left_out_and_values_named() -> None:
    graph = parse("""
        # a comment on a line of its own
        graph g(%x: f32[N, 784],   # the images
                %w: f32[10, 784]) -> f32[N, 10] {
          %hidden = matmul(%x, %w, transpose_b = true)
          %out = relu(%hidden)
          return %out
        }
    """)
    assert [n.op.name for n in graph.nodes] == ["matmul", "relu"]
    assert "%1 = relu(%0) : f32[N,10]" in print_graph(graph)


def body(line: str, result: str = "%0") -> str:
    return f"graph g(%x: f32[N,3], %t: i32[N]) -> f32[N,3] {{\n  {line}\n  return {result}\n}}"


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("", "line 1, column 1", "expected 'graph', found the end of the text"),
        ("graph g(%x f32[N])", "line 1, column 12", "expected ':', found \"f32[N])\""),
        ("graph g(%x: f33[N])", "line 1, column 13", "expected a dtype (f32, f64, i32, i64, u8, bool)"),
        ("graph g(%x: f32[N, %x])", "line 1, column 20", "expected a dimension such as 784, N or 2*N+1"),
        ("graph g(%x: f32[N], %x: f32[N])", "line 1, column 21", "%x is defined twice"),
        ("graph g() -> () {\n  return\n} x", "line 3, column 3", "expected the end of the text"),
        ("graph g() -> () {\n  return ! }", "line 2, column 10", "expected a name, a number or punctuation"),
        ("graph g(%x: f32[N]) -> f32[M] { return %x }", "line 1, column 40", "declares the outputs f32[M], returned"),
        (body("%0 = exq(%x)"), "line 2, column 8", "no op is called 'exq'"),
        (body("%0 = exp(%y)"), "line 2, column 12", "%y is not defined before this line"),
        (body("%0 = exp(%0)"), "line 2, column 12", "%0 is not defined before this line"),
        (body("%0 = exp(%x, fast=true)"), "line 2, column 16", "'fast' is unknown; exp takes: none"),
        (body("%0 = sum(%x, axes=[0], axes=[1])"), "line 2, column 26", "'axes' is twice"),
        (body("%0 = sum(%x)"), "line 2, column 8", "sum(f32[N,3]): sum: attribute 'axes'"),
        (body("%0 = sum(%x, axes=[5])"), "line 2, column 8", "axis 5 is out of range"),
        (body("%0 = sum(%x, axes=[0.5])"), "line 2, column 22", "expected an integer"),
        (body("%0 = sum(%x, axes=[0], keepdims=1)"), "line 2, column 35", "expected true or false"),
        (body("%0 = add(%x, %t)"), "line 2, column 8", "add(f32[N,3], i32[N])"),
        (body("%0 = exp(%x) : f32[N]"), "line 2, column 16", "exp gives f32[N,3], not f32[N]"),
        (body("%0, %1 = exp(%x)"), "line 2, column 3", "exp has 1 outputs, 2 are named"),
        (body("%0 = exp(%x)", "%x"), "line 2, column 3", "nothing reads this node"),
        (body("%0 = exp(%x)\n  %0 = exp(%x)"), "line 3, column 3", "%0 is defined twice"),
        (
            body("%0 = constant(value=f32[2] [1, 2, 3])"),
            "line 2, column 30",
            "3 elements where the literal's shape says 2",
        ),
        (body("%0 = constant(value=i32 1.5)"), "line 2, column 23", "the elements do not fit i32[]"),
        (body("%0 = constant(value=u8 256)"), "line 2, column 23", "the elements do not fit u8[]"),
        (body("%0 = constant(value=f32[N] [1])"), "line 2, column 23", "expected a literal's shape, without symbols"),
        (body('%0 = constant(value=f32[2] base64 "AAAA")'), "line 2, column 37", "base64 of the 8 bytes"),
        (body('%0 = constant(value=f32[2] base64 "!")'), "line 2, column 37", "base64 of the 8 bytes"),
        (body('%0 = max(%x, axes=[0], ties="\\q")'), "line 2, column 31", "not a string"),
        (body("%0 = exp(%x,)"), "line 2, column 15", "expected an operand or an attribute"),
    ],
)
def test_errors_say_where_and_what(text: str, place: str, message: str) -> None:
    with pytest.raises(ParseError) as error:
        parse(text)
    first, source, marker = str(error.value).split("\n")
    assert first.startswith(f"{place}: ") and message in first
    column = int(place.rpartition(" ")[2])
    assert marker.index("^") == column + 1  # under the character of the source line, which is indented by two
    assert source[2:] in text


@given(st.integers(0, len(MLP) - 1), st.sampled_from(["", "(", "%", "]", '"', "graph", "#", "\x00"]))
def test_damaged_text_is_an_error_or_a_graph(position: int, insertion: str) -> None:
    try:
        parse(MLP[:position] + insertion + MLP[position + 1 :])
    except ParseError:
        pass


def test_f32_is_written_with_its_own_digits() -> None:
    assert "value=f32 0.1)" in print_graph(Graph("g", (), (Builder().constant(0.1, f32),)))
