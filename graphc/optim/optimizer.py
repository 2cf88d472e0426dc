"""What all optimisers share: the learning rate as a runtime scalar, and state for each parameter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from graphc.dsl.symbol import Symbol
from graphc.dsl.transforms import gradients_of
from graphc.dsl.variables import Param, State, Variable, state
from graphc.errors import AttributeValueError, DefinitionError

UNUSED = "use the layer in forward, or remove the attribute (in a loop of your own: leave it out of the parameters)"


class Optimizer:
    """Turns a loss into updates: `gc.compile([x, t], [loss], updates=optimizer.updates(loss, parameters))`.

    `lr` can be read and set at any time; the next step of every program uses it, nothing is compiled again. An
    optimiser keeps its state (momenta) for each parameter and shares it among programs.
    """

    def __new__(cls, *arguments: Any, **options: Any) -> Optimizer:
        """Refuses parameters: PyTorch's optimisers are given them here, these with the loss."""
        given = [*arguments[:1], *(options[name] for name in ("params", "parameters") if name in options)]
        if given and isinstance(given[0], Iterable) and not isinstance(given[0], (str, np.ndarray)):
            raise AttributeValueError(
                f"optim.{cls.__name__} takes no parameters, a model's are found when it is compiled: "
                f"model.compile(loss=..., optimizer=optim.{cls.__name__}(lr)); in a loop of your own, "
                "optimizer.updates(loss, parameters)"
            )
        return super().__new__(cls)

    def __init__(self, lr: float) -> None:
        self._rate = _not_negative("lr", lr)
        self.lr_state = state("optimizer.lr", init=self._rate)
        self.lr_state.name_by_path("optimizer.lr")
        self._slots: dict[tuple[str, Param], State] = {}

    @property
    def lr(self) -> float:
        """The learning rate: the number that was set (not rounded to float32) unless a program has changed it."""
        stored = self.lr_state.value
        return self._rate if stored == stored.dtype.type(self._rate) else float(stored)

    @lr.setter
    def lr(self, rate: float) -> None:
        self.lr_state.value = self._rate = _not_negative("lr", rate)

    def updates(self, loss: Symbol, parameters: Sequence[Param]) -> dict[Variable, Symbol]:
        """The new values of the parameters and of the optimiser's own state after one step.

        Raises GradientError for a loss that is no scalar, or that does not reach a parameter.
        """
        found: dict[Variable, Symbol] = {}
        gradients = gradients_of(loss, list(parameters), UNUSED)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            found.update(self.step(parameter, gradient))
        return found | self.shared_updates() if found else found

    def step(self, parameter: Param, gradient: Symbol) -> dict[Variable, Symbol]:
        """The new values of one parameter and of its slots. Every optimiser defines this, else DefinitionError."""
        raise DefinitionError(f"the optimiser {type(self).__name__} does not define step; give it a method "
                              "`def step(self, parameter, gradient)` that returns {parameter: its new value}")

    def shared_updates(self) -> dict[Variable, Symbol]:
        """The new values of state that belongs to no one parameter, such as a count of steps."""
        return {}

    def slot(self, kind: str, parameter: Param) -> State:
        """State of the parameter's shape that starts with zeros: `fc.weight.momentum`."""
        key = (kind, parameter)
        if key not in self._slots:
            made = state(f"{parameter.name}.{kind}", parameter.static_shape, dtype=parameter.dtype)
            made.name_by_path(made.name)
            self._slots[key] = made
        return self._slots[key]

    def rate_for(self, parameter: Param) -> Symbol:
        """The learning rate in the parameter's dtype."""
        return self.lr_state.astype(parameter.dtype)


def _not_negative(name: str, value: float) -> float:
    if isinstance(value, str) or not 0 <= value < float("inf"):
        raise AttributeValueError(f"{name} must be a finite number of at least 0, got {value}")
    return float(value)


def check_not_negative(**values: float) -> None:
    """Raise AttributeValueError naming a value below 0 or not finite."""
    for name, value in values.items():
        _not_negative(name, value)


def check_below_one(**values: float) -> None:
    """Raise AttributeValueError naming a value outside 0 <= value < 1."""
    for name, value in values.items():
        if not 0 <= value < 1:
            raise AttributeValueError(f"{name} must lie in 0 ... 1 (1 excluded), got {value}")
