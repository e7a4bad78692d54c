"""Which person has which slot of a pool, the least recently seen making room for the new."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from facelab.errors import CheckpointError
from facelab.head.rows.stored_numbers import require_whole

FREE = -1
LATEST = 2**62  # images; sums of it and a batch are still whole numbers


@dataclass(frozen=True)
class Placement:
    """What a batch of images does to a table, which is not yet changed. K people, G images, W writes.

    Attributes:
        people: Those of the batch, int64, ascending, (K,).
        slot: Where each of them is afterwards, int64, (K,).
        fresh: Who was not in the table when first met, bool, (K,).
        again: Who was met again: in the table before, or with several images, bool, (K,).
        next_row: Row of each that is written next, int64, (K,).
        last: Place in the batch of the last image of each, int64, (K,).
        image: Place in the batch of each image that is written, int64, (W,).
        to_slot: Where to, int64, (W,); no slot and row comes twice.
        to_row: And in which row of the slot, 0 or 1, int64, (W,).
    """

    people: Tensor
    slot: Tensor
    fresh: Tensor
    again: Tensor
    next_row: Tensor
    last: Tensor
    image: Tensor
    to_slot: Tensor
    to_row: Tensor


class SlotTable(nn.Module):
    """Slots for some of all people, two rows each, as a walk through the images in their order would fill them.

    Images are taken in order. Who is in the table writes the next row of their slot, in turn the first and the second;
    who is not takes a free slot, or else that of the person not seen for longest, and writes its first row. Where FFC's
    program walks through the global batch image by image, here whole batches are placed by sorting.

    Args:
        num_classes: C, the people that there are.
        slots: S, at least as many as there are people in a batch.

    Attributes:
        slot_of: Slot of each person, int32, (C,); -1 if in none.
        people: Who has each slot, int64, (S,); -1 if it is free.
        seen: When each slot was last looked up, int64, (S,): the higher the later, no two equal, free ones below 0.
        next_row: Row of each slot that is written next, int64, (S,).
        clock: Images so far, int64, ().
    """

    slot_of: Tensor
    people: Tensor
    seen: Tensor
    next_row: Tensor
    clock: Tensor

    def __init__(self, num_classes: int, slots: int) -> None:
        super().__init__()
        self.register_buffer("slot_of", torch.full((num_classes,), FREE, dtype=torch.int32))
        self.register_buffer("people", torch.full((slots,), FREE))
        self.register_buffer("seen", torch.arange(slots) - slots)
        self.register_buffer("next_row", torch.zeros(slots, dtype=torch.int64))
        self.register_buffer("clock", torch.zeros((), dtype=torch.int64))

    def place(self, people: Tensor) -> Placement:
        """Where the images of a batch go.

        Args:
            people: Whom each image shows, int64, (G,).
        """
        images = torch.arange(len(people), device=people.device)
        who, member, count = torch.unique(people, return_inverse=True, return_counts=True)
        first = torch.full_like(who, len(people)).scatter_reduce(0, member, images, "amin")
        last = torch.zeros_like(who).scatter_reduce(0, member, images, "amax")
        slot, fresh = self._slots(who, first)
        begin = torch.where(fresh, 0, self.next_row[slot])
        # How many images of the same person come before each.
        order = member.argsort(stable=True)
        before = torch.empty_like(images)
        before[order] = images - (count.cumsum(0) - count)[member[order]]
        row = (begin[member] + before) % 2
        image = (before >= count[member] - 2).nonzero().squeeze(1)  # of more than two, the last in each row stays
        return Placement(
            people=who,
            slot=slot,
            fresh=fresh,
            again=~fresh | (count > 1),
            next_row=(begin + count) % 2,
            last=last,
            image=image,
            to_slot=slot[member[image]],
            to_row=row[image],
        )

    def find(self, people: Tensor, placement: Placement) -> Tensor:
        """Slot of each person as it will be after a placement, int64, (B,); -1 if they have none."""
        people = people.contiguous()
        slot = self.slot_of[people].long()
        taken = torch.isin(slot, placement.slot[placement.fresh])
        slot = slot.masked_fill(taken, FREE)
        at = torch.searchsorted(placement.people, people).clamp_max(len(placement.people) - 1)
        return torch.where(placement.people[at] == people, placement.slot[at], slot)

    def commit(self, placement: Placement) -> None:
        """Change the table as a placement, the latest of `place`, says."""
        slot = placement.slot
        leaving = self.people[slot[placement.fresh]]
        self.slot_of[leaving[leaving != FREE]] = FREE
        self.slot_of[placement.people] = slot.int()
        self.people[slot] = placement.people
        self.next_row[slot] = placement.next_row
        self.seen[slot] = self.clock + placement.last
        self.clock.add_(placement.last.max() + 1)

    def _load_from_state_dict(self, state: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        people, slots = len(self.slot_of), len(self.people)
        ranges = {"slot_of": (FREE, slots - 1), "people": (FREE, people - 1), "next_row": (0, 1), "clock": (0, LATEST)}
        require_whole(state, prefix, ranges, "a table of slots")
        held = [state[prefix + name] for name in ("slot_of", "people") if prefix + name in state]
        if len(held) == 2 and not _agree(*held):
            raise CheckpointError(
                f"the checkpoint is damaged: '{prefix}slot_of' and '{prefix}people' do not agree on who has which "
                "slot; go on from an earlier checkpoint by --resume."
            )
        super()._load_from_state_dict(state, prefix, *rest)

    def _slots(self, people: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        """Slot of each person of a batch, and who takes a new one, from the places in the batch where each comes first.

        Who is in the table may lose the slot to somebody new who comes earlier in the batch, and then counts as new:
        if more slots are taken before than there are older ones to take. Whether that happens depends only on people
        who come earlier, so repeating the question with the last answer settles it, mostly at once.
        """
        slot = self.slot_of[people].long()
        absent = slot == FREE
        oldest = self.seen.topk(min(2 * len(people), len(self.seen)), largest=False, sorted=True)
        age = torch.searchsorted(oldest.values, self.seen[slot.clamp_min(0)])  # of the slot among these, 0 the oldest
        earlier = first < first.unsqueeze(1)
        older = earlier & (age < age.unsqueeze(1))
        fresh = absent
        while True:
            taken = (earlier & fresh).sum(1)
            saved = (older & ~fresh).sum(1)
            now = absent | (taken > age - saved)
            if bool(now.equal(fresh)):
                break
            fresh = now
        free = oldest.indices[~torch.isin(oldest.indices, slot[~fresh])]
        newcomers = fresh.nonzero().squeeze(1)
        newcomers = newcomers[first[newcomers].argsort()]
        return slot.index_copy(0, newcomers, free[: len(newcomers)]), fresh


def _agree(slot_of: Tensor, people: Tensor) -> bool:
    """Whether people and slots, within their ranges, name each other."""
    placed = (slot_of != FREE).nonzero().squeeze(1)
    taken = (people != FREE).nonzero().squeeze(1)
    return len(placed) == len(taken) and slot_of[people[taken].long()].long().equal(taken)
