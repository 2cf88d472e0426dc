"""Plans: the text, and the round trip through JSON."""

from __future__ import annotations

import json

from graphc.kernel.plan import (
    Barrier,
    Branch,
    Buffer,
    Call,
    Check,
    Entry,
    Loop,
    Peak,
    Plan,
    Preparation,
    Update,
    While,
    nested,
    walk,
    with_nested,
)
from graphc.kernel.plan_text import print_plan

PLAN = Plan(
    name="train",
    buffers=(
        Buffer("w", "f32", (784, 10), "variable", 0, 31360),
        Buffer("hidden", "f32", (64, 512), "scratch", 4096, 131072, "N,512"),
        Buffer("x", "f32", (64, 784), "input", 0, 200704, "N,784"),
        Buffer("loss", "f32", (), "scratch", 0, 4),
        Buffer("one", "f32", (), "constant", 0, 4),
        Buffer("row", "f32", (10,), "variable", 0, 40, start=31320),
        Buffer("go", "bool", (), "scratch", 64, 1),
        Buffer("packed", "f32", (64,), "prepared", 135168, 256),
        Buffer("half", "f32", (32,), "prepared", 135296, 128),
        Buffer("v", "f32", (64,), "variable", 1, 256),
    ),
    entries=(
        Call("forward", ("x", "w", "hidden"), ("N",)),
        Barrier(),
        Loop(
            "t",
            5,
            (Call("cell", ("hidden",)), Barrier(), Branch("go", (Call("reset", ("hidden",)),))),
            (("x", 128),),
        ),
        Branch("go", (Call("left", ("loss",)),), (Call("right", ("loss",)),)),
        While("search", (Call("test", ("loss", "go")),), "go", (Call("halve", ("loss",)),), 20),
        While("forever", (), "go", ()),
    ),
    arena_bytes=135424,
    inputs=("x",),
    results=("loss",),
    variables=("w", "v"),
    constants=("one",),
    extents={"N": 64},
    updates=(Update("w", "hidden"),),
    written=("w",),
    checks=(Check("labels", 0, 10, "loss  train.py:3"),),
    peak=Peak(131136, "forward", ("go", "hidden"), 331840),
    preparations=(Preparation(("v",), (Call("pack", ("v", "packed")),)), Preparation((), (Loop("i", 2, ()),))),
)

TEXT = """plan train where N <= 64 {
  arena 135424 bytes, for values of 331840 bytes, 256 kept between calls
  peak 131136 bytes at forward: hidden, go
  memory {
    loss    f32[]                   scratch   0 .. 4
    go      bool[]                  scratch   64 .. 65
    hidden  f32[64,512] as [N,512]  scratch   4096 .. 135168
    packed  f32[64]                 prepared  135168 .. 135424
    half    f32[32]                 prepared  135296 .. 135424
    x       f32[64,784] as [N,784]  input     0 .. 200704, +128 each t
    row     f32[10]                 variable  #0, 40 bytes from 31320
    w       f32[784,10]             variable  #0, 31360 bytes
    v       f32[64]                 variable  #1, 256 bytes
    one     f32[]                   constant  #0, 4 bytes
  }
  prepare when v changed {
    pack(v, packed)
  }
  prepare once {
    loop i < 2 {
    }
  }
  table {
    forward(x, w, hidden) where N
    barrier
    loop t < 5 {
      cell(hidden)
      barrier
      if go {
        reset(hidden)
      }
    }
    if go {
      left(loss)
    } else {
      right(loss)
    }
    repeat search at most 20 times {
      test(loss, go)
      leave unless go
      halve(loss)
    }
    repeat forever {
      leave unless go
    }
  }
  inputs x
  results loss
  written w
  check 0 <= labels < 10  # loss  train.py:3
  update w = hidden
}
"""


def test_text() -> None:
    assert print_plan(PLAN) == TEXT


def test_empty_plan() -> None:
    assert print_plan(Plan("none", (), (), 0, (), (), ())) == (
        "plan none {\n  arena 0 bytes\n  memory {\n  }\n  table {\n  }\n}\n"
    )


def test_json_round_trip() -> None:
    assert Plan.from_json(json.loads(json.dumps(PLAN.to_json()))) == PLAN
    assert [call.kernel for call in PLAN.calls()] == "pack forward cell reset left right test halve".split()


def test_how_often_calls_run() -> None:
    counts = [(call.kernel, least, most) for call, least, most in PLAN.call_counts()]
    assert counts == [
        ("pack", 0, 1), ("forward", 1, 1), ("cell", 5, 5), ("reset", 0, 5), ("left", 0, 1), ("right", 0, 1),
        ("test", 1, 20), ("halve", 0, 20),
    ]  # fmt: skip
    forever = While("w", (Call("a", ()),), "go", (Loop("t", 3, (Call("b", ()),)),))
    never = While("w", (Call("a", ()),), "go", (Call("b", ()),), 0)
    plan = Plan("p", (), (Loop("t", 2, (forever,)), never), 0, (), (), ())
    assert [c[1:] for c in plan.call_counts()] == [(2, None), (0, None), (0, 0), (0, 0)]


def test_entries_within_entries() -> None:
    assert len(list(walk(PLAN.entries))) == 14
    for entry in walk(PLAN.entries):
        assert with_nested(entry, nested(entry)) == entry
    loop: Entry = PLAN.entries[4]
    assert with_nested(loop, [(), (Barrier(),)]) == While("search", (), "go", (Barrier(),), 20)
    assert PLAN.buffer("w").nbytes == 31360
