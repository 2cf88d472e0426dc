"""Machine code: a C entry point, nothing unresolved, loadable without Numba, and errors that say where."""

from __future__ import annotations

import linecache
import subprocess
import sys
import textwrap

import llvmlite
import numba
import pytest

from graphc.codegen.host import host, host_key
from graphc.codegen.machine import compile_source
from graphc.errors import CompileError

SCALE = """\
def scale(args, thread, threads):
    x = operand_f32(args, 0)
    n = extent(args, 1)
    for i in range(thread, n, threads):
        store_scalar(x, i, tile_exp(load_scalar(x, i)) * f32(2.0))
"""
SHIFT = SCALE.replace("scale", "shift").replace("* f32(2.0)", "+ f32(1.0)")
LIBRARY = SCALE.replace("scale", "library").replace("tile_exp", "tile_sin")


def test_objects_load_together_in_a_process_without_numba(tmp_path):
    codes = [compile_source(source, name) for source, name in
             ((SCALE, "scale"), (SHIFT, "shift"), (LIBRARY, "library"))]
    for i, code in enumerate(codes):
        (tmp_path / f"{i}.o").write_bytes(code.object_bytes)
    script = f"""
        import ctypes, math, sys
        import llvmlite.binding as llvm
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine()
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
        for i in range(3):
            with open(f"{{sys.argv[1]}}/{{i}}.o", "rb") as file:
                engine.add_object_file(llvm.ObjectFileRef.from_data(file.read()))
        engine.finalize_object()
        results = []
        for symbol in {[code.symbol for code in codes]!r}:
            entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(
                engine.get_function_address(symbol))
            x, n = (ctypes.c_float * 5)(1, 1, 1, 1, 1), ctypes.c_int64(4)
            args = (ctypes.c_void_p * 2)(ctypes.addressof(x), ctypes.addressof(n))
            entry(args, 1, 2)
            results.append([round(v, 4) for v in x])
        e, s = round(2 * math.e, 4), round(2 * math.sin(1), 4)
        assert results[0] == [1, e, 1, e, 1], results
        assert results[1] == [1, round(1 + math.e, 4), 1, round(1 + math.e, 4), 1], results
        assert results[2] == [1, s, 1, s, 1], results
        assert "numba" not in sys.modules
        """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_equal_sources_give_equal_code_and_symbols():
    first, second = compile_source(SCALE, "scale"), compile_source(SCALE, "scale")
    assert first.symbol == second.symbol and first.object_bytes == second.object_bytes
    assert first.symbol != compile_source(SHIFT, "shift").symbol
    assert first.symbol in first.llvm_ir and first.symbol in first.asm


def test_steps_and_divisions_known_only_at_run_time_need_no_python():
    source = """\
def kernel(args, thread, threads):
    x = operand_i64(args, 0)
    n = extent(args, 1)
    for i in range(0, n, threads):
        store_scalar(x, i, (i // n) % threads)
"""
    assert "Numba" not in compile_source(source, "kernel").llvm_ir


def test_the_whole_vector_width_is_used():
    code = compile_source("def kernel(args, thread, threads):\n    x = operand_f32(args, 0)\n"
                          "    tile_store(x, 0, 0, tile_load(x, 0, 0, 1, 2) * 2.0)\n", "kernel")
    if host().lanes != 16:
        pytest.skip("looks for AVX-512 instructions, which this processor has not")
    assert "zmm" in code.asm and "ymm" not in code.asm.replace("vzeroupper", "")


@pytest.mark.parametrize(("line", "message"), [
    ("y = tile_nothing(x)", "tile_nothing"),
    ("y = tile_load(x, 0, 0, 1, 1) + tile_load(x, 0, 0, 1, threads)", "positive integer literal"),
    ("print(threads)", "print"),
    ("y = [threads]", "does not compile|may call"),
    ("return threads", "does not compile"),
    ("return threads +", "is no Python"),
])
def test_errors_name_the_kernel_and_the_file(line, message, tmp_path):
    source = f"def bad(args, thread, threads):\n    x = operand_f32(args, 0)\n    {line}\n"
    file = tmp_path / "bad.py"
    file.write_text(source)
    with pytest.raises(CompileError, match=message) as caught:
        compile_source(source, "bad", filename=str(file))
    assert "bad" in str(caught.value)


def test_a_source_without_the_kernel_is_an_error():
    with pytest.raises(CompileError, match="defines no function kernel"):
        compile_source("def other(args, thread, threads):\n    pass\n", "kernel")


def test_sources_are_known_to_tracebacks():
    compile_source(SCALE, "scale", filename="<scale>")
    assert linecache.getline("<scale>", 1) == "def scale(args, thread, threads):\n"


def test_host_key_names_versions():
    assert numba.__version__ in host_key() and llvmlite.__version__ in host_key()
