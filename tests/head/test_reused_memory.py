"""Memory of one step that the next one uses again: only when nobody has it any more."""

import copy
import pickle

import pytest
import torch
from torch import Tensor

from facelab.head import reused_memory
from facelab.head.margins.arcface import ArcFace
from facelab.head.reused_memory import ReusedMemory
from facelab.head.rows.full_softmax import FullSoftmax
from facelab.head.rows.partial_fc import PartialFC

LIKE = torch.zeros(1)


@pytest.fixture(autouse=True)
def _small_tensors_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reused_memory, "LEAST", 0)


def empty(memory: ReusedMemory, *shape: int) -> Tensor:
    return memory.empty(torch.Size(shape), LIKE)


def test_memory_comes_back_when_the_last_view_of_it_is_gone() -> None:
    memory = ReusedMemory()
    first = empty(memory, 5, 3)
    view, place = first[2:].T, first.data_ptr()
    del first
    other = empty(memory, 5, 3)
    assert other.data_ptr() != place
    del view
    smaller = empty(memory, 2, 3)
    assert (smaller.data_ptr(), smaller.shape, smaller.dtype) == (place, (2, 3), torch.float32)
    assert place % 64 == 0


def test_what_autograd_has_is_not_given_away() -> None:
    memory = ReusedMemory()
    factor = torch.ones(4, requires_grad=True)
    kept = empty(memory, 4).fill_(2.0)
    total = (factor * kept).sum()
    del kept
    empty(memory, 4).fill_(9.0)
    total.backward()
    assert factor.grad is not None
    assert factor.grad.tolist() == [2.0] * 4


def test_what_is_too_small_goes_when_more_is_wanted() -> None:
    memory = ReusedMemory()
    for size in (4, 8, 16):
        empty(memory, size)
    assert [block.size for block in memory._blocks] == [64]


def test_copies_begin_without_memory() -> None:
    memory = ReusedMemory()
    empty(memory, 4)
    for other in (copy.deepcopy(memory), pickle.loads(pickle.dumps(memory))):
        assert isinstance(other, ReusedMemory)
        assert other._blocks == []


@pytest.mark.parametrize("kind", [FullSoftmax, PartialFC])
def test_gradients_and_graphs_outlive_the_next_step(kind: type[FullSoftmax]) -> None:
    torch.manual_seed(0)
    options = {"sample_rate": 0.5} if kind is PartialFC else {}
    model = kind(num_classes=40, feat_dim=8, head=ArcFace(), **options)  # type: ignore[arg-type]
    model.class_precision = "bf16"  # in chunks
    features, labels = torch.randn(2, 6, 8), torch.randint(40, (2, 6))

    def gradient(*batches: int) -> Tensor:
        model.weight.grad = None
        losses = [model(features[batch], labels[batch]).loss for batch in batches]  # all before the first is left
        sum(losses).backward()  # type: ignore[union-attr]
        given: Tensor = model.weight.grad  # type: ignore[assignment]
        return given.detach()

    first = gradient(0)
    before = first.to_dense().clone()
    second = gradient(1).to_dense().clone()
    assert first.to_dense().equal(before)
    del first
    torch.testing.assert_close(gradient(0, 1).to_dense(), before + second)
