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
    from graphc.dsl.activations import *
    from graphc.dsl.control import *
    from graphc.dsl.custom import custom_vjp
    from graphc.dsl.elementwise import *
    from graphc.dsl.functions import *
    from graphc.dsl.losses import *
    from graphc.dsl.scalar_function import ScalarFunction, scalar_function
    from graphc.dsl.symbol import Symbol
    from graphc.dsl.transforms import *
    from graphc.dsl.variables import Input, Param, State, Variable, input, param, state
    from graphc.dsl.watch import assert_, print
    from graphc.inspect.circuit import circuit
    from graphc.ir.types import bool_
    from graphc.ir.types import f32 as float32
    from graphc.ir.types import f64 as float64
    from graphc.ir.types import i32 as int32
    from graphc.ir.types import i64 as int64
    from graphc.ir.types import u8 as uint8
    from graphc.program import Program, compile

__version__ = "0.1.0"

__all__ = [
    "Input", "Param", "Program", "ScalarFunction", "State", "Symbol", "Variable", "abs", "acos", "all", "amax", "amin",
    "any", "arange", "argmax", "argmin", "argsort", "asin", "assert_", "astype", "atan", "avg_pool1d", "avg_pool2d",
    "avg_pool3d", "binary_cross_entropy_with_logits", "bool_", "broadcast_to", "ceil", "check_gradients", "circuit",
    "clip", "compile", "concatenate", "cond", "constant", "conv1d", "conv2d", "conv3d", "conv_transpose1d",
    "conv_transpose2d", "conv_transpose3d", "cos", "cosh", "cross_entropy", "cumprod", "cumsum", "custom_vjp", "data",
    "diagonal", "dot", "einsum", "elu", "equal", "erf", "errors", "exp", "expand_dims", "expm1", "eye", "flatten",
    "flip", "float32", "float64", "floor", "floor_divide", "full", "full_like", "gather", "gaussian", "gelu", "grad",
    "hardsigmoid", "hardtanh", "heaviside", "hessian", "hvp", "init", "input", "int32", "int64", "isfinite", "isinf",
    "isnan", "jacobian", "jvp", "leaky_relu", "linspace", "log", "log1p", "log2", "log_softmax", "logical_and",
    "logical_not", "logical_or", "logical_xor", "logsumexp", "matmul", "max", "max_pool1d", "max_pool2d", "max_pool3d",
    "maximum", "mean", "min", "minimum", "mod", "moveaxis", "mse_loss", "nn", "noisy_relu", "norm", "not_equal",
    "one_hot", "ones", "ones_like", "optim", "outer", "pad", "param", "pow", "prelu", "print", "prod", "random",
    "ravel", "reciprocal", "relu", "repeat", "reshape", "roll", "round", "rsqrt", "scalar_function", "scan",
    "scatter_add", "searchsorted", "selu", "sigmoid", "sign", "silu", "sin", "sinh", "softmax", "softplus", "softsign",
    "sort", "split", "sqrt", "square", "squeeze", "stack", "state", "std", "stop_gradient", "sum", "swapaxes", "take",
    "take_along_axis", "tan", "tanh", "tensordot", "tile", "topk", "trace", "transpose", "tril", "triu", "uint8",
    "value_and_grad", "var", "vjp", "where", "while_loop", "zeros", "zeros_like",
]  # fmt: skip

# Module -> the names it has (`name` or `name there=public name`).
_HOMES = {
    "graphc.dsl.control": "cond scan while_loop",
    "graphc.dsl.custom": "custom_vjp",
    "graphc.dsl.activations": (
        "elu gaussian gelu hardsigmoid hardtanh heaviside leaky_relu noisy_relu prelu relu selu sigmoid silu softplus "
        "softsign"
    ),
    "graphc.dsl.elementwise": (
        "abs acos asin astype atan ceil clip cos cosh equal erf exp expm1 floor floor_divide isfinite isinf "
        "isnan log log1p log2 logical_and logical_not logical_or logical_xor maximum minimum mod not_equal "
        "pow reciprocal round rsqrt sign sin sinh sqrt square tan tanh where"
    ),
    "graphc.dsl.functions": (
        "all amax amin any arange argmax argmin argsort avg_pool1d avg_pool2d avg_pool3d broadcast_to "
        "concatenate constant conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d cumprod "
        "cumsum diagonal dot einsum expand_dims eye flatten flip full full_like gather linspace log_softmax "
        "logsumexp matmul max max_pool1d max_pool2d max_pool3d mean min moveaxis norm one_hot ones ones_like "
        "outer pad prod ravel repeat reshape roll scatter_add searchsorted softmax sort split squeeze stack "
        "std stop_gradient sum swapaxes take take_along_axis tensordot tile topk trace transpose tril triu "
        "var zeros zeros_like"
    ),
    "graphc.dsl.losses": "binary_cross_entropy_with_logits cross_entropy mse_loss",
    "graphc.dsl.scalar_function": "ScalarFunction scalar_function",
    "graphc.dsl.symbol": "Symbol",
    "graphc.dsl.transforms": "check_gradients grad hessian hvp jacobian jvp value_and_grad vjp",
    "graphc.dsl.variables": "Input Param State Variable input param state",
    "graphc.dsl.watch": "assert_ print",
    "graphc.inspect.circuit": "circuit",
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


# What other libraries have under names that users try here.
_ELSEWHERE = {
    "tensor": "write gc.constant(value); parameters are gc.param, and data are NumPy arrays given to each call",
    "Tensor": "declare inputs with gc.input; data are NumPy arrays given to each call",
    "cat": "write gc.concatenate(parts, axis=0)",
    "mm": "write a @ b",
    "bmm": "write a @ b",
    "no_grad": "gradients are taken only where gc.grad asks for them",
    "function": "write gc.compile(inputs, outputs)",
    "jit": "write gc.compile(inputs, outputs)",
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
    no_attribute = import_module("graphc.errors").no_attribute
    if name in _ELSEWHERE:
        raise no_attribute("graphc", name, (), _ELSEWHERE[name])
    raise no_attribute("graphc", name, __all__, "dir(graphc) lists what there is")
