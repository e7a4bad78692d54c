"""The table of slots is that of a walk through the images one by one, whatever comes."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from facelab.head.rows.slot_table import SlotTable

PEOPLE = 12
Writes = dict[tuple[int, int], int]


class Walk:
    """The table image by image, with lists."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.recent_first: list[tuple[int, int]] = []
        self.next_row = [0] * slots

    def place(self, people: list[int]) -> tuple[Writes, set[int]]:
        """Image that each (slot, row) gets, and the slots of people who were met again."""
        writes: Writes = {}
        again = set()
        for image, person in enumerate(people):
            known = dict(self.recent_first)
            if person in known:
                slot = known[person]
                self.recent_first.remove((person, slot))
                row = self.next_row[slot]
                again.add(slot)
            else:
                free = len(self.recent_first)
                slot = free if free < self.slots else self.recent_first.pop()[1]
                row = 0
            self.recent_first.insert(0, (person, slot))
            writes[slot, row] = image
            self.next_row[slot] = 1 - row
        return writes, again


def recent_first(table: SlotTable) -> list[tuple[int, int]]:
    order = table.seen.argsort(descending=True).tolist()
    return [(int(table.people[slot]), slot) for slot in order if table.people[slot] >= 0]


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, list[list[int]]]:
    slots = draw(st.integers(1, 6))
    batch = st.lists(st.integers(0, PEOPLE - 1), min_size=1, max_size=slots)
    return slots, draw(st.lists(batch, min_size=1, max_size=6))


@given(histories())
@settings(max_examples=200, deadline=None)
def test_it_is_a_walk_through_the_images(history: tuple[int, list[list[int]]]) -> None:
    slots, batches = history
    table, walk = SlotTable(PEOPLE, slots), Walk(slots)
    for people in batches:
        placement = table.place(torch.tensor(people))
        before = copy.deepcopy(table.state_dict())
        found = table.find(torch.arange(PEOPLE), placement).tolist()
        assert all(table.state_dict()[name].equal(value) for name, value in before.items()), "nothing is changed yet"
        writes, again = walk.place(people)
        where = zip(placement.to_slot.tolist(), placement.to_row.tolist(), strict=True)
        assert dict(zip(where, placement.image.tolist(), strict=True)) == writes
        assert set(placement.slot[placement.again].tolist()) == again
        table.commit(placement)
        assert recent_first(table) == walk.recent_first
        assert found == [dict(walk.recent_first).get(person, -1) for person in range(PEOPLE)]
        assert found == table.slot_of.tolist()
        assert table.next_row.tolist() == walk.next_row


def test_somebody_who_comes_later_in_the_batch_may_lose_their_slot_before() -> None:
    table = SlotTable(PEOPLE, 2)
    table.commit(table.place(torch.tensor([5, 7])))
    placement = table.place(torch.tensor([9, 5]))
    assert placement.fresh.tolist() == [True, True]
    assert table.find(torch.tensor([5, 7, 9]), placement).tolist() == [1, -1, 0]


@pytest.mark.parametrize("size", [1, 300])
def test_of_many_images_of_one_person_the_last_two_stay(size: int) -> None:
    table = SlotTable(PEOPLE, 300)
    placement = table.place(torch.full((size,), 4))
    assert placement.image.tolist() == list(range(max(0, size - 2), size))
    assert placement.to_slot.tolist() == [0] * min(2, size)
