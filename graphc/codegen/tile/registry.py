"""How tile functions and operators reach Numba's typing and lowering.

Numba's own `@intrinsic` registers globally and pulls in all of Numba's array and NumPy support (a second of
imports) when it is first typed. Tile functions register here instead; only the kernel compiler's own typing
and target contexts (`graphc.codegen.machine`) know them.

A *definition* takes the typing context and the argument types (integer literals as literal types), and
returns `(signature, codegen)`, or raises `TypingError`; `codegen(context, builder, sig, values)` returns the
LLVM value. Whatever the code depends on must be told by the signature's argument types.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from numba.core import types
from numba.core.typing.templates import AbstractTemplate, Registry

Definition = Callable[..., Any]

REGISTRY = Registry()


class TileFunction:
    """A name of the kernel vocabulary; it can be called in kernel source only."""

    def __init__(self, definition: Definition) -> None:
        self.__name__ = definition.__name__
        self.__doc__ = definition.__doc__
        self.definition = definition

    def __call__(self, *args: Any) -> Any:
        """Kernel source is compiled, never run by Python."""
        raise TypeError(f"{self.__name__} can be called in kernel source only")

    def __repr__(self) -> str:
        return f"<tile function {self.__name__}>"


def _template(operation: Any, definition: Definition) -> type[AbstractTemplate]:
    """A typing template that records the code of each signature in the typing context."""
    parameters = list(inspect.signature(definition).parameters.values())[1:]
    python_signature = inspect.Signature(parameters)

    class Template(AbstractTemplate):
        key = operation
        prefer_literal = True

        def generic(self, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Any:
            result = definition(self.context, *args, **kws)
            if result is None:
                return None
            signature, codegen = result
            self.context.implementations[operation, signature.args] = codegen
            return signature.replace(pysig=python_signature) if isinstance(operation, TileFunction) else signature

    return Template


def tile_function(definition: Definition) -> TileFunction:
    """Decorate the definition of a function of the kernel vocabulary."""
    function = TileFunction(definition)
    template = _template(function, definition)
    REGISTRY.register(template)
    REGISTRY.register_global(function, types.Function(template))
    return function


def tile_operator(operator: Callable[..., Any], definition: Definition) -> None:
    """Define a Python operator on tiles; `definition` returns None for types that are not its own."""
    template = _template(operator, definition)
    REGISTRY.register(template)
    REGISTRY.register_global(operator, types.Function(template))
