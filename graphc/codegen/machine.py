"""Python kernel source to relocatable machine code.

Numba types and lowers the kernel function to LLVM IR; graphc adds the C entry point, optimises the one
module and emits an object file. Numba's own back end (its optimiser, its wrappers, its execution engine)
is not run: it would optimise and compile everything a second time.
"""

from __future__ import annotations

import functools
import hashlib
import linecache
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import compiler, cpu, lowering, types, typing
from numba.core import errors as numba_errors
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import LoweringPass, PassManager, register_pass
from numba.core.funcdesc import PythonFunctionDescriptor
from numba.core.typed_passes import IRLegalization, NopythonTypeInference, PreLowerStripPhis
from numba.core.untyped_passes import FixupArgs, IRProcessing, ReconstructSSA, TranslateByteCode

from graphc.codegen import tile
from graphc.codegen.host import host
from graphc.codegen.tile.registry import REGISTRY
from graphc.errors import CompileError

KERNEL_ARGUMENTS = (types.CPointer(types.int64), types.int64, types.int64)
ALLOWED_LIBRARIES = re.compile(  # what an object may leave unresolved: the C library's maths and memory functions
    r"^(a?(sin|cos|tan)h?|atan2|exp(2|10|m1)?|log(2|10|1p)?|pow|erfc?|[lt]gamma|fmod|cbrt|hypot|fma|ldexp|"
    r"floor|ceil|round|rint|trunc|nearbyint|roundeven|fmax|fmin|sqrt)f?$|^mem(set|cpy|move)$")


@dataclass(frozen=True)
class MachineCode:
    """A compiled kernel: `symbol` in `object_bytes` is `void(const int64_t *args, int64_t thread, int64_t threads)`."""

    object_bytes: bytes
    symbol: str
    llvm_ir: str

    @functools.cached_property
    def asm(self) -> str:
        """The assembly text (generated when asked for)."""
        module = llvm.parse_assembly(self.llvm_ir)
        return str(_target_machine().emit_assembly(module))


def compile_source(source: str, name: str, *, filename: str | None = None) -> MachineCode:
    """Compile the kernel function `name` of `source` for the host.

    `source` defines `def <name>(args, thread, threads)`; the vocabulary of `graphc.codegen.tile` is in scope.
    `filename` is what tracebacks and error messages name (a real file, or one made known to `linecache`).
    The symbol of the entry point contains a digest of the source, so objects of different kernels can be
    loaded together. Raises `CompileError` when the source does not type, or calls what a kernel may not.
    """
    digest = hashlib.sha256(source.encode()).hexdigest()[:16]
    symbol = f"graphc_{name}_{digest}"
    filename = filename or f"<graphc kernel {name} {digest}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    namespace: dict[str, Any] = dict(tile.vocabulary())
    try:
        exec(compile(source, filename, "exec"), namespace)
    except SyntaxError as error:
        raise CompileError(f"kernel {name} ({filename}) is no Python: {error}") from error
    if name not in namespace:
        raise CompileError(f"the source ({filename}) defines no function {name}")
    try:
        with global_compiler_lock:  # Numba's contexts are not thread-safe
            module = _lower(namespace[name], symbol)
    except (numba_errors.NumbaError, NotImplementedError) as error:  # the latter: what kernels do not load of Numba
        raise CompileError(f"kernel {name} ({filename}) does not compile: {error}") from error
    return _emit(module, symbol)


def _lower(function: Callable[..., Any], symbol: str) -> ir.Module:
    """Type and lower a kernel function; the module's only external function is its C entry point."""
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


def _emit(module: ir.Module, symbol: str) -> MachineCode:
    """Optimise a module and emit its object; checks that it needs nothing but the C library."""
    machine = _target_machine()
    module.triple = llvm.get_process_triple()
    module.data_layout = str(machine.target_data)
    parsed = llvm.parse_assembly(str(module))
    tuning = llvm.create_pipeline_tuning_options(speed_level=3)
    # Kernels are vectorised by construction; LLVM's vectorisers would only cost time.
    tuning.loop_vectorization = tuning.slp_vectorization = False
    builder = llvm.create_pass_builder(machine, tuning)
    builder.getModulePassManager().run(parsed, builder)
    foreign = [f.name for f in parsed.functions
               if f.is_declaration and not f.name.startswith("llvm.") and not ALLOWED_LIBRARIES.match(f.name)]
    if foreign:
        raise CompileError(f"kernel {symbol} calls {', '.join(foreign)}, which no kernel may call")
    text = str(parsed)  # before emission, which rewrites the module for the target
    return MachineCode(machine.emit_object(parsed), symbol, text)


@functools.cache
def _target_machine() -> llvm.TargetMachine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = host()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(cpu=machine.cpu, features=machine.features, opt=3, reloc="pic",
                                        codemodel="small")


# ---- Numba, with only what kernels use ----------------------------------------------------------------------------

class _TypingContext(typing.Context):
    """Numba's typing of the language core and of tiles: no arrays, lists, dictionaries or NumPy functions."""

    def __init__(self) -> None:
        self.implementations: dict[Any, Any] = {}  # (function or operator, argument types) -> code generator
        super().__init__()

    def load_additional_registries(self) -> None:
        """Make the tile vocabulary known."""
        self.install_registry(REGISTRY)


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
