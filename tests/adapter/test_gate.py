"""Gates: calibration by hand, direction, bounds, monotony, refusals."""

import numpy as np
import pytest
import torch

from facelab.adapter.gate import GATES, CompatGate, Gate, LearnedGate, SigmoidGate, two_modes
from facelab.errors import ConfigError, DataError
from facelab.quality.card import ScorerCard

GOOD = ScorerCard(name="good", low=0.0, high=1.0)
BAD = ScorerCard(name="bad", low=0.0, high=150.0, higher_is_better=False)
TWO_GROUPS = [0.1, 0.2, 0.3, 0.7, 0.8, 0.9]
RANGE, BINS = 0.8, 256


def calibrated(name: str, scorer: ScorerCard = GOOD) -> Gate:
    gate = GATES.build(name, {"as_published": True} if name == "compat" else {})
    gate.calibrate(TWO_GROUPS, scorer)
    return gate


def test_threshold_lies_between_the_modes_and_the_gate_is_sure_at_both() -> None:
    tau, temperature = two_modes(TWO_GROUPS)
    assert tau == pytest.approx(0.5, abs=RANGE / BINS)  # the middle of the gap
    assert temperature == pytest.approx(0.6 / (2 * np.log(9)))  # 0.8 - 0.2 between the means; log(0.9 / 0.1)
    gate = SigmoidGate(tau=0.5, temperature=temperature)
    gate.calibrate(TWO_GROUPS, GOOD)
    torch.testing.assert_close(gate(torch.tensor([0.2, 0.5, 0.8])), torch.tensor([0.1, 0.5, 0.9]))


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.0, 5.0)])
def test_the_threshold_of_two_values_lies_in_the_middle(low: float, high: float) -> None:
    tau, _ = two_modes([low] * 3 + [high] * 5)
    assert tau == pytest.approx((low + high) / 2, abs=(high - low) / BINS)


@pytest.mark.parametrize("seed", range(3))
def test_the_threshold_is_that_of_an_exhaustive_search(seed: int) -> None:
    """Otsu's criterion at every cut between two neighbours, on modes that overlap; within one of 256 bins."""
    random = np.random.default_rng(seed)
    scores = np.sort(np.concatenate([random.normal(0.3, 0.12, 3000), random.normal(0.7, 0.15, 2000)]))
    below = np.arange(1, len(scores))
    sums = np.cumsum(scores)
    apart = (scores.sum() - sums[:-1]) / (len(scores) - below) - sums[:-1] / below
    criterion = below * (len(scores) - below) * apart**2
    tau, temperature = two_modes(scores)
    cut = int(np.searchsorted(scores, tau))
    assert criterion[cut - 1] > criterion.max() * (1 - 1e-4)
    bin_width = (scores[-1] - scores[0]) / BINS
    near = scores[1:][criterion > criterion.max() * (1 - 1e-5)]
    assert near.min() - bin_width < tau < near.max() + bin_width
    assert temperature == pytest.approx(apart[cut - 1] / (2 * np.log(9)), rel=1e-3)


def test_scores_that_are_missing_do_not_count() -> None:
    assert two_modes([*TWO_GROUPS, np.nan]) == two_modes(TWO_GROUPS)


@pytest.mark.parametrize("name", GATES.names())
def test_better_quality_never_lowers_the_gate(name: str) -> None:
    scores = torch.linspace(-0.5, 1.5, 101)
    assert bool((calibrated(name)(scores).diff() >= 0).all())


@pytest.mark.parametrize("scorer", [GOOD, BAD])
def test_the_learned_gate_stays_monotone_wherever_training_leads(scorer: ScorerCard) -> None:
    gate, sign = calibrated("learned", scorer), 1 if scorer.higher_is_better else -1
    scores = torch.linspace(0.3, 0.7, 101)
    for seed in range(20):
        torch.manual_seed(seed)
        for parameter in gate.parameters():
            torch.nn.init.normal_(parameter, std=3.0)
        assert bool((sign * gate(scores).diff() >= -1e-6).all())


@pytest.mark.parametrize("name", sorted({*GATES.names()} - {"compat"}))
def test_a_score_where_lower_is_better_is_turned_and_the_gate_stays_in_0_to_1(name: str) -> None:
    values = calibrated(name, BAD)(torch.linspace(-100, 100, 101))
    assert bool((values.diff() <= 0).all())
    assert 0 <= float(values.detach().min()) <= float(values.detach().max()) <= 1


@pytest.mark.parametrize("name", GATES.names())
def test_what_was_learned_of_the_scores_survives_the_state_dict(name: str) -> None:
    first, second = calibrated(name, BAD), GATES.build(name, {})
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(torch.tensor([0.4, 3.0])), second(torch.tensor([0.4, 3.0])))


def test_the_learned_gate_starts_as_the_sigmoid_and_learns() -> None:
    learned, plain = calibrated("learned"), calibrated("sigmoid")
    scores = torch.tensor([0.1, 0.5, 0.9])
    torch.testing.assert_close(learned(scores), plain(scores), atol=5e-3, rtol=0)
    (learned(scores) * torch.tensor([1.0, 2.0, 4.0])).sum().backward()
    assert all(parameter.grad is not None and bool((parameter.grad != 0).any()) for parameter in learned.parameters())


def test_the_published_gate_refuses_another_range_or_direction() -> None:
    with pytest.raises(ConfigError, match=r"bad, 0 to 150, lower is better; choose the gate 'sigmoid'"):
        CompatGate().calibrate(TWO_GROUPS, BAD)
    unit = {"low": 0.0, "high": 1.0}
    CompatGate().calibrate(TWO_GROUPS, GOOD.model_copy(update=unit))
    for change in ({"higher_is_better": False}, {"low": -1.0}, {"high": 100.0}):
        with pytest.raises(ConfigError, match="made for scores from 0 to 1 where higher is better"):
            CompatGate().calibrate(TWO_GROUPS, GOOD.model_copy(update={**unit, **change}))


def test_scores_that_do_not_differ_cannot_calibrate() -> None:
    with pytest.raises(DataError, match="3 scores that do not differ cannot calibrate a gate; give it tau"):
        SigmoidGate().calibrate([0.5, 0.5, 0.5], GOOD)


def test_a_width_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ConfigError, match="gate temperature"):
        LearnedGate(temperature=0.0)
