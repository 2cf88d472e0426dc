"""Kernel source through Numba: the same tile functions, typed and lowered by Numba's own compiler.

It compiles any source that Numba understands, at ten times the price of `graphc.codegen.translate`, which has its own
typing and no support for general Python; the two are tested against each other. Numba's back end (its optimiser, its
wrappers, its execution engine) is not run: it would optimise and compile everything a second time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import compiler, cpu, lowering, types, typing
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import LoweringPass, PassManager, register_pass
from numba.core.errors import NumbaError
from numba.core.errors import TypingError as NumbaTypingError
from numba.core.funcdesc import PythonFunctionDescriptor
from numba.core.typed_passes import IRLegalization, NopythonTypeInference, PreLowerStripPhis
from numba.core.typing.templates import AbstractTemplate, Registry
from numba.core.untyped_passes import FixupArgs, IRProcessing, ReconstructSSA, TranslateByteCode
from numba.extending import models, register_model

from graphc.codegen import tile
from graphc.codegen.tile.registry import OPERATORS, TileFunction
from graphc.codegen.tile.signatures import (
    F32,
    F64,
    I32,
    I64,
    MASK,
    NONE,
    U8,
    Definition,
    Literal,
    Pointer,
    Scalar,
    Signature,
    Type,
    TypingError,
)
from graphc.codegen.tile.types import TileType, aggregate
from graphc.errors import CompileError

KERNEL_ARGUMENTS = (types.CPointer(types.int64), types.int64, types.int64)
SCALARS: dict[Scalar, types.Type] = {
    F32: types.float32, F64: types.float64, I32: types.int32, I64: types.int64, U8: types.uint8, MASK: types.boolean,
    NONE: types.none}  # fmt: skip


def lower(function: Callable[..., Any], symbol: str) -> ir.Module:
    """Type and lower a kernel function; the module's only external function is its C entry point, `symbol`.

    Raises CompileError for what Numba refuses.
    """
    try:
        with global_compiler_lock:  # Numba's contexts are not thread-safe
            return _lowered(function, symbol)
    except (NumbaError, NotImplementedError) as error:  # the latter: Numba has no code for one of the types
        told = "Numba refuses this; write it with numbers, ranges and the functions of graphc.codegen.tile"
        raise CompileError(f"{error}\n{told}") from error


def _lowered(function: Callable[..., Any], symbol: str) -> ir.Module:
    typing_context, target_context = _contexts()
    flags: Any = compiler.Flags()
    flags.error_model = "numpy"
    flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    lowered = compiler.compile_extra(typing_context, target_context, function, KERNEL_ARGUMENTS, types.none, flags,
                                     {}, pipeline_class=_KernelCompiler)
    module, descriptor, context = lowered
    kernel = module.globals[descriptor.mangled_name]
    kernel.linkage = "internal"
    kernel.attributes.add("alwaysinline")
    arguments = [context.get_value_type(argument) for argument in KERNEL_ARGUMENTS]
    entry = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), symbol)
    builder = ir.IRBuilder(entry.append_basic_block("entry"))
    context.call_conv.call_function(builder, kernel, types.none, KERNEL_ARGUMENTS, entry.args)
    builder.ret_void()
    return module


# ---- tiles as Numba sees them --------------------------------------------------------------------------------------


class NumbaTile(types.Type):  # type: ignore[misc]
    """A tile type of the kernel vocabulary."""

    def __init__(self, tile_type: TileType) -> None:
        self.tile = tile_type
        super().__init__(name=str(tile_type))


@register_model(NumbaTile)
class TileModel(models.PrimitiveModel):  # type: ignore[misc]
    """The LLVM value of a tile: an array of vectors."""

    def __init__(self, dmm: Any, fe_type: NumbaTile) -> None:
        super().__init__(dmm, fe_type, ir.ArrayType(fe_type.tile.llvm_vector, fe_type.tile.count))


def _to_numba(ty: Type) -> types.Type:
    if isinstance(ty, TileType):
        return NumbaTile(ty)
    if isinstance(ty, Pointer):
        return types.CPointer(SCALARS[ty.dtype])
    if isinstance(ty, Literal):
        return types.literal(ty.value)
    assert isinstance(ty, Scalar)
    return SCALARS[ty]


def _from_numba(ty: types.Type) -> Type:
    if isinstance(ty, NumbaTile):
        return ty.tile
    if isinstance(ty, types.IntegerLiteral):
        return Literal(ty.literal_value)
    if isinstance(ty, types.CPointer):
        dtype = _from_numba(ty.dtype)
        assert isinstance(dtype, Scalar)
        return Pointer(dtype)
    for known, numba in SCALARS.items():
        if types.unliteral(ty) == numba:
            return known
    raise NumbaTypingError(f"kernels have no values of type {ty}")


def _template(operation: Any, define: Callable[..., Definition | None]) -> type[AbstractTemplate]:
    """A typing template that records the code of each signature in the typing context."""

    class Template(AbstractTemplate):  # type: ignore[misc]
        key = operation
        prefer_literal = True

        def generic(self, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Any:
            if kws:
                raise NumbaTypingError("the arguments of tile functions are given by position")
            operator = not isinstance(operation, TileFunction)
            if operator and not any(isinstance(a, NumbaTile) for a in args):
                return None
            try:
                definition = define(*map(_from_numba, args))
            except TypingError as error:
                raise NumbaTypingError(str(error)) from None
            if definition is None:
                return None
            signature, code = definition
            found = _to_numba(signature.result)(*map(_to_numba, signature.arguments))
            self.context.implementations[operation, found.args] = _implementation(signature, code)
            return found

    return Template


def _implementation(signature: Signature, code: Callable[..., Any]) -> Callable[..., Any]:
    """The code of a tile function with tiles as LLVM arrays."""

    def lower_call(context: Any, builder: ir.IRBuilder, sig: Any, values: Any) -> Any:
        unpacked = [
            [builder.extract_value(v, i) for i in range(t.count)] if isinstance(t, TileType) else v
            for v, t in zip(values, signature.arguments, strict=True)
        ]
        result = code(builder, unpacked)
        if signature.result == NONE:
            return context.get_dummy_value()
        return aggregate(builder, result) if isinstance(signature.result, TileType) else result

    return lower_call


def _registry() -> Registry:
    """The vocabulary, for the typing of kernels alone: Numba's global one would load its arrays too."""
    registry = Registry()
    known = [(f, f.typed) for f in tile.VOCABULARY]
    for operation, define in [*known, *OPERATORS.items()]:
        template = _template(operation, define)
        registry.register(template)
        registry.register_global(operation, types.Function(template))
    return registry


# ---- Numba, with only what kernels use ----------------------------------------------------------------------------

class _TypingContext(typing.Context):
    """Numba's typing of the language core and of tiles: no arrays, lists, dictionaries or NumPy functions."""

    def __init__(self) -> None:
        self.implementations: dict[Any, Any] = {}  # (function or operator, argument types) -> code generator
        super().__init__()

    def load_additional_registries(self) -> None:
        """Make the tile vocabulary known."""
        self.install_registry(_registry())


class _TargetContext(cpu.CPUContext):
    """Numba's lowering of the language core and of tiles, without its runtime."""

    def load_additional_registries(self) -> None:
        """Load the lowering of numbers, ranges and tuples; the import registers it."""
        from numba.cpython import builtins, numbers, rangeobj, tupleobj  # noqa: F401

    def get_function(self, fn: Any, sig: Any, _firstcall: bool = True) -> Any:
        """The code of a tile function is what its typing recorded; anything else is Numba's."""
        key = fn.typing_key if isinstance(fn, types.Function) else fn
        codegen = self.typing_context.implementations.pop((key, sig.args), None)
        if codegen is not None:
            self.insert_func_defn([(codegen, key, sig.args)])
        return super().get_function(fn, sig, _firstcall)


@functools.cache
def _contexts() -> tuple[_TypingContext, _TargetContext]:
    typing_context = _TypingContext()
    return typing_context, _TargetContext(typing_context)


class _Lower(lowering.Lower):
    """Numba's lowering, stopped before the module is optimised and compiled."""

    def emit_environment_object(self) -> None:
        """Kernels have no Python environment."""

    def lower(self) -> None:
        """Fill `self.module`."""
        self.genlower = None
        self.lower_normal_function(self.fndesc)


@register_pass(mutates_CFG=True, analysis_only=False)
class _KernelLowering(LoweringPass):
    """Numba IR to an llvmlite module, handed out as the compile result."""

    _name = "graphc_kernel_lowering"

    def __init__(self) -> None:
        super().__init__()

    def run_pass(self, state: Any) -> bool:
        """Lower `state.func_ir`."""
        context = state.targetctx
        library = context.codegen().create_library(state.func_id.func_qualname)
        descriptor = PythonFunctionDescriptor.from_specialized_function(
            state.func_ir, state.typemap, state.return_type, state.calltypes, mangler=context.mangler,
            inline=False, noalias=False, abi_tags=())
        with context.push_code_library(library):
            lower = _Lower(context, library, descriptor, state.func_ir, metadata=state.metadata)
            lower.lower()
        state.cr = (lower.module, descriptor, context)
        return True


class _KernelCompiler(compiler.CompilerBase):
    """The passes that kernel source needs, and no others: Numba's front end is what costs compile time."""

    def define_pipelines(self) -> list[PassManager]:
        """One pipeline, without rewrites, inlining or closures."""
        manager = PassManager("graphc_kernel")
        for step in (TranslateByteCode, FixupArgs, IRProcessing, ReconstructSSA, NopythonTypeInference,
                     PreLowerStripPhis, IRLegalization, _KernelLowering):
            manager.add_pass(step, step.__name__)
        manager.finalize()
        return [manager]
