"""Scores that a device computes are looked at when they have come, and none is forgotten."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from facelab.errors import DataError
from facelab.iqa.base import SCORERS
from facelab.run.unread_scores import UnreadScores


@dataclass
class Event:
    """What a GPU says of a copy."""

    come: bool
    waited: bool = False

    def query(self) -> bool:
        return self.come

    def synchronize(self) -> None:
        self.waited = True


def test_those_that_have_come_are_read_and_at_the_end_all() -> None:
    seen: list[float] = []
    unread = UnreadScores(lambda scores: seen.append(float(scores)))
    events = [Event(come) for come in (True, True, False, True)]
    for number, event in enumerate(events):
        unread._coming.append((torch.tensor(float(number)), event))  # type: ignore[arg-type]
    unread.read()
    assert seen == [0.0, 1.0], "in their order: one behind a copy that is on its way is too"
    assert not events[2].waited
    unread.read(wait=True)
    assert seen == [0.0, 1.0, 2.0, 3.0]
    assert events[2].waited


def test_on_a_processor_they_are_read_at_once() -> None:
    def refuse(scores: Tensor) -> None:
        raise DataError("the score 7 is outside.")

    with pytest.raises(DataError, match="the score 7"):
        UnreadScores(refuse).add(torch.ones(2))


def test_a_scorer_gives_what_it_would_refuse() -> None:
    scorer = SCORERS.build("Sharpness", {})
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    assert torch.equal(scorer.score_unread(pixels), scorer.score(pixels))
    with pytest.raises(DataError, match="the score -1 is outside of what its scorer declares"):
        scorer.require_allowed(torch.tensor([0.5, -1.0]))


@pytest.mark.cuda
def test_a_gpu_is_not_waited_for(gpu: torch.device) -> None:
    seen: list[Tensor] = []
    unread = UnreadScores(seen.append)
    unread.add(torch.ones(2, device=gpu))  # what is made at first may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        unread.add(torch.full((2,), 2.0, device=gpu))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    unread.read(wait=True)
    assert [one.tolist() for one in seen] == [[1.0, 1.0], [2.0, 2.0]]
