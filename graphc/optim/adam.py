"""Adam."""

from __future__ import annotations

import math

from graphc.dsl import elementwise
from graphc.dsl.symbol import Symbol
from graphc.dsl.variables import Param, Variable, state
from graphc.optim.optimizer import Optimizer, check_below_one, check_not_negative


class Adam(Optimizer):
    """Adaptive moments, with bias correction by the count t of steps (from 1) and weight decay w in the gradient:

        g' = g + w p;   m' = b1 m + (1 - b1) g';   v' = b2 v + (1 - b2) g'^2
        p' = p - lr / (1 - b1^t) * m' / (sqrt(v') / sqrt(1 - b2^t) + eps)

    Source: D. Kingma, J. Ba, Adam: a method for stochastic optimization, 2015; torch.optim.Adam.
    """

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(lr)
        check_below_one(beta1=betas[0], beta2=betas[1])
        check_not_negative(eps=eps, weight_decay=weight_decay)
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self.steps = state("optimizer.steps", dtype="int64")
        self.steps.name_by_path("optimizer.steps")

    def step(self, parameter: Param, gradient: Symbol) -> dict[Variable, Symbol]:
        """The parameter and its two moments."""
        beta1, beta2 = self.betas
        g = gradient + self.weight_decay * parameter if self.weight_decay else gradient
        first, second = self.slot("first_moment", parameter), self.slot("second_moment", parameter)
        m = beta1 * first + (1 - beta1) * g
        v = beta2 * second + (1 - beta2) * (g * g)
        t = (self.steps + 1).astype(parameter.dtype)
        rate = self.rate_for(parameter) / _one_minus_power(beta1, t)
        spread = elementwise.sqrt(v) / elementwise.sqrt(_one_minus_power(beta2, t)) + self.eps
        return {parameter: parameter - rate * m / spread, first: m, second: v}

    def shared_updates(self) -> dict[Variable, Symbol]:
        """The count of steps."""
        return {self.steps: self.steps + 1}


def _one_minus_power(beta: float, t: Symbol) -> Symbol | float:
    """1 - beta^t, by expm1: the difference of 1 and 0.999 would have four correct digits in float32."""
    return -elementwise.expm1(t * math.log(beta)) if beta else 1.0
