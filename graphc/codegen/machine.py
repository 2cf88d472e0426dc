"""Python kernel source to relocatable machine code.

`translate` makes LLVM IR of the source; this file optimises the one module and emits an object file. Source beyond what
`translate` knows goes through Numba's front end instead.
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

from graphc.codegen import tile
from graphc.codegen.host import host
from graphc.codegen.translate import KernelTypeError, Unsupported, translate
from graphc.errors import CompileError

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


@dataclass(frozen=True)
class Translated:
    """A kernel's LLVM IR, before LLVM has seen it; `optimise` runs the passes that suit where it comes from."""

    llvm_ir: str
    symbol: str
    optimise: Callable[[llvm.ModuleRef, llvm.PassBuilder], None]


def compile_source(source: str, name: str, *, filename: str | None = None, through_numba: bool = False) -> MachineCode:
    """Compile the kernel function `name` of `source` for the host: `emit_object(translate_source(...))`."""
    return emit_object(translate_source(source, name, filename=filename, through_numba=through_numba))


def kernel_symbol(source: str, name: str) -> str:
    """The symbol of a kernel's machine code: its name and a digest of its source."""
    return f"graphc_{name}_{hashlib.sha256(source.encode()).hexdigest()[:16]}"


def translate_source(
    source: str, name: str, *, filename: str | None = None, through_numba: bool = False
) -> Translated:
    """Make LLVM IR of the kernel function `name` of `source`, for the host.

    `source` defines `def <name>(args, thread, threads)`; the vocabulary of `graphc.codegen.tile` is in scope.
    `filename` is what tracebacks and error messages name (a real file, or one made known to `linecache`).
    The symbol of the entry point contains a digest of the source, so objects of different kernels can be
    loaded together. `through_numba` leaves typing and lowering to Numba in any case. Raises `CompileError` when the
    source does not type, or calls what a kernel may not.
    """
    symbol = kernel_symbol(source, name)
    filename = filename or f"<graphc kernel {symbol}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    module = None
    try:
        if not through_numba:
            module = translate(source, name, symbol)
    except SyntaxError as error:
        raise CompileError(f"kernel {name} ({filename}) is no Python: {error}") from error
    except KernelTypeError as error:
        raise CompileError(f"kernel {name} ({filename}) does not compile: {error}") from error
    except Unsupported:
        pass
    optimise = _tidy
    if module is None:
        module, optimise = _through_numba(source, name, symbol, filename), _optimise
    module.triple = llvm.get_process_triple()
    module.data_layout = str(_target_machine().target_data)
    return Translated(str(module), symbol, optimise)


def _through_numba(source: str, name: str, symbol: str, filename: str) -> ir.Module:
    """The module that Numba's front end makes."""
    from graphc.codegen import numba_front

    namespace: dict[str, Any] = dict(tile.vocabulary())
    exec(compile(source, filename, "exec"), namespace)
    if name not in namespace:
        raise CompileError(f"the source ({filename}) defines no function {name}")
    try:
        return numba_front.lower(namespace[name], symbol)
    except CompileError as error:
        raise CompileError(f"kernel {name} ({filename}) does not compile: {error}") from error


def emit_object(kernel: Translated) -> MachineCode:
    """Optimise a kernel's IR and emit its object; LLVM does not hold Python's lock meanwhile.

    Raises CompileError if the kernel needs more than the C library.
    """
    machine = _target_machine()
    parsed = llvm.parse_assembly(kernel.llvm_ir)
    tuning = llvm.create_pipeline_tuning_options(speed_level=3)
    # Kernels are vectorised by construction; LLVM's vectorisers would only cost time.
    tuning.loop_vectorization = tuning.slp_vectorization = False
    # Register tiles are unrolled by construction too; unrolling nests of clipped loops took seconds and gained nothing.
    tuning.loop_unrolling = False
    kernel.optimise(parsed, llvm.create_pass_builder(machine, tuning))
    foreign = [f.name for f in parsed.functions
               if f.is_declaration and not f.name.startswith("llvm.") and not ALLOWED_LIBRARIES.match(f.name)]
    if foreign:
        raise CompileError(f"kernel {kernel.symbol} calls {', '.join(foreign)}, which no kernel may call")
    text = str(parsed)  # before emission, which rewrites the module for the target
    return MachineCode(machine.emit_object(parsed), kernel.symbol, text)


def _tidy(module: llvm.ModuleRef, builder: llvm.PassBuilder) -> None:
    """The few passes that find something to do in what `translate` makes.

    It is in SSA form, its loops are rotated, its tiles are in vectors, and what a loop can do without stands before it
    in the source. LLVM's whole pipeline takes ten times as long, and its kernels are no faster.
    """
    passes = llvm.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.add_global_dead_code_eliminate_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    passes.run(module, builder)


def _optimise(module: llvm.ModuleRef, builder: llvm.PassBuilder) -> None:
    """LLVM's pipeline, for modules with stack slots, aggregates and wrappers in them."""
    builder.getModulePassManager().run(module, builder)


@functools.cache
def _target_machine() -> llvm.TargetMachine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = host()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(cpu=machine.cpu, features=machine.features, opt=3, reloc="pic",
                                        codemodel="small")
