"""What rewrite rules look for: each rule's own pattern, made of nodes, so that random graphs hold it often."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphc.ir.dims import Dim
from graphc.ir.graph import Value
from graphc.ir.op import OPS
from graphc.ir.types import TensorType
from graphc.passes.canonicalise import RULES as CANONICALISE_RULES
from graphc.passes.rewrite import LAST, PER_ROW, Application, Capture, Pattern, Rule
from graphc.passes.stability import RULES as STABILITY_RULES

from . import rules

if TYPE_CHECKING:
    from .generator import Growth

IDIOMS: tuple[Rule, ...] = tuple(
    rule for rule in (*CANONICALISE_RULES, *STABILITY_RULES) if isinstance(rule.patterns[0], Application)
)
FREELY = ("reshape", "transpose", "broadcast_to", "cast", "matmul", "einsum")  # attributes by the op's own rule


def idiom(g: Growth, rule: Rule) -> Value:
    """Nodes that one of the rule's patterns matches. Raises GraphcError or Unfit where that does not work out."""
    rank = g.choose([2, 3]) if "matmul" in rule.pattern or "transpose" in rule.pattern else 1
    kind = "i" if g.rng.random() < 0.15 else "f"
    like = g.pick(kind, rank=rank)
    if "broadcast_to" in rule.pattern and g.rng.random() < 0.4:
        like = g.builder.max(like, axes=tuple(range(like.type.rank)))  # a single number
    return Instance(g).value(g.choose(rule.patterns), like)


class Instance:
    """Makes nodes of a pattern; captures are values at hand, numbers are constants."""

    def __init__(self, g: Growth) -> None:
        self.g = g
        self.captures: dict[str, Value] = {}

    def value(self, pattern: Pattern, like: Value, keepdims: bool = False) -> Value:
        """The value of a pattern; a capture that is not known yet is `like`, or fits it."""
        g = self.g
        if isinstance(pattern, Capture):
            return self._captured(pattern.name, like)
        if not isinstance(pattern, Application):
            return g.builder.full(pattern.value, like.type)
        if pattern.op == PER_ROW:
            rows = self.value(pattern.args[0], like, keepdims=g.flip())
            wide = like.type.shape
            column = rows if rows.type.rank == len(wide) else g.builder.reshape(rows, shape=(*rows.type.shape, 1))
            return g.builder.broadcast(column, wide)
        if pattern.op in FREELY:
            return self._by_rule(pattern, like)
        if pattern.op == "gather":
            rows = self.value(pattern.args[0], like)
            return g.builder.gather(rows, g.indices(rows.type.shape[:-1], rows.type.shape[-1]))
        if pattern.op == "where":
            chosen = self.value(pattern.args[1], like)
            condition = g.builder.elementwise("gt", like, g.operand(like.type.dtype, like.type.shape))
            return g.builder.elementwise("where", condition, chosen, self.value(pattern.args[2], like))
        operands = [self.value(arg, like) for arg in pattern.args]
        if OPS[pattern.op].scalar:
            return g.builder.elementwise(pattern.op, *operands)
        attributes = self._attributes(pattern, operands[0], keepdims)
        return g.builder.apply(OPS[pattern.op], operands, attributes)  # type: ignore[return-value]

    def _captured(self, name: str, like: Value) -> Value:
        if name not in self.captures:
            others = [v for v in self.g.pool if v.type == like.type]
            self.captures[name] = like if not self.captures else self.g.choose([*others, like])
        return self.captures[name]

    def _attributes(self, pattern: Application, operand: Value, keepdims: bool) -> dict[str, Any]:
        given = {k: ((operand.type.rank - 1,) if v == LAST else v) for k, v in pattern.attributes}
        if "axes" in OPS[pattern.op].attributes:
            axes = given.setdefault("axes", rules.some_axes(self.g, operand.type.rank))
            given.setdefault("keepdims", keepdims or bool(axes != (operand.type.rank - 1,) and self.g.flip()))
        return given

    def _by_rule(self, pattern: Application, like: Value) -> Value:
        """An op whose attributes its own drawing rule chooses, with the first operand that the pattern asks for."""
        if pattern.op == "einsum":
            return rules.einsum(self.g, OPS["einsum"])
        operand = self.value(pattern.args[0], like)
        g, b = self.g, self.g.builder
        if pattern.op == "reshape":
            shape: list[Dim] = [*operand.type.shape]
            shape.insert(g.choose([0, len(shape)]), 1)
            return b.reshape(operand, shape=tuple(shape if g.flip() else shape[1:] if shape[0] == 1 else shape))
        if pattern.op == "transpose":
            order = list(range(operand.type.rank))
            order[-2:] = order[-2:][::-1]
            return b.transpose(operand, permutation=tuple(order))
        if pattern.op == "broadcast_to":
            extra = tuple(g.size() for _ in range(g.choose([0, 1, 2])) if operand.type.rank < 3)
            return b.broadcast_to(operand, shape=(*extra, *operand.type.shape))
        if pattern.op == "cast":
            return b.cast(operand, dtype=g.choose([operand.type.dtype, *rules.DTYPES[:4]]))
        other = pattern.args[1]
        needed = self.value(other, like) if isinstance(other, Application) else None
        if needed is None:
            shape = (*operand.type.shape[:-2], operand.type.shape[-1], g.size())
            needed = g.operand_of(TensorType(operand.type.dtype, shape))
        return b.matmul(operand, needed, transpose_b=needed.type.shape[-2] != operand.type.shape[-1])
