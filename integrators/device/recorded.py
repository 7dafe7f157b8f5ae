"""A function that a GPU repeats by itself: a CUDA graph."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from integrators.device.model import DeviceModel
from integrators.state import Evaluation


class Recorded:
    """A function of arrays that stay where they are; on CUDA one graph from its second call on.

    Parameters
    ----------
    function : callable
        Waits for nothing; what it returns is not kept.
    device : torch.device
        Of the arrays.
    """

    def __init__(self, function: Callable[[], object], device: torch.device) -> None:
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
                try:
                    with torch.cuda.stream(self._stream):
                        self._function()
                finally:
                    torch.cuda.current_stream().wait_stream(self._stream)
                return
            if self._graph is None:
                graph = torch.cuda.CUDAGraph()
                with nothing_freed(), torch.cuda.graph(graph, stream=self._stream):
                    self._function()
                self._graph = graph
            self._graph.replay()


@contextlib.contextmanager
def nothing_freed() -> Iterator[None]:
    """Have Python's garbage collector free what it may before, and nothing amid a recording.

    Which ends where memory of a GPU is freed.
    """
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Beside:
    """Work that a GPU may do beside what follows, until both are needed.

    Parameters
    ----------
    device : torch.device
        On the CPU one comes after the other.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._running = False

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Have what is launched inside done beside."""
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        self._running = True
        with torch.cuda.stream(self._stream):
            yield

    def join(self) -> None:
        """Have what follows wait for it, if there is any."""
        # a recording must not wait for a stream that it has nothing on
        if self._stream is not None and self._running:
            torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)
        self._running = False


class RecordedEvaluation:
    """Evaluations of one model at positions from anywhere, by a graph from the second time on.

    It does not keep the model, which has it: what lies on a GPU is freed when it is no longer used.
    """

    def __init__(self) -> None:
        self._run: Recorded | None = None
        self._key: tuple[object, ...] = ()
        self._given: tuple[Tensor, ...] = ()
        self._found: list[Evaluation] = []

    def __call__(self, model: DeviceModel, x: Tensor, cells: Tensor) -> Evaluation:
        """Evaluate with the lists as they are, and return results that stay."""
        key = x.shape, model.place
        if self._run is None or key != self._key:
            self._given, self._found, self._key = (x.clone(), cells.clone()), [], key
            evaluate = _evaluation(weakref.proxy(model), *self._given, self._found)
            self._run = Recorded(evaluate, x.device)
        for mine, new in zip(self._given, (x, cells), strict=True):
            mine.copy_(new)
        self._run()
        return Evaluation(*(part.clone() for part in self._found[0]))


def _evaluation(
    model: DeviceModel, x: Tensor, cells: Tensor, found: list[Evaluation]
) -> Callable[[], None]:
    def evaluate() -> None:
        found[:] = [model.evaluate(x, cells)]

    return evaluate
