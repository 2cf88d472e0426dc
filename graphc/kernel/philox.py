"""The random bits of graphc: counter-based Philox 4x32-10, in plain NumPy. Every back end gives exactly these bits.

J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

The recipe. A draw is named by five integers: the program's `seed`, the random op's `stream`, the training `step`, the
index of the surrounding `loop` (0 outside loops), and the `element`'s index in the op's output. The key is
(seed low, seed high), the counter (position, stream, step, loop), each taken modulo 2**32.

* float32: elements come in blocks of 64 = 4 words x 16 positions, so that four vectors share one evaluation:
  element = 64 block + 16 word + lane has position 16 block + lane, and the value is (word >> 8) * 2**-24.
* float64: position = element, and the value is ((word 0 >> 5) * 2**26 + (word 1 >> 6)) * 2**-53.

Values lie in [0, 1).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike, NDArray

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
WORDS = 4
POSITIONS = 16
ELEMENT_LIMIT = {"float32": 2 ** 34, "float64": 2 ** 32}

_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


def philox4x32(counter: NDArray[np.uint32], key: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The ten-round Philox bijection.

    `counter` is uint32[..., 4] and `key` uint32[..., 2], broadcast against each other without their last axes;
    returns the four random words uint32[..., 4]. Raises ValueError where the last axes have other sizes.
    """
    counter, key = np.asarray(counter, np.uint32), np.asarray(key, np.uint32)
    if counter.shape[-1:] != (4,) or key.shape[-1:] != (2,):
        raise ValueError(f"philox4x32 takes counters [..., 4] and keys [..., 2], not {counter.shape} and {key.shape}")
    c0, c1, c2, c3 = (counter[..., i].astype(np.uint64) for i in range(4))
    k0, k1 = (key[..., i].astype(np.uint64) for i in range(2))
    for _ in range(ROUNDS):
        first, second = c0 * np.uint64(MULTIPLIERS[0]), c2 * np.uint64(MULTIPLIERS[1])
        c0, c1, c2, c3 = (second >> _32) ^ c1 ^ k0, second & _LOW, (first >> _32) ^ c3 ^ k1, first & _LOW
        k0, k1 = (k0 + np.uint64(KEY_INCREMENTS[0])) & _LOW, (k1 + np.uint64(KEY_INCREMENTS[1])) & _LOW
    return np.stack(np.broadcast_arrays(c0, c1, c2, c3), axis=-1).astype(np.uint32)


def uniform(seed: int, stream: int, step: int, loop: int, elements: NDArray[np.int64],
            dtype: DTypeLike = np.float32) -> NDArray[np.floating]:
    """Uniform numbers in [0, 1) of `dtype` (float32 or float64), shaped like `elements`, by the module's recipe.

    Raises ValueError for another dtype, or an element index that is negative or has no counter of its own.
    """
    name = np.dtype(dtype).name
    if name not in ELEMENT_LIMIT:
        raise ValueError(f"random.uniform gives float32 or float64, not {name}")
    elements = np.asarray(elements, np.int64)
    if elements.size and (elements.min() < 0 or elements.max() >= ELEMENT_LIMIT[name]):
        raise ValueError(f"element indices of {name} draws lie in 0 .. {ELEMENT_LIMIT[name] - 1}")
    single = name == "float32"
    counter = np.empty((*elements.shape, 4), np.uint32)
    counter[..., 0] = (elements >> 6 << 4 | elements & 15) if single else elements
    counter[..., 1:] = [v & 0xFFFFFFFF for v in (stream, step, loop)]
    key = np.array([seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF], np.uint32)
    words = philox4x32(counter, key)
    if single:
        word = np.take_along_axis(words, (elements >> 4 & 3)[..., None], axis=-1)[..., 0]
        return (word >> np.uint32(8)).astype(np.float32) * np.float32(2.0 ** -24)
    high, low = (words[..., 0] >> np.uint32(5)).astype(np.float64), (words[..., 1] >> np.uint32(6)).astype(np.float64)
    return (high * 2.0 ** 26 + low) * 2.0 ** -53
