"""A function that a GPU repeats by itself: a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from integrators.device.model import DeviceModel
from integrators.state import Evaluation


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
        self._stream: torch.cuda.Stream | None = None

    def __call__(self) -> None:
        """Call it, or launch its graph."""
        if self._device.type != "cuda":
            self._function()
            return
        with torch.cuda.device(self._device):
            if self._stream is None:
                # what is compiled or allocated once is so beside the graph, on its stream
                self._stream = torch.cuda.Stream(self._device)
                self._stream.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(self._stream):
                    self._function()
                torch.cuda.current_stream().wait_stream(self._stream)
                return
            if self._graph is None:
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, stream=self._stream):
                    self._function()
                self._graph = graph
            self._graph.replay()


class RecordedModel:
    """A model asked at positions from anywhere, by a graph from the second time on.

    Parameters
    ----------
    model : DeviceModel
        Whose evaluation may be part of a graph.
    """

    def __init__(self, model: DeviceModel) -> None:
        self._model = model
        self._run: Recorded | None = None
        self._key: tuple[object, ...] = ()

    def __call__(self, x: Tensor, cells: Tensor) -> Evaluation:
        """Evaluate with the lists as they are, and return results that stay."""
        key = x.shape, self._model.place
        if self._run is None or key != self._key:
            self._x, self._cells = x.clone(), cells.clone()
            self._run, self._key = Recorded(self._ask, self._model.device), key
        self._x.copy_(x)
        self._cells.copy_(cells)
        self._run()
        return Evaluation(*(part.clone() for part in self._found))

    def _ask(self) -> None:
        self._found = self._model.evaluate(self._x, self._cells)
