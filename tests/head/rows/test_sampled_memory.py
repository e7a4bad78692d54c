"""A step with sampled rows makes nothing that grows with all classes: neither loss and gradient nor the optimiser."""

from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from facelab.catalogue import build
from facelab.engine.optimizers import guarded_step
from facelab.head.base import HEADS
from facelab.head.classifier import UpdateRule
from facelab.head.rows.partial_fc import PartialFC, Unsampled

CLASSES, DIM, BATCH = 20011, 8, 16


class Allocations(TorchDispatchMode):
    """Bytes of the largest new storage of a dense tensor; a sparse one is as large as its values."""

    largest = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        given = {storage(one) for one in dense((args, kwargs))}
        sizes = [one.untyped_storage().nbytes() for one in dense(result) if storage(one) not in given]
        self.largest = max([self.largest, *sizes])
        return result


def dense(tree: Any) -> list[Tensor]:
    return [one for one in tree_leaves(tree) if isinstance(one, Tensor) and one.layout == torch.strided]


def storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


@pytest.mark.parametrize(("kind", "unsampled"), [("sgd", "lazy"), ("sgd", "exact"), ("adamw", "lazy")])
@pytest.mark.parametrize("name", ["CosFace", "AdaM-Softmax", "AdaCos", "NPCFace", "UniFace"])
def test_nothing_grows_with_all_classes(name: str, kind: Literal["sgd", "adamw"], unsampled: Unsampled) -> None:
    rows = PartialFC(CLASSES, DIM, build(HEADS, name, num_classes=CLASSES), sample_rate=0.005, unsampled=unsampled)
    optimizer = rows.optimizer(UpdateRule(kind, 0.1, 5e-4, 0.9, False, (0.9, 0.999), 1e-8))
    assert optimizer is not None
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        features = torch.randn(BATCH, DIM, generator=generator).requires_grad_()
        labels = torch.randint(CLASSES, (BATCH,), generator=generator)
        with Allocations() as allocations:
            rows(features, labels).loss.backward()
            guarded_step(optimizer, torch.zeros(()))
            optimizer.zero_grad()
            rows.after_update()
        assert 0 < allocations.largest < CLASSES  # less than a byte for each class
