"""What comes back of a step to the host: put together in one launch, fetched in one piece."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from integrators.compiled_loop import Found, Taken
from integrators.device.kernels import EACH, TOLD, ending_kernel
from integrators.device.launches import launch
from integrators.splitting import FAST
from integrators.state import Evaluation


class StepLost(ValueError):
    """A step that has no end: the trajectory blew up."""


def in_one_piece(parts: Sequence[Tensor]) -> list[np.ndarray]:
    """Bring tensors to the host, float64, and wait for the device once."""
    joined = torch.cat([part.double().flatten() for part in parts])
    return _split(joined.cpu().numpy(), [part.shape for part in parts])


def _split(flat: np.ndarray, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
    return [a.reshape(shape) for a, shape in zip(np.split(flat, ends), shapes, strict=True)]


class State(NamedTuple):
    """Where a step ends; all but the last two are float64.

    Attributes
    ----------
    x, v, p, extra : Tensor, shapes (P, N, 3), (P, N, 3), (P, N, 3) and (k, P, N, 3)
        Positions, velocities, momenta, which are made here, and extra momenta.
    masses, inverse : Tensor, shape (N,)
        0 both for atoms that are held.
    groups : Tensor, shape (G, N)
        1 for atoms of a group.
    heat, twice : Tensor, shapes (P, H) and (n, P, N)
        What thermostats have brought in, in parts; m v² of every atom behind each of their steps.
    flags, lost : int32 Tensor, shapes (M, 3) and (1,)
        As `integrators.device.walk.Walk` has them; of every model the last flag.
    """

    x: Tensor
    v: Tensor
    p: Tensor
    extra: Tensor
    masses: Tensor
    inverse: Tensor
    groups: Tensor
    heat: Tensor
    twice: Tensor
    flags: Tensor
    lost: Tensor


def end(
    state: State,
    told: Sequence[Sequence[Tensor]],
    known: Mapping[str, Evaluation],
    found: Mapping[str, Evaluation],
    joined: Tensor,
) -> None:
    """Put a step together; waits for nothing.

    Parameters
    ----------
    state : State
        Where it ends. Velocities become those of momenta that come back from a file.
    told : sequence of sequence of int32 Tensor, shape (2,)
        Of every model, what is above zero where its lists did not do.
    known, found : mapping of str to Evaluation
        Of every model, where evaluations are kept; and those that are to be, from anywhere.
    joined : float64 Tensor, flat
        Flags, lost, heat, x, p, extra, Σ m v² of every group (n, G), and what is known; behind
        them what is set above zero if something is not finite.
    """
    none, nothing = state.v.new_zeros(0), torch.zeros(2, dtype=torch.int32, device=state.v.device)
    flags = [t for one in told for t in (*one, *[nothing] * (TOLD - len(one)))]
    flags += [nothing] * (2 * TOLD - len(flags))
    sources = [part for name in known for part in found.get(name, known[name])]
    kept = [part for name in known for part in known[name]]
    sources, kept = (parts + [none] * (6 - len(parts)) for parts in (sources, kept))
    beads, atoms = state.x.shape[:2]
    steps, groups = len(state.twice), len(state.groups)
    rows = 1 + steps * groups
    copied = 2 * state.x.numel() + state.extra.numel() + sum(part.numel() for part in sources)
    kernel = ending_kernel(state.v.device.type)
    launch(
        *(kernel.end, (rows + -(-copied // EACH), kernel.threads), rows, copied, beads, atoms),
        *(groups, len(told), *(_flat(part) for part in state), *flags, *map(_flat, sources)),
        *(*map(_flat, kept), joined),
        block=kernel.threads,
    )


def _flat(tensor: Tensor) -> Tensor:
    return tensor.view(-1)


class Results:
    """A step in one piece, on the device and where the host has it.

    Parameters
    ----------
    shapes : sequence of tuple of int
        Of what it is made of; flags first, and whether something is lost.
    device : torch.device
        Where it is put together.

    Attributes
    ----------
    joined : float64 Tensor, flat
        All of it, and what is above zero if something is not finite.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]], device: torch.device) -> None:
        self._shapes = tuple(shapes)
        size = sum(map(math.prod, shapes)) + 1
        self.joined = torch.zeros(size, dtype=torch.float64, device=device)
        self._next, self._hosts = 0, [_Host(self.joined) for _ in range(2)]

    def break_off(self, flags: Tensor, lost: Tensor) -> None:
        """Have the flags of a step that has no end; waits for nothing."""
        self.joined.zero_()
        told = torch.cat([flags.flatten(), lost])
        self.joined[: len(told)].copy_(told)

    def send(self) -> int:
        """Have what was joined sent to the host; waits for nothing.

        Returns
        -------
        int
            What to get it by, before the next but one is sent.
        """
        sent, self._next = self._next, 1 - self._next
        self._hosts[sent].send(self.joined)
        return sent

    def get(self, sent: int) -> tuple[list[np.ndarray], bool]:
        """Wait for what was sent; views of it, float64, and whether all is finite."""
        flat = self._hosts[sent].get()
        return _split(flat[:-1], self._shapes), not flat[-1] > 0.0


class _Host:
    """Memory that a GPU writes to by itself."""

    def __init__(self, like: Tensor) -> None:
        on_gpu = like.device.type == "cuda"
        self._all = torch.empty(like.shape, dtype=like.dtype, pin_memory=on_gpu)
        self._there = torch.cuda.Event() if on_gpu else None

    def send(self, tensor: Tensor) -> None:
        self._all.copy_(tensor, non_blocking=True)
        if self._there is not None:
            # torch would take that of its current device, which may be another
            self._there.record(torch.cuda.current_stream(tensor.device))

    def get(self) -> np.ndarray:
        if self._there is not None:
            self._there.synchronize()
        return self._all.numpy()


def require_finite(taken: Taken, teacher: Found | None) -> None:
    """Refuse to hand on what would spoil a checkpoint."""
    for name, found in (("student", taken.evaluations[FAST]), ("teacher", teacher)):
        if found is not None and not np.isfinite(found[0].sum() + found[1].sum()):
            raise StepLost(
                f"the {name} returned numbers that are not finite: atoms overlap, or the structure "
                "lies outside what it knows"
            )
    if not np.isfinite(taken.momenta.sum() + taken.extra.sum()):
        raise StepLost("momenta are not finite: the trajectory blew up")
