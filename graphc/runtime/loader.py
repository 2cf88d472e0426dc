"""Relocatable object files to callable addresses, by LLVM's MCJIT: nothing is compiled here but the driver.

Objects may leave only the C library's symbols unresolved (`expf`, `memset`), which are found in the process, and those
that `define` has named.
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

_OBJECT_MAGIC = {"linux": b"\x7fELF", "darwin": b"\xcf\xfa\xed\xfe"}


@dataclass(frozen=True)
class LoadedCode:
    """Machine code in memory. `addresses` maps symbols to entry points, valid as long as this object lives."""

    addresses: Mapping[str, int]
    engine: Any  # owns the memory


def load(objects: Mapping[str, bytes]) -> LoadedCode:
    """Load object files: `objects` maps a symbol to the bytes of the file that defines it.

    Raises CompileError when bytes are no object file of this platform or do not define their symbol.
    """
    # An engine cannot be made without a module; objects carry their own CPU features, so a plain target will do.
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target_machine())
    for symbol, data in objects.items():
        # Seen here, because LLVM ends the process when it meets another format.
        usable = data.startswith(_OBJECT_MAGIC.get(sys.platform, b""))
        parsed = llvm.ObjectFileRef.from_data(data) if usable else None
        if not parsed:  # a null pointer counts as false
            raise CompileError(f"the machine code of {symbol} is no object file of this platform; compile it again")
        engine.add_object_file(parsed)
    engine.finalize_object()
    addresses = {symbol: engine.get_function_address(symbol) for symbol in objects}
    for symbol, address in addresses.items():
        if not address:
            raise CompileError(f"the machine code given for {symbol} does not define that symbol; compile it again")
    return LoadedCode(addresses, engine)


def define(symbols: Mapping[str, int]) -> None:
    """Functions at these addresses can be called by that name from all that is loaded later."""
    for symbol, address in symbols.items():
        llvm.add_symbol(symbol, address)


def assemble(text: str) -> bytes:
    """LLVM assembly `text` to a relocatable object file, unoptimised, for any CPU of this architecture.

    For the little code that belongs to the runtime itself. Raises RuntimeError when the text is not valid.
    """
    module = llvm.parse_assembly(text)
    module.verify()
    return bytes(_target_machine().emit_object(module))


def _target_machine() -> Any:
    _initialise()
    return llvm.Target.from_default_triple().create_target_machine(opt=0, reloc="pic", codemodel="small")


@functools.cache
def _initialise() -> None:
    """Once in a process: LLVM's native target, and the C maths library where Python holds it privately."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    if sys.platform == "linux" and llvm.address_of_symbol("expf") is None:
        llvm.load_library_permanently("libm.so.6")
