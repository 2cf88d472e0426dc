"""Tracing modules: train or eval, the paths of modules, and the updates of their state.

Whether layers behave as in training is an argument of a trace, not a switch on the model:

    with nn.trace(model, train=True) as traced:
        loss = gc.cross_entropy(model(x), t)
    step = gc.compile([x, t], [loss], updates={**optimizer.updates(loss, model.parameters()), **traced.updates})

Outside such a block modules are traced as in evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from graphc.dsl import origin
from graphc.dsl.regions import refuse
from graphc.dsl.symbol import Symbol
from graphc.dsl.variables import State
from graphc.errors import StateError


class Named(Protocol):
    """A module, as far as tracing needs to know it."""

    def named_modules(self) -> list[tuple[str, Any]]:
        """Each module of the tree once, with its path."""


@dataclass
class Trace:
    """One tracing of one or more modules: what layers read (`train`, `paths`) and what they leave."""

    train: bool
    paths: dict[Any, str] = field(default_factory=dict)
    updates: dict[State, Symbol] = field(default_factory=dict)
    results: dict[Any, Any] = field(default_factory=dict)  # module -> what its last call returned

    def adopt(self, root: Named) -> None:
        """Learn the paths of a tree of modules."""
        for path, module in root.named_modules():
            self.paths.setdefault(module, path)

    def path_of(self, module: Named) -> str:
        """The module's path below the first root under which it was met."""
        if module not in self.paths:
            self.adopt(module)
        return self.paths[module]


@contextmanager
def trace(*roots: Named, train: bool = False) -> Iterator[Trace]:
    """Trace the modules called inside the block as in training or in evaluation; yields what they leave.

    `roots` are the modules whose paths name the nodes; a module called without being below one is its own root.
    """
    session = Trace(train)
    for root in roots:
        session.adopt(root)
    with origin.trace(session=session):
        yield session


def current() -> Trace | None:
    """The trace that is going on, if any."""
    session = origin.tracing().session
    return session if isinstance(session, Trace) else None


def is_training() -> bool:
    """Whether layers are traced as in training: what `Dropout` asks."""
    session = current()
    return session is not None and session.train


def update_state(state: State, new: Symbol) -> None:
    """Have the traced program set `state` to `new` at the end of a step, as batch normalisation does.

    A layer calls this in training. Raises StateError outside a trace, and for a second update of the same state;
    SymbolError inside a loop or branch, also for a value of the world around it: it would be set once, whatever runs.
    """
    session = current()
    if session is None:
        raise StateError(
            f"an update of {state.name} outside a trace would be lost; use `with nn.trace(model, train=True)`"
        )
    if state in session.updates:
        raise StateError(
            f"{state.name} is updated twice in one trace; a module with state can be called once in a step"
        )
    refuse(f"an update of {state.name}", None, "carry the state through the loop, and update it with the last value")
    session.updates[state] = new
