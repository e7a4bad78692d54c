"""Schedules: worked by hand, against the rates of published programs, and their refusals."""

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from facelab.engine.schedules import Schedule, ScheduleConfig
from facelab.errors import ConfigError

SMALL = Path(__file__).resolve().parents[2] / "golden" / "schedules"


def schedule(total: int = 10, per_epoch: float = 1.0, base: float = 1.0, **options: Any) -> Schedule:
    return ScheduleConfig(**options).build([base], total_updates=total, updates_per_epoch=per_epoch)


def curve(line: Schedule) -> list[float]:
    return [line.rates(update)[0] for update in range(line.total)]


def test_constant_with_warmup() -> None:
    line = schedule(total=6, per_epoch=2, base=0.4, name="constant", warmup_epochs=2)
    assert curve(line) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])


def test_multistep_drops_at_its_epochs() -> None:
    line = schedule(total=8, per_epoch=2, name="multistep", milestones=[1, 3], gamma=0.5)
    assert curve(line) == [1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_multistep_milestones_count_from_the_start_of_the_run() -> None:
    line = schedule(total=4, name="multistep", milestones=[3], warmup_epochs=2)
    assert curve(line) == pytest.approx([0.5, 1.0, 1.0, 0.1])


@pytest.mark.parametrize(
    ("power", "expected"), [(1, [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]), (2, [0.5, 1, 1, 0.5625, 0.25, 0.0625])]
)
def test_polynomial_by_hand(power: float, expected: list[float]) -> None:
    assert curve(schedule(total=6, name="polynomial", warmup_epochs=2, power=power)) == pytest.approx(expected)


def test_cosine_by_hand() -> None:
    line = schedule(total=4, name="cosine", minimum=0.2)
    assert curve(line) == pytest.approx([1.0, 0.6 + 0.4 * 2**-0.5, 0.6, 0.6 - 0.4 * 2**-0.5])
    assert line.rates(4) == line.rates(99) == [pytest.approx(0.2)]


def test_warmup_from_a_given_rate() -> None:
    assert curve(schedule(total=4, name="constant", warmup_epochs=2, warmup_start=0.2)) == pytest.approx(
        [0.2, 0.6, 1, 1]
    )


@pytest.mark.parametrize("name", ["constant", "polynomial", "cosine"])
def test_smooth_warmup_never_stands_still_and_never_starts_at_the_full_rate(name: str) -> None:
    line = schedule(total=40, per_epoch=4, base=0.1, name=name, warmup_epochs=2)
    rates = curve(line)
    assert rates[0] == pytest.approx(0.1 / 8)
    assert all(early < late for early, late in pairwise(rates[:8]))
    assert all(early >= late for early, late in pairwise(rates[7:]))
    assert max(rates) == pytest.approx(0.1)
    assert min(rates) > 0.0


def test_groups_keep_their_ratio() -> None:
    line = ScheduleConfig(name="polynomial", warmup_epochs=1).build([1.0, 0.25], total_updates=9, updates_per_epoch=3)
    assert all(line.rates(update)[1] == pytest.approx(line.rates(update)[0] / 4) for update in range(12))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "multistep"}, "multistep needs milestones"),
        ({"milestones": [3, 2]}, r"milestones must grow and be above 0, not \[3.0, 2.0\]"),
        ({"milestones": [3, 3]}, r"milestones must grow and be above 0, not \[3.0, 3.0\]"),
        ({"milestones": [0, 3]}, r"milestones must grow and be above 0, not \[0.0, 3.0\]"),
        ({"name": "cosine", "compat": "insightface"}, "compat 'insightface' repeats a polynomial schedule, not cosine"),
        ({"name": "cosine", "compat": "swin", "warmup_epochs": 1}, "needs warmup_start"),
        ({"name": "polynomial", "warm_up": 1}, "warm_up"),
        ({"name": "linear"}, "'constant', 'multistep', 'polynomial' or 'cosine'"),
        ({"name": "constant", "warmup_epochs": -1}, "greater than or equal to 0"),
    ],
)
def test_refused_settings(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ScheduleConfig(**options)


def test_warmup_longer_than_the_run_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"warmup_epochs is 2 \(20 updates\), but the whole run has only 10 updates"):
        schedule(total=10, per_epoch=10, name="cosine", warmup_epochs=2)


def test_a_whole_run_may_be_warmup() -> None:
    assert curve(schedule(total=4, per_epoch=4, name="cosine", warmup_epochs=1)) == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("option", ["minimum", "warmup_start"])
def test_a_floor_may_be_the_lowest_learning_rate_of_all_groups(option: str) -> None:
    settings: dict[str, Any] = {"name": "cosine", "warmup_epochs": 2, option: 0.1}
    ScheduleConfig(**settings).build([0.5, 0.1], total_updates=10, updates_per_epoch=1)
    with pytest.raises(ConfigError, match=f"schedule.{option} is 0.1, above the learning rate 0.05"):
        ScheduleConfig(**settings).build([0.5, 0.05], total_updates=10, updates_per_epoch=1)


@pytest.mark.parametrize("option", ["minimum", "warmup_start"])
def test_floor_above_the_learning_rate_is_refused(option: str) -> None:
    options: dict[str, Any] = {option: 0.1}
    with pytest.raises(ConfigError, match=f"schedule.{option} is 0.1, above the learning rate 0.01"):
        schedule(base=0.01, name="cosine", **options)


def number(pattern: str, text: str) -> float:
    """The number that a description gives, such as 5e-6 in ``minimum 5e-6``."""
    found = re.search(pattern.replace("#", r"([0-9.]+(?:e-?[0-9]+)?)"), text)
    assert found is not None, f"{pattern!r} is not in {text!r}"
    return float(found[1])


def from_golden(key: str, options: dict[str, Any]) -> Schedule:
    """The schedule that an array's name and the folder's description of the options ask for."""
    kind, _, details = key.partition("/")
    numbers = {word: float(value) for word, value in re.findall(r"([a-z]+)([0-9]+(?:\.[0-9]+)?)", details)}
    total, per_epoch = int(numbers.get("total", options["total"])), 1.0
    settings: dict[str, Any] = {
        "name": "polynomial",
        "power": numbers.get("power"),
        "warmup_epochs": numbers.get("warm"),
    }
    if kind == "polynomial_warmup":
        settings |= {"compat": "insightface"}
    elif kind == "poly_transface":
        settings |= {"compat": "transface"}
    elif kind == "multistep":
        milestones = [float(epoch) for epoch in details.split("_")]
        settings = {"name": kind, "milestones": milestones, "gamma": number("gamma #", options[kind])}
    else:
        text = options[kind]
        per_epoch, total = numbers["iters"], int(numbers["epochs"] * numbers["iters"])
        floor, start = number("minimum #", text), number("from # to base", text)
        settings = {"name": "cosine", "compat": "swin", "minimum": floor, "warmup_start": start}
        settings |= {"warmup_epochs": numbers["warm"]}
    config = ScheduleConfig(**settings)
    return config.build(options["base_lr"], total_updates=total, updates_per_epoch=per_epoch)


def compare(folder: Path) -> None:
    entry = json.loads((folder / "index.json").read_text())["schedules"]
    rtol, atol = number("rtol #", entry["tolerance"]), number("atol #", entry["tolerance"])
    with np.load(folder / entry["file"]) as arrays:
        assert len(arrays.files) == entry["keys"]
        for key in arrays.files:
            line = from_golden(key, entry["options"])
            rates = [line.rates(update) for update in range(len(arrays[key]))]
            np.testing.assert_allclose(rates, arrays[key], rtol=rtol, atol=atol, err_msg=key)


def test_rates_of_the_published_programs_small_copy() -> None:
    compare(SMALL)


@pytest.mark.golden
def test_rates_of_the_published_programs(golden_root: Path) -> None:
    compare(golden_root / "algorithms")
