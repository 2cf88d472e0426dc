"""`nn.Module`: parts of a model with their parameters, named by attributes as in PyTorch, trained as in Keras."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeAlias

import numpy as np

from graphc.dsl import origin
from graphc.dsl.variables import Param, State, Variable
from graphc.errors import DefinitionError, StateError
from graphc.interop.safetensors import load_arrays, save_arrays
from graphc.optim.optimizer import Optimizer
from graphc.program import Program
from graphc.train import tracing
from graphc.train.callbacks import Callback
from graphc.train.fit import fit
from graphc.train.history import History
from graphc.train.losses import Loss
from graphc.train.metrics import Metric
from graphc.train.summary import summary_table
from graphc.train.trainer import Trainer

Array: TypeAlias = np.ndarray[Any, Any]

_MODE = "fit trains, evaluate and predict do not; for a step of your own call it in `with nn.trace(model, train=True):`"
# What other libraries' modules have under names that users try here.
ELSEWHERE = {
    "train": _MODE,
    "eval": _MODE,
    "zero_grad": "gradients are not kept from step to step; fit trains, or gc.grad(loss, model.parameters())",
    "backward": "gradients are symbols: gc.grad(loss, model.parameters())",
    "to": "a program has a target, gc.compile(..., target=...); parameters are float32",
    "cuda": "a program has a target: gc.compile(..., target=...)",
    "cpu": "a program has a target: gc.compile(..., target=...)",
    "train_on_batch": "write model.fit(x, y, epochs=1), or gc.compile a step of your own",
}


class LoadResult(NamedTuple):
    """What `load_state_dict(strict=False)` left out: names the arrays lack, and names the module lacks."""

    missing: list[str]
    unexpected: list[str]


class Module:
    """A part of a model. Subclasses set parameters, state and other modules as attributes and define `forward`.

    `forward` runs on symbols, once for each program; its line of code and the module's path are kept on every node.
    Names and `state_dict` keys are paths of attributes, such as `encoder.fc1.weight`.

    A module or parameter that replaces another is noticed by `fit`, `evaluate` and `predict`, which compile again.
    Plain attributes (a dropout's `p`) are read when `forward` is traced: call `compile` again after changing one.
    Programs made by `gc.compile` or `program` stay as they were traced.
    """

    _constructed: origin.Origin

    def __new__(cls, *args: Any, **kwargs: Any) -> Module:
        """Remember where in the user's code the module is constructed."""
        module = super().__new__(cls)
        object.__setattr__(module, "_constructed", origin.here())
        return module

    def forward(self, *inputs: Any) -> Any:
        """The outputs, symbols, for input symbols. Every module defines this, else DefinitionError."""
        name = type(self).__name__
        advice = "give it a method `def forward(self, x)` that returns the outputs of input symbols"
        raise DefinitionError(f"the module {name} does not define forward; {advice}")

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Trace `forward` on symbols."""
        session = tracing.current()
        if session is None:
            with tracing.trace(self):
                return self(*inputs, **options)
        boundary = Module.__call__.__code__
        with origin.trace(module=session.path_of(self), constructed=self._constructed, boundary=boundary):
            result = self.forward(*inputs, **options)
            if result is None:
                name = type(self).__name__
                raise DefinitionError(f"{name}.forward returned None; end it with `return ...` of its outputs")
        session.results[self] = result
        return result

    if not TYPE_CHECKING:  # a type checker would take every attribute to exist

        def __getattr__(self, name: str) -> NoReturn:
            if name in ELSEWHERE:
                about = f"{type(self).__name__} has no attribute {name!r}: {ELSEWHERE[name]}"
                raise AttributeError(about, name=name, obj=self)
            object.__getattribute__(self, name)  # raises what was raised, a property's own AttributeError too

    def __deepcopy__(self, memo: dict[int, Any]) -> Module:
        """A module with parameters of its own; programs and the optimiser stay behind."""
        other = Module.__new__(type(self))
        memo[id(self)] = other
        for name, value in vars(self).items():
            if name != "_trainer":
                object.__setattr__(other, name, copy.deepcopy(value, memo))
        return other

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled (and copied by `copy.copy`): programs and the optimiser stay behind."""
        return {name: value for name, value in vars(self).items() if name != "_trainer"}

    # The tree of modules.

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, (list, tuple, dict)):
            parts = value.values() if isinstance(value, dict) else value
            if any(isinstance(part, (Module, Variable)) for part in parts):
                raise StateError(
                    f"{type(self).__name__}.{name} is a {type(value).__name__} of modules or parameters, whose names "
                    "and values would not be found; use nn.ModuleList or nn.Sequential, or one attribute for each"
                )
        if isinstance(value, Module) and any(module is self for _, module in value.named_modules()):
            raise StateError(
                f"{type(self).__name__}.{name} = {type(value).__name__}(...) would make the module a part of itself: "
                "its names and its forward would have no end; to look upwards keep a weakref.ref of the outer module"
            )
        object.__setattr__(self, name, value)
        if isinstance(value, (Module, Variable)):
            for path, variable in self.named_variables():
                variable.name_by_path(path)

    def named_children(self) -> list[tuple[str, Module]]:
        """The modules that are attributes, with the attributes' names."""
        return [(name, value) for name, value in vars(self).items() if isinstance(value, Module)]

    def named_modules(self) -> list[tuple[str, Module]]:
        """This module (path "") and all below it, each once, under its first path."""
        found: dict[Module, str] = {}
        self._collect_modules("", found)
        return [(path, module) for module, path in found.items()]

    def _collect_modules(self, path: str, found: dict[Module, str]) -> None:
        if self in found:
            return
        found[self] = path
        for name, child in self.named_children():
            child._collect_modules(f"{path}.{name}" if path else name, found)

    def named_variables(self) -> list[tuple[str, Variable]]:
        """Parameters and state, each once, under its first path; a module's parameters come before its state."""
        found: dict[Variable, str] = {}
        for path, module in self.named_modules():
            for kind in (Param, State):
                for name, value in vars(module).items():
                    if isinstance(value, kind):
                        found.setdefault(value, f"{path}.{name}" if path else name)
        return [(path, variable) for variable, path in found.items()]

    def named_parameters(self) -> list[tuple[str, Param]]:
        """Parameters with their paths, each once."""
        return [(path, variable) for path, variable in self.named_variables() if isinstance(variable, Param)]

    def parameters(self) -> list[Param]:
        """All parameters, each once."""
        return [parameter for _, parameter in self.named_parameters()]

    # Values.

    def state_dict(self) -> dict[str, Array]:
        """Copies of all parameters and state by path: PyTorch's names, shapes and order."""
        return {path: variable.array.copy() for path, variable in self.named_variables()}

    def load_state_dict(self, arrays: Mapping[str, Any], strict: bool = True) -> LoadResult:
        """Set parameters and state to arrays by path.

        With `strict`, the names must be exactly the module's. Raises StateError that lists missing and unexpected
        names and arrays that do not fit; nothing is set then.
        """
        own = dict(self.named_variables())
        missing = [path for path in own if path not in arrays]
        unexpected = [str(path) for path in arrays if path not in own]
        problems = []
        if strict and missing:
            problems.append(f"missing: {', '.join(missing)}")
        if strict and unexpected:
            problems.append(f"unexpected: {', '.join(unexpected)}")
        for path in own.keys() & arrays.keys():
            try:
                own[path].checked(arrays[path])
            except StateError as error:
                problems.append(str(error))
        if problems:
            raise StateError(f"cannot load {type(self).__name__}: {'; '.join(problems)}. Nothing was loaded")
        for path in own.keys() & arrays.keys():
            own[path].value = arrays[path]
        return LoadResult(missing, unexpected)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the `state_dict` to a safetensors file, whole or not at all. Raises DataError."""
        save_arrays(path, self.state_dict())

    def load(self, path: str | os.PathLike[str], strict: bool = True) -> LoadResult:
        """Read a safetensors file into parameters and state. Raises DataError, StateError; nothing is set then."""
        return self.load_state_dict(load_arrays(path), strict)

    # Training.

    def compile(
        self,
        loss: Loss | str | None = None,
        optimizer: Optimizer | str | None = None,
        metrics: Sequence[Metric | str] | Metric | str = (),
        *,
        seed: int = 0,
        threads: int | None = None,
        target: str = "cpu",
        memory_limit: int | str | None = None,
        tune: bool = False,
    ) -> None:
        """Choose how the model is trained; programs are compiled when the first batch shows the shapes.

        `loss` and `metrics` are names (`graphc.train.losses.LOSSES`, `metrics.METRICS`) or functions
        `(outputs, targets) -> scalar symbol`, means over the batch. `optimizer` is one of `graphc.optim`, or the name
        of one for its default settings. `seed` initialises parameters that have no values yet (by seed and path, so
        give the members of an ensemble a seed each), and starts dropout and shuffling.
        `threads`, `target`, `memory_limit` and `tune` are those of `gc.compile`. Raises AttributeValueError for an
        unknown name.
        """
        for _, variable in self.named_variables():
            variable.initialise(seed, rooted=True)
        trainer = Trainer(
            self, loss, optimizer, metrics, seed=seed, threads=threads, target=target, memory_limit=memory_limit,
            tune=tune,
        )
        object.__setattr__(self, "_trainer", trainer)

    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        shuffle: bool = True,
        validation_data: Sequence[Any] | None = None,
        validation_split: float = 0.0,
        callbacks: Sequence[Callback] = (),
        seed: int | None = None,
        verbose: int | str = "auto",
    ) -> History:
        """Train for `epochs` passes over the rows of `x` (an array, or a tuple of one for each input) and `y`.

        Without `y` the targets are `x`, as an autoencoder's. float64 becomes float32, integer labels int32, and uint8
        inputs float32 without scaling; labels become float32 for "mse" and
        "binary_cross_entropy_with_logits". The last, shorter batch counts as much as its rows: losses and metrics of an
        epoch are means over rows. `validation_split` holds out that share of the rows, the last ones. `seed` orders
        the rows; without it the model's seed does, going on where the last `fit` ended. `verbose`: 0 silent, 1 a
        progress bar, 2 a line an epoch, "auto" a bar on a terminal and lines elsewhere.

        Returns the `History`. Ctrl-C raises KeyboardInterrupt and leaves the parameters as the last whole step did, or
        StepInterrupted, a KeyboardInterrupt, where a step that takes seconds was stopped after it had written some.
        Raises InputError for arrays that do not fit each other or the model and for labels out of range, before the
        first update.
        """
        return fit(
            self._compiled(),
            x,
            y,
            epochs=epochs,
            batch_size=batch_size,
            shuffle=shuffle,
            validation_data=validation_data,
            validation_split=validation_split,
            callbacks=callbacks,
            seed=seed,
            verbose=verbose,
        )

    def evaluate(self, x: Any, y: Any = None, *, batch_size: int | None = None) -> dict[str, float]:
        """The loss and the metrics over all rows, without training: `{"loss": ..., "accuracy": ...}`."""
        return self._compiled().evaluate(x, y, batch_size=batch_size)

    def predict(self, x: Any, *, batch_size: int | None = None) -> Any:
        """The outputs for all rows of `x`, without training: an array, or a tuple of arrays. Needs no `compile`."""
        return self._trainer_or_default().predict(x, batch_size=batch_size)

    def program(self, kind: str = "train", x: Any = None, y: Any = None, *, batch_size: int | None = None) -> Program:
        """The compiled program "train", "evaluate" or "predict".

        Its shapes are those of the last batch (of the same kind if there was one), or of the example arrays `x` and
        `y`. Raises InputError if neither is known.
        """
        return self._trainer_or_default().program(kind, x, y, batch_size=batch_size)

    def summary(self) -> None:
        """Print a table of the layers: path, kind, output shape (once inputs are known) and parameters."""
        trainer = vars(self).get("_trainer")
        print(summary_table(self, trainer.result_shapes() if trainer else {}))

    @property
    def history(self) -> History | None:
        """The history of the last `fit`, also of one that was interrupted."""
        trainer = vars(self).get("_trainer")
        return trainer.history if trainer else None

    def _compiled(self) -> Trainer:
        trainer = vars(self).get("_trainer")
        if not isinstance(trainer, Trainer) or trainer.loss is None:
            raise StateError(f"{type(self).__name__} has no loss: call .compile(loss=..., optimizer=...) first")
        return trainer

    def _trainer_or_default(self) -> Trainer:
        if "_trainer" not in vars(self):
            for _, variable in self.named_variables():
                variable.initialise(0)  # not by `compile`: this may be a layer on its way into a model
            self.compile()
        trainer: Trainer = vars(self)["_trainer"]
        return trainer

    def __repr__(self) -> str:
        lines = [f"({name}): {child!r}" for name, child in self.named_children()]
        body = "\n".join(lines).replace("\n", "\n  ")
        return f"{type(self).__name__}({self.extra_repr()}{f'{chr(10)}  {body}{chr(10)}' if lines else ''})"

    def extra_repr(self) -> str:
        """What `repr` shows in the parentheses: a layer's sizes."""
        return ""
