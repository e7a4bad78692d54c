"""Progressive cluster optimisation: the loss of each stage, the means, when stages change, refusals."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from facelab.catalogue import build, entries
from facelab.errors import ConfigError
from facelab.head.base import HEADS, MarginHead
from facelab.head.classifier import UpdateRule
from facelab.head.margins.cosface import CosFace
from facelab.head.margins.curricularface import CurricularFace
from facelab.head.margins.softmax import Softmax
from facelab.head.rows.class_features import class_means, write_rows
from facelab.head.rows.progressive_clusters import PCO
from facelab.head.same_class import class_last

CLASSES, DIM, BATCH, MARGIN, SCALE = 23, 6, 8, 0.3, 8.0
OTHERS = {"Softmax", "AdaM-Softmax", "SphereFace2", "SphereFace2-A", "SphereFace2-M", "UniFace"}  # refused
ALWAYS = (0.0, 0.0)  # the cosines exceed these thresholds after each window


def owner(head: MarginHead | None = None, **options: Any) -> PCO:
    given: dict[str, Any] = {"sample_rate": 0.5, "thresholds": ALWAYS, "window": 2, "seed": 1, **options}
    return PCO(CLASSES, DIM, head or CosFace(MARGIN, SCALE), **given).double()


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = 3 * torch.randn(BATCH, DIM, generator=generator, dtype=torch.float64)
    return features, torch.randint(CLASSES, (BATCH,), generator=generator)


def partition(features: Tensor, rows: Tensor, target: Tensor) -> Tensor:
    """Sum over the other classes of exp(s c_j - s (c_y - m)), (B,)."""
    cosine = normalize(features) @ normalize(rows).T
    own = cosine.gather(1, target[:, None])
    ratio = torch.exp(SCALE * cosine - SCALE * (own - MARGIN))
    return ratio.scatter(1, target[:, None], 0.0).sum(dim=1)


def test_the_loss_of_each_stage_is_that_of_the_paper_and_the_means_follow() -> None:
    pco = owner()
    means: Tensor | None = None
    stages = []
    for number in range(6):
        features, labels = batch(number)
        features.requires_grad_()
        taken = pco.candidates(features.detach(), labels).taken
        stages.append(int(pco.stage))
        assert (taken is None) == (stages[-1] == 3), "the third stage is over all classes"
        taken = torch.arange(CLASSES) if taken is None else taken
        target = torch.searchsorted(taken, labels)
        expected = partition(features, pco.weight[taken], target)
        if means is not None:
            assert not pco.means.requires_grad
            expected = expected + partition(features, means[taken], target)
        mean_loss = torch.log(1.0 + expected).mean()
        wanted = torch.autograd.grad(mean_loss, [features, pco.weight])
        output = pco(features, labels)
        output.loss.backward()
        torch.testing.assert_close(output.loss, mean_loss, rtol=1e-12, atol=1e-12)
        assert features.grad is not None
        assert pco.weight.grad is not None
        torch.testing.assert_close(features.grad, wanted[0], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(pco.weight.grad.to_dense(), wanted[1], rtol=1e-10, atol=1e-12)
        assert float(output.metrics["stage"]) == stages[-1]
        pco.weight.grad = None
        pco.after_update()
        if stages[-1] == 2:
            assert means is not None
            for label in labels.unique():
                seen = normalize(features.detach()[labels == label])
                stays = torch.sigmoid(seen @ means[label])[:, None]
                means[label] = normalize((stays * means[label] + (1 - stays) * seen).mean(dim=0), dim=0)
        elif stages[-1] == 1 and int(pco.stage) == 2:
            means = normalize(pco.weight.detach()).clone()
        if means is not None:
            torch.testing.assert_close(pco.means, means, rtol=1e-12, atol=1e-12)
    assert stages == [1, 1, 2, 2, 3, 3]


def test_a_stage_ends_when_the_mean_over_a_window_exceeds_its_threshold() -> None:
    pco = owner(thresholds=(0.5, 0.9), sample_rate=1.0)
    labels = torch.arange(BATCH)

    def update(cosine: float) -> int:
        """Of a batch in which all squared cosines are the square of this."""
        rows = normalize(pco.weight.detach()[:BATCH])
        across = normalize(rows.roll(1, dims=1) - (rows.roll(1, dims=1) * rows).sum(1, keepdim=True) * rows)
        pco(cosine * rows + (1 - cosine**2) ** 0.5 * across, labels)
        pco.after_update()
        return int(pco.stage)

    assert [update(cosine) for cosine in (0.9, 0.3)] == [1, 1], "the mean is 0.45"
    assert [update(cosine) for cosine in (0.9, 0.9)] == [1, 2]
    assert [update(cosine) for cosine in (0.9, 0.9)] == [2, 2]
    assert [update(-0.97) for _ in range(2)] == [2, 3], "squares have no sign"
    assert [update(0.0) for _ in range(2)] == [3, 3], "no stage comes back"


def test_several_passes_of_an_update_count_alike_and_evaluation_counts_not() -> None:
    apart, together = owner(window=1), owner(window=1)
    for pco in (apart, together):
        pco.eval()
        pco(*batch(9))
        pco.train()
    for number in range(2):
        apart(*batch(number))
    together(torch.cat([batch(0)[0], batch(1)[0]]), torch.cat([batch(0)[1], batch(1)[1]]))
    squares = []
    for pco in (apart, together):
        pco._end_window = lambda: None  # type: ignore[method-assign]
        pco.after_update()
        squares.append(pco.squares)
    torch.testing.assert_close(squares[0], squares[1])
    assert squares[0][1] == 2 * BATCH


def test_means_have_a_head_of_their_own_that_remembers() -> None:
    pco = owner(CurricularFace(), sample_rate=1.0, window=1)
    pco(*batch(0))
    pco.after_update()
    before = copy.deepcopy(pco.state_dict())
    assert before["mean_head.t"].equal(torch.zeros_like(before["mean_head.t"])), "no means so far"
    pco(*batch(1))
    after = pco.state_dict()
    assert not after["mean_head.t"].equal(before["mean_head.t"])
    assert not after["mean_head.t"].equal(after["head.t"])


def test_means_begin_at_rows_that_are_caught_up() -> None:
    pco = owner(window=2, unsampled="exact", sample_rate=0.4)
    sgd = pco.optimizer(UpdateRule("sgd", 0.5, 0.1, 0.9, False, (0.9, 0.999), 1e-8))
    assert sgd is not None
    for number in range(2):
        pco(*batch(number)).loss.backward()
        sgd.step()
        sgd.zero_grad()
        stale = pco.weight.detach().clone()
        pco.after_update()
    assert not stale.equal(pco.weight.detach()), "some rows had missed an update"
    torch.testing.assert_close(pco.means, normalize(pco.weight.detach()), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", sorted({*entries(HEADS), *HEADS.names()} - OTHERS))
def test_every_head_with_a_softmax_of_cosines_goes_through_the_stages(name: str) -> None:
    pco = owner(build(HEADS, name, num_classes=CLASSES), window=1)
    for number in range(3):
        features, labels = batch(number)
        pco(features.requires_grad_(), labels).loss.backward()
        pco.after_update()
        assert features.grad is not None
        assert bool(features.grad.isfinite().all())
        assert bool(features.grad.any())
    assert int(pco.stage) == 3


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (Softmax(), "PCO keeps no learned numbers, but Softmax learns a bias"),
        (Softmax(bias=False), "PCO adds two softmaxes of cosines, and Softmax is none; choose a head such as CosFace"),
        (build(HEADS, "SphereFace2", num_classes=CLASSES), "SphereFace2"),
    ],
    ids=["bias", "inner products", "binary"],
)
def test_heads_without_a_softmax_of_cosines_are_refused(head: MarginHead, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        owner(head)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"thresholds": (0.4, 0.2)}, r"PCO thresholds are \[0.4, 0.2\], but they must be two ascending numbers"),
        ({"thresholds": (0.4,)}, "must be two ascending numbers"),
        ({"thresholds": (0.4, 1.5)}, "PCO thresholds"),
        ({"window": 0}, "PCO window"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        owner(**options)


def test_means_and_last_places_of_the_classes_of_a_batch() -> None:
    labels = torch.tensor([4, 1, 4, 2, 1, 4])
    values = torch.arange(6.0)[:, None]
    assert class_means(values, labels).flatten().allclose(torch.tensor([7 / 3, 2.5, 7 / 3, 3.0, 2.5, 7 / 3]))
    assert class_last(labels).tolist() == [5, 4, 5, 3, 4, 5]


@pytest.mark.parametrize("owned", [[False, True, False], [False, False, False], [True, True, True]])
def test_rows_of_other_processes_are_not_written(owned: list[bool]) -> None:
    """The columns of those point anywhere, also at rows that are written."""
    bank, here = torch.zeros(3, 2), torch.tensor(owned)
    column = torch.tensor([0, 1, 1])
    values = torch.tensor([[5.0, 5.0], [7.0, 7.0], [7.0 if owned[2] else 9.0] * 2])
    write_rows(bank, column, here, values)
    expected = torch.zeros(3, 2)
    for place, value, own in zip(column, values, owned, strict=True):
        if own:
            expected[place] = value
    assert bank.equal(expected)
