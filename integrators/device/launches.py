"""NVIDIA Warp, whose kernels run on the CPU and on CUDA from one source, beside torch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
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
    """Return a Warp array of the same memory; ``dtype`` may be a vector of its last axis.

    Raises
    ------
    ValueError
        If there are gaps between its numbers, which kernels in C++ do not know of.
    """
    if not tensor.is_contiguous():
        raise ValueError(f"a tensor of strides {tensor.stride()} cannot be shared with a kernel")
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


IN_BLOCKS = """
#if defined(__CUDA_ARCH__)
#define SHARED __shared__
#define WAIT() __syncthreads()
#else
#define SHARED
#define WAIT()
#endif
"""
"""What kernels in C++ start with whose blocks have memory in common.

Behind ``WAIT()`` the threads of a block see what the others have written. On the CPU a block is one
thread.
"""


RANK = """
SHARED int flags[T];
// how many of the threads before this one, of the first ``many``, have the flag, behind ``so_far``,
// which then counts all of them
const auto rank = [&](int flag, int many, int& so_far) {
    flags[t] = flag;
    WAIT();
    int place = so_far;
    for (int o = 0; o < T && o < many; ++o) {
        place += o < t ? flags[o] : 0;
        so_far += flags[o];
    }
    WAIT();
    return place;
};
"""
"""For kernels in C++ whose T threads pack what some of them have found."""

ADDED_UP = """
SHARED double shares[SUMS * T];
// each of SUMS numbers over all threads of the block, a power of two
const auto added_up = [&](double* value) {
    for (int n = 0; n < SUMS; ++n) shares[T * n + t] = value[n];
    WAIT();
    for (int half = T / 2; half > 0; half /= 2) {
        for (int n = 0; t < half && n < SUMS; ++n) shares[T * n + t] += shares[T * n + t + half];
        WAIT();
    }
    for (int n = 0; n < SUMS; ++n) value[n] = shares[T * n];
    WAIT();
};
"""
"""For kernels in C++ whose T threads add up what each of them has found."""


def launch(kernel: Any, dim: tuple[int, ...], *arguments: Any, block: int) -> None:
    """Launch a kernel once, on torch's stream of the first tensor; returns before it is done."""
    first = next(a for a in arguments if isinstance(a, Tensor))
    with on_torch_stream(first.device):
        warp().launch(
            *(kernel, dim, [shared(a) if isinstance(a, Tensor) else a for a in arguments]),
            device=warp().device_from_torch(first.device),
            block_dim=block,
        )


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
        self._replaced = dict[int, Sequence[Any]]()

    def add(self, kernel: Any, dim: tuple[int, ...], *arguments: Any, block: int = 256) -> None:
        """Add one; tensors are shared, and must not move afterwards.

        So many threads as ``block`` says are on a GPU together.
        """
        inputs = [shared(a) if isinstance(a, Tensor) else a for a in arguments]
        self._kept += inputs
        how = {"device": warp().device_from_torch(self._device), "block_dim": block}
        self._all.append(warp().launch(kernel, dim=dim, inputs=inputs, record_cmd=True, **how))

    def keep(self, what: Any) -> None:
        """Have what structures that were given hold only addresses of."""
        self._kept.append(what)

    def replace(self, launch: int, arrays: Sequence[Any]) -> None:
        """Have other arrays as the first arguments of a launch, from now on."""
        self._replaced[launch] = arrays
        for place, array in enumerate(arrays):
            self._all[launch].set_param_at_index(place, array)

    def run(self) -> None:
        """Launch all; returns before a GPU has done them."""
        stream = None
        if self._device.type == "cuda":
            stream = warp().stream_from_torch(torch.cuda.current_stream(self._device))
        for command in self._all:
            command.launch(stream)

    def __len__(self) -> int:
        return len(self._all)
