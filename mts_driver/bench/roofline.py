"""How fast a student could be: the arithmetic it needs, against what the machine can do.

The count is of the algorithm, not of a program: what any evaluation of energies and forces must
compute and move, so that it stays the same while the kernels get better.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from mts_driver.potentials.student.model import INVARIANTS, MOMENTS, StudentConfig
from mts_driver.structures.neighbors import VerletList

MATRIX = 1024
COPIED_BYTES = 256 * 1024 * 1024


class Work(NamedTuple):
    """Floating-point operations and bytes of one call."""

    flops: float
    bytes: float


def student_work(config: StudentConfig, *, atoms: int, neighbors: int) -> Work:
    """Count the work of one call: the sums over neighbours and the networks.

    Left out: neighbour lists, lengths and directions of pairs, and everything once an atom that is
    not a matrix or an invariant. A multiplication and an addition count one each, a root or a
    division as one.

    For each neighbour and channel, forward: 6 for a cubic of the radial function, 20 to add it to
    10 moments, and in the second sum 1 for what the neighbour sent. Backward: 10 for cubic and
    slope, 18 for the derivative by the radial function, 2 along the bond, 24 across it, and in the
    second sum 4 more.

    For each atom and channel: 81 for the invariants (3 products of vectors of 5, 3 of tensors of
    12, 15 for A2·A1, 3 products with it of 5) and 7 to shift, scale and bound each of the 10; twice
    that backward. For each atom, 2 for each weight of its networks, and the same again backward in
    all layers but the last. A direct student has no backward pass; its forces take 15 for each
    channel of A2·A1 and 12 to sum the channels of both vectors.

    Bytes: 40 for each neighbour (index, vector and length), written once and read by every pass
    over the neighbours; for each atom and channel the 10 moments, the 10 inputs of the networks and
    the derivatives by them, in float32, which are moved 2, 3 and 2 times (direct: 2, 2 and 0).

    Parameters
    ----------
    neighbors : int
        Of all atoms together, within the cutoff: every pair counts twice.
    """
    c, m, h = config.channels, config.messages, config.hidden
    conservative = not config.direct
    sums = 2 if m else 1
    per_neighbor = (26 + 54 * conservative) * (c + m) + (1 + 4 * conservative) * m
    per_channel = (81 + 7 * INVARIANTS) * (3 if conservative else 1)
    layers = INVARIANTS * c * h + (h + INVARIANTS * m) * h + h * m
    last = h if conservative else h * 2 * (c + m)
    networks = 2 * layers * (2 if conservative else 1) + 2 * last
    if config.direct:
        per_channel += 15 + 12
    flops = neighbors * per_neighbor + atoms * (per_channel * (c + m) + networks)
    passes = sums * (2 if conservative else 1)
    arrays = 2 * MOMENTS + (5 if conservative else 2) * INVARIANTS
    moved = neighbors * 40 * (1 + passes) + atoms * (c + m) * 4 * arrays
    return Work(float(flops), float(moved))


def neighbors_within(positions: np.ndarray, cell: np.ndarray, cutoff_A: float) -> int:
    """Count the neighbours of all atoms: every pair within the cutoff, twice."""
    return 2 * len(VerletList(cutoff_A=cutoff_A, skin_A=0.0).pairs(positions, cell).i)


def machine_peak(*, seconds: float, device: str = "cpu") -> dict[str, float]:
    """Measure ``gflop_s`` of float32 matrix products and ``gb_s`` of copying large arrays."""
    # what fills a CPU for a millisecond a GPU does in the time of a launch
    size = MATRIX if device == "cpu" else 4 * MATRIX
    a, b = (torch.rand(size, size, device=device) for _ in range(2))
    source = torch.rand(COPIED_BYTES // 8, device=device)  # half the bytes are read, half written
    target = torch.empty_like(source)
    product_s = _fastest(lambda: torch.mm(a, b), seconds, device)
    copy_s = _fastest(lambda: target.copy_(source), seconds, device)
    return {"gflop_s": 2e-9 * size**3 / product_s, "gb_s": 1e-9 * COPIED_BYTES / copy_s}


def attainable_gflop_s(work: Work, peak: dict[str, float]) -> float:
    """Return the roof: the lower of the peak and what the memory can feed."""
    return min(peak["gflop_s"], peak["gb_s"] * work.flops / work.bytes)


def _fastest(function: Callable[[], object], seconds: float, device: str) -> float:
    """Return the shortest time of a call, s: what else the machine does is not its peak."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        function()
        wait()
        times.append(time.perf_counter() - start)
    return min(times)
