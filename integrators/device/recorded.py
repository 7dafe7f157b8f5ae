"""A function that a GPU repeats by itself: a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import torch


class Recorded:
    """A function of arrays that stay where they are; on CUDA one graph from its second call on.

    Parameters
    ----------
    function : callable
        Waits for nothing.
    device : torch.device
        Of the arrays.
    """

    def __init__(self, function: Callable[[], None], device: torch.device) -> None:
        self._function, self._device = function, device
        self._graph: torch.cuda.CUDAGraph | None = None
        self._called = False

    def __call__(self) -> None:
        """Call it, or launch its graph."""
        if self._device.type != "cuda":
            self._function()
        elif not self._called:
            # what is compiled or allocated once is so beside the stream that is recorded
            side = torch.cuda.Stream(self._device)
            side.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(side):
                self._function()
            torch.cuda.current_stream(self._device).wait_stream(side)
        else:
            if self._graph is None:
                self._graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self._graph):
                    self._function()
            self._graph.replay()
        self._called = True
