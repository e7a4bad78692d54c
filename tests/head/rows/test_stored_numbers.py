"""Whole numbers of a checkpoint: taken up to their bounds, refused beyond."""

import pytest
import torch
from torch import Tensor

from facelab.errors import CheckpointError
from facelab.head.rows.stored_numbers import require_whole

RANGES = {"slot": (-1, 7)}


@pytest.mark.parametrize(
    "given",
    [torch.tensor([-1, 7]), torch.tensor(7, dtype=torch.int32), torch.zeros(0, dtype=torch.int64), torch.tensor(True)],
)
def test_numbers_within_their_range_are_taken(given: Tensor) -> None:
    require_whole({"table.slot": given, "slot": torch.tensor(99)}, "table.", RANGES, "it")
    require_whole({}, "table.", RANGES, "it")  # what is missing is torch's to say


@pytest.mark.parametrize("given", [torch.tensor([0, 8]), torch.tensor(-2), torch.tensor([0.0]), torch.tensor(1j)])
def test_others_are_refused_by_name(given: Tensor) -> None:
    with pytest.raises(CheckpointError, match=r"'table\.slot' of it must be whole numbers from -1 to 7, and some are"):
        require_whole({"table.slot": given}, "table.", RANGES, "it")
