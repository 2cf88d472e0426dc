"""A model with its loss and optimiser, and the programs that train, evaluate and predict."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

from graphc.dsl import origin
from graphc.dsl.symbol import Symbol
from graphc.dsl.variables import Input, Param, Variable, input
from graphc.errors import AttributeValueError, InputError, ShapeError, StateError
from graphc.ir.buffers import parse_bytes
from graphc.ir.dims import Dim, symbol
from graphc.optim.named import find_optimizer
from graphc.optim.optimizer import Optimizer
from graphc.options import checked_tune
from graphc.program import Program, compile
from graphc.runtime.cores import chosen_threads
from graphc.train import tracing
from graphc.train.history import History
from graphc.train.losses import FLOAT_TARGETS, Loss, find_loss
from graphc.train.metrics import Metric, find_metrics
from graphc.train.rows import Array, Port, Rows

KINDS = ("train", "evaluate", "predict")
DEFAULT_CAPACITY = 128  # of evaluate and predict, unless a fit's or an earlier one's can be used again
SMALLEST_KEPT = 32  # going through many rows in smaller pieces than this is slow
Ports: TypeAlias = tuple[tuple[Port, ...], tuple[Port, ...] | None]


class Model(Protocol):
    """What a trainer needs of a module."""

    def __call__(self, *inputs: Any) -> Any:
        """The outputs, for symbols."""

    def named_modules(self) -> list[tuple[str, Any]]:
        """The modules with their paths."""

    def parameters(self) -> list[Param]:
        """What the optimiser updates."""

    def named_variables(self) -> list[tuple[str, Variable]]:
        """Parameters and state with their paths."""


class Trainer:
    """Programs of one model. A program's batch is a capacity: shorter batches run in it, longer ones in pieces.

    Programs hold the modules and variables that were found when they were traced; when the model's tree of them
    changes, the programs are dropped and traced again. Plain attributes, such as a dropout's `p`, are read at tracing.
    """

    def __init__(
        self,
        model: Model,
        loss: Loss | str | None,
        optimizer: Optimizer | str | None,
        metrics: Sequence[Metric | str] | Metric | str,
        *,
        seed: int,
        threads: int | None,
        target: str,
        memory_limit: int | str | None = None,
        tune: bool = False,
    ) -> None:
        self.model = model
        self.loss = None if loss is None else find_loss(loss)
        self.optimizer = None if optimizer is None else find_optimizer(optimizer)
        self.metrics = find_metrics(metrics)
        self.seed = seed
        self.history: History | None = None
        self.epochs_seen = 0
        self._options: dict[str, Any] = {"threads": chosen_threads(threads, os.environ), "target": target, "seed": seed}
        self._options["memory_limit"] = None if memory_limit is None else parse_bytes(memory_limit)
        self._options["tune"] = checked_tune(tune)
        self._programs: dict[tuple[str, Ports, int], Program] = {}
        self._tree = self._found_tree()
        # The shapes and the capacity of the last call of each kind, the latest last.
        self._last: dict[str, tuple[Ports, int]] = {}
        self._shapes: dict[Any, Any] = {}

    @property
    def names(self) -> list[str]:
        """What train and evaluate programs return."""
        return ["loss", *self.metrics]

    def rows(self, x: Any, y: Any, user: str) -> Rows:
        """See `Rows.of`; targets are converted to what the loss takes."""
        return Rows.of(x, y, user, float_targets=self.loss in FLOAT_TARGETS)

    def program_for(self, kind: str, rows: Rows, batch_size: int | None) -> tuple[Program, int]:
        """The program for rows of this kind, and how many it takes at a time (at most `batch_size`)."""
        self._drop_outdated()
        ports = rows.ports if kind != "predict" else (rows.ports[0], None)
        if batch_size is None:
            seen = [c for _, p, c in self._remembered(kind) if p[0] == ports[0]]
            batch_size = next((c for c in seen if c >= SMALLEST_KEPT), DEFAULT_CAPACITY)
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        capacity = self._capacity(kind, ports, batch_size, len(rows))
        self._last.pop(kind, None)
        self._last[kind] = (ports, capacity)
        return self._compiled(kind, ports, capacity), capacity

    def _remembered(self, kind: str) -> list[tuple[str, Ports, int]]:
        """Kinds, shapes and capacities of calls: the last of this kind, then those of other kinds, the latest first."""
        kinds = sorted(reversed(self._last), key=lambda k: k != kind)
        return [(k, *self._last[k]) for k in kinds]

    def _found_tree(self) -> list[tuple[str, Any]]:
        """The modules and variables by path. They are kept, not their ids, which may be used again."""
        return [*self.model.named_modules(), *self.model.named_variables()]

    def _drop_outdated(self) -> None:
        """Forget the programs when a module or a variable was replaced, added or removed since they were traced."""
        tree = self._found_tree()
        if tree != self._tree:
            self._tree = tree
            self._programs.clear()
            self._shapes = {}
            for _, variable in self.model.named_variables():
                variable.initialise(self.seed, rooted=True)

    def _capacity(self, kind: str, ports: Ports, batch_size: int, rows: int) -> int:
        """That of a compiled program where one fits; a huge batch size asks for no more room than there are rows."""
        needed = min(batch_size, rows)
        known = [c for k, p, c in self._programs if (k, p) == (kind, ports) and needed <= c <= batch_size]
        if known:
            return min(known)
        return needed if kind == "train" else min(batch_size, max(rows, DEFAULT_CAPACITY))

    def program(self, kind: str, x: Any, y: Any, batch_size: int | None) -> Program:
        """See `Module.program`."""
        if kind not in KINDS:
            raise AttributeValueError(f"program {kind!r} is unknown; use one of: {', '.join(KINDS)}")
        if x is not None:
            return self.program_for(kind, self.rows(x, y, f"program({kind!r})"), batch_size)[0]
        self._drop_outdated()
        for known, ports, capacity in self._remembered(kind):
            if kind == "predict":
                return self._compiled(kind, (ports[0], None), batch_size or capacity)
            if known != "predict":  # a prediction does not tell the shapes of targets
                return self._compiled(kind, ports, batch_size or capacity)
        raise InputError(f"program({kind!r}): the shapes are not known yet; fit or predict first, or give x and y")

    def evaluate(self, x: Any, y: Any, batch_size: int | None) -> dict[str, float]:
        """See `Module.evaluate`."""
        return self.mean_over(self.rows(x, y, "evaluate"), batch_size)

    def mean_over(self, rows: Rows, batch_size: int | None) -> dict[str, float]:
        """The loss and the metrics, means over all rows, as in evaluation."""
        program, capacity = self.program_for("evaluate", rows, batch_size)
        mean = RowMean(self.names)
        for start in range(0, len(rows), capacity):
            batch = rows.take(slice(start, start + capacity))
            mean.add(program(*batch), len(batch[0]))
        return mean.values

    def predict(self, x: Any, batch_size: int | None) -> Any:
        """See `Module.predict`."""
        rows = Rows.of(x, None, "predict")
        self._check_batch_axis(rows)
        program, capacity = self.program_for("predict", rows, batch_size)
        pieces = [program(*rows.take(slice(s, s + capacity))) for s in range(0, len(rows), capacity)]
        outputs = [np.concatenate(parts) if len(parts) > 1 else parts[0] for parts in zip(*pieces, strict=True)]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _check_batch_axis(self, rows: Rows) -> None:
        """Raise InputError for an array that has the shape of one row of what the model has seen."""
        for (seen, _), _ in self._last.values():
            given = [array.shape for array in rows.x]
            if given == [port.shape for port in seen] and given != [port.shape for port in rows.ports[0]]:
                raise InputError(f"predict: x {list(given[0])} is one row without the axis of rows; give x[None]")

    def result_shapes(self) -> Mapping[Any, Any]:
        """The shape of each module's output in the last trace."""
        return self._shapes

    def _compiled(self, kind: str, ports: Ports, capacity: int) -> Program:
        key = (kind, ports, capacity)
        if key not in self._programs:
            self._programs[key] = self._declare(kind, ports, capacity)
        return self._programs[key]

    def _declare(self, kind: str, ports: Ports, capacity: int) -> Program:
        x = [_input(port) for port in ports[0]]
        y = None if ports[1] is None else [_input(port) for port in ports[1]]
        with tracing.trace(self.model, train=kind == "train") as traced:
            outputs = self.model(*x)
        self._shapes = {module: _shapes(result) for module, result in traced.results.items()}
        if kind == "predict":
            return compile(x, _rows_of(outputs), dims={"N": capacity}, name=kind, **self._options)
        targets = x if y is None else y
        results = self._measures(outputs, targets[0] if len(targets) == 1 else tuple(targets))
        updates = {**self._updates(results[0]), **traced.updates} if kind == "train" else {}
        return compile([*x, *(y or [])], results, updates, dims={"N": capacity}, name=kind, **self._options)

    def _measures(self, outputs: Any, targets: Any) -> list[Symbol]:
        """The loss and the metrics. Raises ShapeError for one that is no scalar."""
        if self.loss is None:
            raise StateError("the model has no loss; call .compile(loss=...) first")
        with origin.trace(module="loss"):
            measures = [self.loss(outputs, targets)]
        for name, metric in self.metrics.items():
            with origin.trace(module=f"metrics.{name}"):
                measures.append(metric(outputs, targets))
        for name, measure in zip(self.names, measures, strict=True):
            if not isinstance(measure, Symbol) or measure.shape:
                raise ShapeError(f"{name} must give a scalar, the mean over the batch, got {measure!r}")
        return measures

    def _updates(self, loss: Symbol) -> dict[Any, Symbol]:
        if self.optimizer is None:
            raise StateError("the model has no optimizer; call .compile(loss=..., optimizer=...) first")
        with origin.trace(module="optimizer"):
            return dict(self.optimizer.updates(loss, self.model.parameters()))


class RowMean:
    """Means over rows of values that are means over batches."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)
        self._totals = [0.0] * len(self._names)
        self.rows = 0

    def add(self, means: Sequence[Array], rows: int) -> None:
        """Count a batch of `rows` rows with these means."""
        for k, mean in enumerate(means):
            self._totals[k] += float(mean) * rows
        self.rows += rows

    @property
    def values(self) -> dict[str, float]:
        """The means by name."""
        return {name: total / max(self.rows, 1) for name, total in zip(self._names, self._totals, strict=True)}


def _input(port: Port) -> Input:
    return input(port.name, ("N", *port.shape), port.dtype)


def _rows_of(outputs: Any) -> list[Symbol]:
    """The outputs as a list. Raises ShapeError unless each has the batch as first axis."""
    symbols = list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
    for output in symbols:
        if not isinstance(output, Symbol) or output.shape[:1] != (symbol("N"),):
            raise ShapeError(f"predict needs outputs with the batch as their first axis, [N,...], got {output!r}")
    return symbols


def _shapes(result: Any) -> tuple[tuple[Dim, ...], ...]:
    """The shapes of a module's outputs."""
    symbols = result if isinstance(result, (tuple, list)) else (result,)
    return tuple(s.shape for s in symbols if isinstance(s, Symbol))
