"""Torch devices: known, there, and large enough."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mts_driver.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from integrators.state import Evaluation


def check_device(device: str) -> None:
    """Require a device that models run on and that this machine has.

    Raises
    ------
    UserError
        If it is no name of one, of another kind, or not there.
    """
    if device == "cpu":  # which needs no torch
        return
    import torch

    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"device {device!r} is not known: use cpu, cuda or cuda:0.") from error
    if wanted.type == "cpu":
        return
    if wanted.type != "cuda":
        raise UserError(f"device {device!r} is not supported: use cpu, cuda or cuda:0.")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (wanted.index or 0) >= count:
        there = f"only {count}, from cuda:0 on" if count else "none"
        why = "" if torch.version.cuda else "; this PyTorch was built without CUDA"
        raise UserError(
            f"device {device!r}: of the GPUs that PyTorch can use there are {there}{why}. Use cpu, "
            "or install PyTorch for CUDA and its driver."
        )


def of_local_rank(device: str, rank: int) -> str:
    """Return the device of a process.

    Parameters
    ----------
    device : str
        ``cuda`` is a GPU for every process of a machine, in turn where there are fewer GPUs.
    rank : int
        Of the process among those of its machine.
    """
    if device != "cuda":
        return device
    import torch

    return f"cuda:{rank % max(torch.cuda.device_count(), 1)}"


@contextmanager
def memory_said(model: str, atoms: int, device: object) -> Iterator[None]:
    """Say in words that a device has no memory for so many atoms, of all replicas.

    Raises
    ------
    UserError
        In the place of torch's error.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        where = torch.device(str(device))
        size = ""
        if where.type == "cuda":
            size = f" and its {torch.cuda.mem_get_info(where)[1] / 2**30:.0f} GiB"
        raise UserError(
            f"{model}: {atoms} atoms in one call are too many for device={str(device)!r}{size}: "
            "fewer fit. Take a smaller system, fewer beads or replicas at once, another GPU, or "
            "--device cpu. What was written before stays."
        ) from error


def as_batch(positions: Tensor, cell: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return positions (R, N, 3) and cells (R, 3, 3) of all replicas in float64 on a device."""
    x = positions.detach().to(device).double().reshape(-1, *positions.shape[-2:])
    cells = cell.detach().to(device).double().expand(*positions.shape[:-2], 3, 3)
    return x.contiguous(), cells.reshape(-1, 3, 3).contiguous()


def as_asked(found: Evaluation, positions: Tensor) -> Evaluation:
    """Return an evaluation of all replicas in the shape, the place and the type of positions."""
    shape = positions.shape[:-2]
    return found._replace(
        # of whole systems: they need float64 even where the forces do not
        energy=found.energy.reshape(shape).to(positions.device),
        forces=found.forces.reshape(positions.shape).to(positions),
        virial=found.virial.reshape(*shape, 3, 3).to(positions),
    )
