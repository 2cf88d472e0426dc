"""Stochastic gradient descent."""

from __future__ import annotations

from graphc.dsl.symbol import Symbol
from graphc.dsl.variables import Param, Variable
from graphc.errors import AttributeValueError
from graphc.optim.optimizer import Optimizer, check_not_negative


class SGD(Optimizer):
    """Gradient descent with momentum m, Nesterov's variant and weight decay w:

        g' = g + w p;   b' = m b + g';   p' = p - lr b'          (Nesterov: p' = p - lr (g' + m b'))

    The buffer b starts with zeros, so that b' = g' in the first step. Source: torch.optim.SGD (dampening 0);
    I. Sutskever et al., On the importance of initialization and momentum in deep learning, 2013.
    """

    def __init__(
        self, lr: float = 1e-3, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0
    ) -> None:
        super().__init__(lr)
        check_not_negative(momentum=momentum, weight_decay=weight_decay)
        if nesterov and not momentum:
            raise AttributeValueError("SGD: nesterov needs a momentum above 0")
        self.momentum, self.nesterov, self.weight_decay = momentum, nesterov, weight_decay

    def step(self, parameter: Param, gradient: Symbol) -> dict[Variable, Symbol]:
        """The parameter and, with momentum, its buffer."""
        g = gradient + self.weight_decay * parameter if self.weight_decay else gradient
        rate = self.rate_for(parameter)
        if not self.momentum:
            return {parameter: parameter - rate * g}
        buffer = self.slot("momentum", parameter)
        new = self.momentum * buffer + g
        direction = g + self.momentum * new if self.nesterov else new
        return {parameter: parameter - rate * direction, buffer: new}
