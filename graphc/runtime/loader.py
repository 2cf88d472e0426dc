"""Relocatable object files to callable addresses, by LLVM's MCJIT: nothing is compiled here.

Objects may leave only the C library's symbols unresolved (`expf`, `memset`); they are found in the process.
LLVM ends the process when a symbol cannot be found, so whoever makes objects checks what they refer to.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm

from graphc.errors import CompileError


@dataclass(frozen=True)
class LoadedCode:
    """Machine code in memory. `addresses` maps symbols to entry points, valid as long as this object lives."""

    addresses: Mapping[str, int]
    engine: Any


def load(objects: Mapping[str, bytes]) -> LoadedCode:
    """Load object files, one for each symbol: `objects` maps a symbol to the file that defines it.

    Raises CompileError when bytes are no object file of this machine, or do not define their symbol.
    """
    target_machine = native_target_machine()
    # Of this empty module only its being there counts: an engine cannot be made without one.
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target_machine)
    for symbol, data in objects.items():
        try:
            # Bytes of the wrong format would not raise but end the process.
            _require_object(symbol, data)
            engine.add_object_file(llvm.ObjectFileRef.from_data(data))
        except RuntimeError as error:
            raise CompileError(f"the machine code of {symbol} cannot be loaded: {error}") from error
    engine.finalize_object()
    addresses = {symbol: engine.get_function_address(symbol) for symbol in objects}
    for symbol, address in addresses.items():
        if not address:
            raise CompileError(f"the machine code given for {symbol} does not define that symbol; compile it again")
    return LoadedCode(addresses, engine)


def compile_ir(text: str, *symbols: str) -> LoadedCode:
    """Optimise and load LLVM assembly `text` for this machine; for code that belongs to the runtime itself."""
    machine = native_target_machine()
    module = llvm.parse_assembly(text)
    module.verify()
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    builder.getModulePassManager().run(module, builder)
    data = machine.emit_object(module)
    code = load({symbols[0]: data})
    return LoadedCode({symbol: code.engine.get_function_address(symbol) for symbol in symbols}, code.engine)


def native_target_machine() -> Any:
    """A target machine for the plainest CPU of this process's architecture: objects carry their own features."""
    _initialise()
    return llvm.Target.from_default_triple().create_target_machine(opt=2, reloc="pic", codemodel="small")


@functools.cache
def _initialise() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    if sys.platform.startswith("linux") and llvm.address_of_symbol("expf") is None:
        llvm.load_library_permanently("libm.so.6")  # Python may hold the C maths library privately


def _require_object(symbol: str, data: bytes) -> None:
    """Refuse what is plainly no object file of this platform (ELF, Mach-O or COFF by its first bytes)."""
    magic = {"linux": b"\x7fELF", "darwin": b"\xcf\xfa\xed\xfe"}.get(sys.platform, data[:2] or b"?")
    if not data.startswith(magic):
        raise CompileError(f"the machine code of {symbol} is no object file of this platform; compile it again")
