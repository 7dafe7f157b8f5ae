"""NVIDIA Warp, whose kernels run on the CPU and on CUDA from one source, beside torch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor


@cache
def warp() -> Any:
    """Return the package, set up to be quiet.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    import warp as wp

    wp.config.log_level = wp.LOG_ERROR
    with contextlib.nullcontext() if torch.cuda.is_available() else _silence():
        wp.init()
    return wp


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep from the terminal that there is no GPU, which Warp's library writes by itself."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def shared(tensor: Tensor, dtype: Any = None) -> Any:
    """Return a Warp array of the same memory; ``dtype`` may be a vector of its last axis."""
    return warp().from_torch(tensor, dtype=dtype, requires_grad=False)


@contextlib.contextmanager
def on_torch_stream(device: torch.device) -> Iterator[None]:
    """Have what others launch with Warp on torch's stream, so that it can be recorded there."""
    if device.type != "cuda":
        yield
        return
    stream = warp().stream_from_torch(torch.cuda.current_stream(device))
    # neither stream waits for the other: what is recorded must not
    with warp().ScopedStream(stream, sync_enter=False, sync_exit=False):
        yield


class Launches:
    """Kernels with arrays that stay where they are, one after another on torch's stream.

    Parameters
    ----------
    device : torch.device
        Where all arrays are.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._all = device, list[Any]()
        self._kept: list[Any] = []  # a recorded launch has addresses only

    def add(self, kernel: Any, dim: tuple[int, ...], *arguments: Any) -> None:
        """Add one; tensors are shared, and must not move afterwards."""
        inputs = [shared(a) if isinstance(a, Tensor) else a for a in arguments]
        self._kept += inputs
        device = warp().device_from_torch(self._device)
        self._all.append(
            warp().launch(kernel, dim=dim, inputs=inputs, device=device, record_cmd=True)
        )

    def run(self) -> None:
        """Launch all; returns before a GPU has done them."""
        stream = None
        if self._device.type == "cuda":
            stream = warp().stream_from_torch(torch.cuda.current_stream(self._device))
        for command in self._all:
            command.launch(stream)

    def __len__(self) -> int:
        return len(self._all)
