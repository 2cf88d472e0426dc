"""The measuring kernels do the work that they say they do."""

from __future__ import annotations

import numpy as np

from graphc.codegen.host import host
from graphc.codegen.machine import compile_source
from graphc.codegen.tile.peak import peak_kernels


def test_fma_peak_does_n_steps(kernel_loader):
    peak, _, _ = peak_kernels(2)
    call = kernel_loader(compile_source(peak.source, peak.name))
    buffer = np.zeros(peak.buffers[0], np.float32)
    half = len(buffer) // 2
    buffer[:half] = 1
    buffer[half:] = 0.5
    call(buffer, np.array([3]), thread=0, threads=2)
    assert (buffer[:half] == 2 ** 3).all() and (buffer[half:] == 0.5).all()
    assert peak.flops(3) == 3 * half * 2


def test_memory_kernels_share_the_arrays(kernel_loader):
    _, read, triad = peak_kernels(3)
    n = read.step * 10
    b, c = np.arange(n, dtype=np.float32) % 64, np.ones(n, np.float32)
    total, a = np.zeros(3, np.float32), np.zeros(n, np.float32)
    for kernel, arrays in ((read, (b, total)), (triad, (a, b, c))):
        call = kernel_loader(compile_source(kernel.source, kernel.name))
        for thread in range(3):
            call(*arrays, np.array([n]), thread=thread, threads=3)
    assert total.sum() == b.sum() and (total > 0).all()
    np.testing.assert_array_equal(a, b + 3)
    assert (read.bytes(n), triad.bytes(n), triad.flops(n)) == (4 * n, 12 * n, 2 * n)


def test_the_fma_loop_stays_in_registers():
    peak = peak_kernels(1)[0]
    asm = compile_source(peak.source, peak.name).asm
    spills = [line for line in asm.splitlines() if "rsp" in line and "mm" in line]
    assert not spills or host().lanes < 16
