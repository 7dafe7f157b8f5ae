"""Torch devices: known, there, and large enough."""

from collections.abc import Iterator
from contextlib import contextmanager

from mts_driver.errors import UserError


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
