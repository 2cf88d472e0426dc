"""Dead outputs and operands."""

from __future__ import annotations

from collections.abc import Callable

from graphc.ir.text import parse
from graphc.passes.dce import DCE


def test_unread_outputs_of_a_fusion_go_with_all_that_only_they_needed(rewrites_to: Callable) -> None:
    result = rewrites_to(
        DCE(),
        """graph g(%x: f32[N], %y: f32[N], %z: f32[N]) -> f32[N] {
          %unread = tanh(%z)
          %a, %b, %c = fusion(%x, %y, %unread, body=graph body(
            %p: f32[N], %q: f32[N], %r: f32[N]
          ) -> (f32[N], f32[N], f32[N]) {
            %0 = exp(%p)
            %1 = sub(%r, %p)
            %2 = neg(%0)
            return %0, %1, %2
          })
          return %c
        }""",
        """graph g(%x: f32[N], %y: f32[N], %z: f32[N]) -> f32[N] {
          %a = fusion(%x, body=graph body(%p: f32[N]) -> f32[N] {
            %0 = exp(%p)
            %1 = neg(%0)
            return %1
          })
          return %a
        }""",
    )
    assert [(r.rule, r.before, r.after) for r in result.rewrites] == [
        ("dead_output", "fusion of 3 operands with 3 outputs", "fusion of 1 operands with 1 outputs"),
        ("dead_node", "tanh", "nothing"),
    ]
    assert result.rewrites[0].why == "nothing reads the others; gone from its body: sub"


def test_operands_that_the_body_does_not_read(rewrites_to: Callable) -> None:
    rewrites_to(
        DCE(),
        """graph g(%x: f32[N], %y: f32[N]) -> f32[N] {
          %a = fusion(%x, %y, body=graph body(%p: f32[N], %q: f32[N]) -> f32[N] {
            %0 = exp(%q)
            return %0
          })
          return %a
        }""",
        """graph g(%x: f32[N], %y: f32[N]) -> f32[N] {
          %a = fusion(%y, body=graph body(%q: f32[N]) -> f32[N] {
            %0 = exp(%q)
            return %0
          })
          return %a
        }""",
    )


def test_the_anchors_keep_naming_their_nodes() -> None:
    text = """graph g(%x: f32[N]) -> f32[N] {{
      %a, %b = fusion(%x, body=graph body(%p: f32[N]) -> (f32[N], f32[N]) {{
        %0 = exp(%p)
        %1 = neg(%p)
        return %0, %1
      }}, anchors=[{}])
      return %b
    }}"""
    after = DCE()(parse(text.format("0,1"))).graph
    (fusion,) = after.nodes
    assert fusion.attributes["anchors"] == (0,) and [n.op.name for n in fusion.attributes["body"].nodes] == ["neg"]
    graph = parse(text.format(0))  # without an anchor the kernel would have no shape
    assert DCE()(graph).graph is graph


def test_gradients_that_nobody_asks_for(rewrites_to: Callable) -> None:
    result = rewrites_to(
        DCE(),
        """graph g(%x: f32[N], %y: f32[N]) -> f32[N] {
          %0 = mul(%x, %y)
          %l = sum(%0, axes=[0])
          %a, %b = grad(%l, %x, %y)
          return %b
        }""",
        """graph g(%x: f32[N], %y: f32[N]) -> f32[N] {
          %0 = mul(%x, %y)
          %l = sum(%0, axes=[0])
          %b = grad(%l, %y)
          return %b
        }""",
    )
    assert result.rewrites[0].before == "grad of 3 operands with 2 outputs"


def test_what_is_all_needed_stays(rewrites_to: Callable) -> None:
    text = """graph g(%x: f32[N], %unused: f32[N]) -> (f32[N], f32[N]) {
      %a, %b = fusion(%x, body=graph body(%p: f32[N]) -> (f32[N], f32[N]) {
        %0 = exp(%p)
        %1 = neg(%0)
        return %0, %1
      })
      %c = tanh(%b)
      return %a, %c
    }"""
    rewrites_to(DCE(), text, text)
