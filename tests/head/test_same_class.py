import pytest
import torch

from facelab.head import same_class
from facelab.head.same_class import class_first, class_last, class_sums


def test_samples_of_one_class_are_added_and_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(same_class, "SAMPLES_AT_A_TIME", 2)
    labels = torch.tensor([7, 1, 7, 3, 7])
    values = torch.tensor([[1.0], [2.0], [4.0], [8.0], [16.0]])
    assert class_sums(values, labels).flatten().tolist() == [21.0, 2.0, 21.0, 8.0, 21.0]
    assert class_first(labels).tolist() == [0, 1, 0, 3, 0]
    assert class_last(labels).tolist() == [4, 1, 4, 3, 4]
