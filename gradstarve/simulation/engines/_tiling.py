"""How two-layer networks are laid over the threads of a GPU so that all their numbers stay in registers.

A *program* (a block of threads) holds BLOCK networks as arrays [BLOCK, H], H being the width padded to a power of two, and a
thread holds a few neighbouring neurons of one network. Register counts below are those of 32-bit registers, of which a
thread of an NVIDIA card can have 255 and the threads of one processor share 65,536.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

# Registers that a thread is planned to use at most, that it needs for addresses and the like, that the points of a turn may
# take of them, and that one program may have.
MOST_OF_A_THREAD, SPARE, MOST_OF_POINTS, MOST_OF_A_PROGRAM = 240, 24, 72, 65_536
# Points whose sums are written out in full; more than that are gone through in a loop.
MOST_WRITTEN_OUT = 8
# A warp has 32 threads. Up to so many warps share a network before threads take more neurons instead.
WARP, MANY_WARPS, MOST_WARPS = 32, 8, 32


class Tiling(NamedTuple):
    """How networks are laid over a program's threads."""

    block: int  # networks of a program, BLOCK
    neurons: int  # H, the width padded to a power of two
    each: int  # neurons of a thread
    warps: int
    turn: int  # points of a turn of the loop over points; all of them, if there is no loop


def tiling(h: int, d: int, n: int, dtype: Any, momentum: bool = False) -> Tiling | None:
    """The tiling for networks of `h` neurons on `n` points of `d` coordinates; None if one does not fit into a program.

    A neuron takes 2 (d + 1) numbers, for its weights and the direction of descent, with momentum 3 (d + 1), and one for each
    point of a turn; a thread takes besides d + 2 numbers for each of these points. A number is one register in float32 and
    two in float64. So a turn is all points if they are few, else 4, 2 or 1, whose sums overlap in time; and a thread has 4,
    2 or 1 neurons (2 or 1 in float64, since it loads 16 bytes at a time): neurons of one thread share what is loaded and
    what a network needs once, the residual.

    A program is one warp when a network fits into one, BLOCK = 32 * (neurons of a thread) / H networks: no sum leaves the
    warp, and many small programs spread evenly over the card. Wider networks have a program each, with as many warps as they
    need. The number of networks plays no part: what becomes of one does not depend on how many are trained beside it.

    >>> import numpy as np
    >>> tiling(8, 2, 2, np.float32)
    Tiling(block=16, neurons=8, each=4, warps=1, turn=2)
    >>> tiling(100, 2, 200, np.float64)
    Tiling(block=1, neurons=128, each=2, warps=2, turn=4)
    """
    words = np.dtype(dtype).itemsize // 4
    padded = power_of_two(h)

    def fits(turn: int) -> bool:
        return turn <= n and turn * (d + 2) * words <= MOST_OF_POINTS

    turn = n if n <= MOST_WRITTEN_OUT and fits(n) else next((few for few in (4, 2) if fits(few)), 1)

    def registers(each: int) -> int:
        return SPARE + words * (turn * (d + 2) + each * ((2 + momentum) * (d + 1) + turn))

    each = 4 // words
    while each > 1 and registers(each) > MOST_OF_A_THREAD:
        each //= 2
    while padded > WARP * each * MANY_WARPS and registers(2 * each) <= MOST_OF_A_THREAD:
        each *= 2
    warps = max(1, padded // (WARP * each))
    if registers(each) > MOST_OF_A_THREAD or warps > MOST_WARPS or WARP * warps * registers(each) > MOST_OF_A_PROGRAM:
        return None
    return Tiling(max(1, WARP * each // padded), padded, each, warps, turn)


def power_of_two(least: int) -> int:
    """The smallest power of two that is not below `least` >= 1.

    >>> [power_of_two(k) for k in (1, 2, 3, 8, 9)]
    [1, 2, 4, 8, 16]
    """
    return 1 << (least - 1).bit_length()
