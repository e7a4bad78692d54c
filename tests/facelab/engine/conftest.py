"""A CUDA graph for the CPU: operations are recorded, not done, and repeated on the memory that they had."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

LOOKS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2")


class RecordedGraph:
    """As `torch.cuda.CUDAGraph`: constants of the host stay what they were, new tensors always lie where they lay."""

    def __init__(self) -> None:
        self.operations: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Tensor]]] = []

    def replay(self) -> None:
        """Do it again."""
        with torch.no_grad():
            for operation, args, kwargs, outputs in self.operations:
                for place, value in zip(outputs, _tensors(operation(*args, **kwargs)), strict=True):
                    if place.data_ptr() != value.data_ptr():
                        place.copy_(value)


class _Recorder(TorchDispatchMode):
    """Records what is done, and remembers what was before whatever is written over."""

    def __init__(self, graph: RecordedGraph) -> None:
        super().__init__()
        self.graph = graph
        self.before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        if name in LOOKS:
            raise RuntimeError("operation not permitted when stream is capturing")
        given = [*zip(func._schema.arguments, args, strict=False)]
        given += [(one, kwargs[one.name]) for one in func._schema.arguments if one.name in kwargs]
        for declared, value in given:
            # BatchNorm does not declare that it writes its statistics.
            if "batch_norm" in name or (declared.alias_info is not None and declared.alias_info.is_write):
                for tensor in _tensors(value):
                    self.before.setdefault(tensor.data_ptr(), (tensor.detach(), tensor.detach().clone()))
        result = func(*args, **kwargs)
        views = any(one.alias_info is not None and not one.alias_info.is_write for one in func._schema.returns)
        if not views:
            self.graph.operations.append((func, args, kwargs, [one.detach() for one in _tensors(result)]))
        return result


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


class _Stream:
    def __init__(self, *_: Any) -> None:
        pass

    def wait_stream(self, _: Any) -> None:
        pass


@contextmanager
def _capture(graph: RecordedGraph, **_: Any) -> Iterator[None]:
    recorder = _Recorder(graph)
    with recorder:
        yield
    for place, value in reversed(recorder.before.values()):  # a capture does nothing
        place.copy_(value)


@pytest.fixture(params=["recorded", pytest.param("cuda", marks=pytest.mark.cuda)])
def graph_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where graphs are made: on a GPU, or on the CPU by recording what is done."""
    if request.param == "cuda":
        request.getfixturevalue("gpu")
        return "cuda"
    monkeypatch.setattr(torch.cuda, "Stream", _Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", _Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", RecordedGraph)
    monkeypatch.setattr(torch.cuda, "graph", _capture)
    return "cpu"
