"""Plans: the text, and the round trip through JSON."""

from __future__ import annotations

import json

from graphc.kernel.plan import Barrier, Buffer, Call, Check, Loop, Plan, Update
from graphc.kernel.plan_text import print_plan

PLAN = Plan(
    name="train",
    buffers=(
        Buffer("w", "f32", (784, 10), "variable", 0, 31360),
        Buffer("hidden", "f32", (64, 512), "arena", 4096, 131072, "N,512"),
        Buffer("x", "f32", (64, 784), "input", 0, 200704, "N,784"),
        Buffer("loss", "f32", (), "arena", 0, 4),
        Buffer("one", "f32", (), "constant", 0, 4),
    ),
    entries=(
        Call("forward", ("x", "w", "hidden"), ("N",)),
        Barrier(),
        Loop("t", 5, (Call("cell", ("hidden",)), Barrier()), (("x", 128),)),
    ),
    arena_bytes=135168,
    inputs=("x",),
    results=("loss",),
    variables=("w",),
    constants=("one",),
    extents={"N": 64},
    updates=(Update("w", "hidden"),),
    written=("w",),
    checks=(Check("labels", 0, 10, "loss  train.py:3"),),
)

TEXT = """plan train where N <= 64 {
  arena 135168 bytes
  memory {
    loss    f32[]                   arena     0 .. 4
    hidden  f32[64,512] as [N,512]  arena     4096 .. 135168
    x       f32[64,784] as [N,784]  input     0 .. 200704
    w       f32[784,10]             variable  #0, 31360 bytes
    one     f32[]                   constant  #0, 4 bytes
  }
  table {
    forward(x, w, hidden) where N
    barrier
    loop t < 5, x by 128 bytes {
      cell(hidden)
      barrier
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
    assert [call.kernel for call in PLAN.calls()] == ["forward", "cell"]
    assert PLAN.buffer("w").nbytes == 31360
