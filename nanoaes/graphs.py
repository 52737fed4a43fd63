"""Record a function of tensors once per size as a CUDA graph, then replay it.

A one-token forward is hundreds of short kernels; launched one by one from Python they take longer
than they run. A graph replays them from fixed addresses: inputs are copied into static buffers, the
output is read from one. Weights may change in place between replays; where they have moved, all
graphs are dropped and recorded again.
Left out: torch.compile (it would repeat the key heads for each of their query heads), prefill and
sampling (few, large kernels).
"""

from collections.abc import Callable, Hashable, Iterable
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
Recorder = Callable[[Callable[[], Tensor]], tuple[Callable[[], Any], Tensor]]


def cuda_graph(function: Callable[[], Tensor]) -> tuple[Callable[[], Any], Tensor]:
    """Capture `function`; returns what replays it and the tensor that a replay fills.

    `function` runs three times, so it must give the same result when it runs again.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # libraries allocate their workspaces outside the capture
        for _ in range(2):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=_pool()):
        out = function()
    return graph.replay, out


@cache
def _pool() -> Any:
    """One memory pool for the insides of all graphs: they never run at the same time."""
    return torch.cuda.graph_pool_handle()


class Graphs:
    """The recorded sizes of one function, and the storage that their kernels point into."""

    def __init__(self, record: Recorder = cuda_graph):
        self.record = record
        self.addresses: list[int] = []
        self.storage: dict[Hashable, Any] = {}
        self.recorded: dict[Hashable, tuple[list[Tensor], Callable[[], Any], Tensor]] = {}

    def keep(self, size: Hashable, make: Callable[[], T], weights: Iterable[Tensor]) -> T:
        """Storage of that size, the same object as last time, or a new one and no graphs.

        Args:
            weights: what the recorded function reads besides; if one has moved, all begins anew.
        """
        addresses = [w.data_ptr() for w in weights]
        if size not in self.storage or addresses != self.addresses:
            self.recorded.clear()  # first: they point into what is dropped next
            self.storage = {size: make()}
            self.addresses = addresses
        return self.storage[size]

    def __call__(self, size: Hashable, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """function(*inputs); its result is overwritten by the next call of that size."""
        if size not in self.recorded:
            buffers = [x.clone() for x in inputs]
            self.recorded[size] = buffers, *self.record(lambda: function(*buffers))
        buffers, replay, out = self.recorded[size]
        for buffer, x in zip(buffers, inputs, strict=True):
            buffer.copy_(x)
        replay()
        return out
