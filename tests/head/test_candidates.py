"""Which classes count against whom, by hand: four of a process's six, of which one is nobody's target here."""

from typing import Any

import torch
from torch import Tensor

from facelab.head.candidates import Candidates, Nearest, WholeProduct, cosines, entry

ROWS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.6, 0.8]])
COLUMN, OWNED = torch.tensor([1, 3, 0]), torch.tensor([True, True, False])  # the third's class is elsewhere
OLDER = torch.tensor([[False, False, True, False], [False, False, False, False], [False, True, False, False]])
BIAS = torch.tensor([0.1, 0.2, 0.3, 0.4])
COSINE = torch.tensor([[0.1, 0.2, 0.9, 0.3], [0.5, 0.6, -0.2, 0.8], [0.4, 0.7, 0.0, 0.1]])


def candidates(weight: Tensor | None = None, excluded: Tensor | None = None) -> Candidates:
    beside: dict[str, Any] = {"bias": BIAS, "class_parameters": {"margin": 2 * BIAS}}
    return Candidates(ROWS, COLUMN, OWNED, weight=weight, excluded=excluded, taken=torch.tensor([0, 2, 3, 5]), **beside)


def test_negatives_are_neither_the_target_nor_who_is_excluded() -> None:
    plain = [[1, 0, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1]]
    without = [[1, 0, 0, 1], [1, 1, 1, 0], [1, 0, 1, 1]]
    assert candidates().negatives().int().tolist() == plain
    assert candidates(excluded=OLDER).negatives().int().tolist() == without
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert candidates(weight, OLDER).negatives().tolist() == (torch.tensor(without) * weight).tolist()


def test_what_is_no_negative_is_silent_and_all_else_stays() -> None:
    least = torch.finfo(torch.float32).min
    for excluded in (None, OLDER):
        one = candidates(excluded=excluded)
        expected = torch.where(one.negatives().bool(), COSINE, least)
        assert one.silence_(COSINE.clone()).equal(expected)


def test_some_of_them_and_chunks_of_them_are_the_same_classes() -> None:
    whole = candidates(torch.tensor([1.0, 2.0, 3.0, 4.0]), OLDER)
    some = whole.take(torch.tensor([1, 3]), ROWS[[1, 3]], weight=torch.tensor([2.0, 4.0]))
    assert some.negatives().equal(whole.negatives()[:, [1, 3]])
    assert some.taken is not None
    assert some.bias is not None
    assert some.bias.equal(BIAS[[1, 3]])
    assert some.class_parameters["margin"].equal(2 * BIAS[[1, 3]])
    assert some.at_target(BIAS[[1, 3]]).tolist() == whole.at_target(BIAS).tolist()
    assert some.taken.tolist() == [2, 5]
    assert some.of_taken(torch.arange(6)).tolist() == [2, 5]
    for size in (1, 3, 4, 9):
        parts = whole.parts(size)
        assert len(parts) == -(-4 // size)
        chunks = [parts[number] for number in range(len(parts))]
        assert torch.cat([part.negatives() for part in chunks], dim=1).equal(whole.negatives())
        assert torch.cat([part.rows for part in chunks]).equal(ROWS)
        assert torch.cat([part.bias for part in chunks if part.bias is not None]).equal(BIAS)
        own = [entry(COSINE[:, n * size :], part.column) * part.owned for n, part in enumerate(chunks)]
        assert torch.stack(own).sum(dim=0).equal(WholeProduct(COSINE, whole).target())


def test_the_nearest_that_counts() -> None:
    seen = Nearest()
    WholeProduct(COSINE.clone().requires_grad_(), candidates()).over_chunks(seen)
    assert not seen.seen.requires_grad
    for size in (1, 3, 4):
        nearest, parts = Nearest(), candidates(excluded=OLDER).parts(size)
        for number, cosine in enumerate(COSINE.split(size, dim=1)):
            nearest(cosine, parts[number])
        torch.testing.assert_close(nearest.seen, torch.tensor([[0.3, 0.8, 0.4], [0.2, 0.8, -torch.inf]]))


def test_the_cosine_to_several_centres_is_that_to_the_nearest() -> None:
    features = torch.tensor([[2.0, 0.0], [3.0, 4.0]])
    torch.testing.assert_close(cosines(features, ROWS), torch.tensor([[1.0, 0, -1.0, 0.6], [0.6, 0.8, -0.6, 1.0]]))
    centres = torch.stack([ROWS[:2], ROWS[2:]], dim=1)  # (2 classes, 2 centres, 2)
    torch.testing.assert_close(cosines(features, centres), torch.tensor([[1.0, 0.6], [0.6, 1.0]]))
