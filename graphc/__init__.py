"""graphc, a compiler for neural networks: symbolic gradients, readable generated kernels, one call per training step.

Names are loaded when first used, so that `import graphc` costs next to nothing and a program found in the cache never
loads the compiler. `_HOMES` says where each public name lives.
"""

# ruff: noqa: F403, F405  (star imports of modules that list their names)

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors; a test compares these with `_HOMES`
    from graphc import data, errors, nn, optim
    from graphc.dsl import initialisers as init
    from graphc.dsl import random
    from graphc.dsl.functions import *
    from graphc.dsl.losses import *
    from graphc.dsl.symbol import Symbol
    from graphc.dsl.transforms import *
    from graphc.dsl.variables import Input, Param, State, Variable, input, param, state
    from graphc.ir.types import bool_
    from graphc.ir.types import f32 as float32
    from graphc.ir.types import f64 as float64
    from graphc.ir.types import i32 as int32
    from graphc.ir.types import i64 as int64
    from graphc.ir.types import u8 as uint8
    from graphc.program import Program, compile

__version__ = "0.1.0"

__all__ = [
    "Input", "Param", "Program", "State", "Symbol", "Variable", "abs", "amax", "amin", "argmax", "astype",
    "binary_cross_entropy_with_logits", "bool_", "broadcast_to", "check_gradients", "clip", "compile", "constant",
    "cross_entropy", "data", "equal", "errors", "exp", "expm1", "flatten", "float32", "float64", "gather", "grad",
    "init", "input", "int32", "int64", "log", "log1p", "log_softmax", "logical_and", "logical_not", "logical_or",
    "logsumexp", "matmul", "max", "maximum", "mean", "min", "minimum", "mse_loss", "nn", "not_equal", "one_hot",
    "optim", "param", "random", "relu", "reshape", "sigmoid", "sign", "softmax", "softplus", "sqrt", "square",
    "state", "stop_gradient", "sum", "tanh", "transpose", "uint8", "value_and_grad", "where",
]  # fmt: skip

# Module -> the names it has (`name` or `name there=public name`).
_HOMES = {
    "graphc.dsl.functions": (
        "abs amax amin argmax astype broadcast_to clip constant equal exp expm1 flatten gather log log1p "
        "log_softmax logical_and logical_not logical_or logsumexp matmul max maximum mean min minimum "
        "not_equal one_hot relu reshape sigmoid sign softmax softplus sqrt square stop_gradient sum tanh "
        "transpose where"
    ),
    "graphc.dsl.losses": "binary_cross_entropy_with_logits cross_entropy mse_loss",
    "graphc.dsl.symbol": "Symbol",
    "graphc.dsl.transforms": "check_gradients grad value_and_grad",
    "graphc.dsl.variables": "Input Param State Variable input param state",
    "graphc.program": "Program compile",
    "graphc.ir.types": "f32=float32 f64=float64 i32=int32 i64=int64 u8=uint8 bool_",
}
_MODULES = {
    "data": "graphc.data",
    "errors": "graphc.errors",
    "init": "graphc.dsl.initialisers",
    "nn": "graphc.nn",
    "optim": "graphc.optim",
    "random": "graphc.dsl.random",
}


def __getattr__(name: str) -> Any:
    value = _find(name)
    globals()[name] = value  # so the next use is an ordinary attribute
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _find(name: str) -> Any:
    if name in _MODULES:
        return import_module(_MODULES[name])
    for module, names in _HOMES.items():
        for entry in names.split():
            there, _, public = entry.partition("=")
            if name == (public or there):
                return getattr(import_module(module), there)
    raise AttributeError(f"module 'graphc' has no attribute {name!r}")
