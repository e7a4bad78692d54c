"""Sampled rows give the losses, gradients and rows of InsightFace's and PLSC's programs; all is read from the files."""

import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from facelab import distributed
from facelab.head.classifier import UpdateRule
from facelab.head.margins.combined_margin import CombinedMargin
from facelab.head.rows.partial_fc import PartialFC
from facelab.head.rows.row_optimizers import RowAdamW, RowOptimizer, RowSGD
from facelab.head.sample_weight import SampleWeight

COPY = Path(__file__).parents[2] / "golden" / "rows"
ROOT = Path(os.environ.get("FACELAB_GOLDEN", Path(__file__).parents[4] / "shared" / "golden"))
FOLDERS = [COPY, *([ROOT / "algorithms"] if ROOT.is_dir() else [])]
NEWEST = ROOT / "newest" / "algorithms"


class Golden:
    """An entry of a golden index with its arrays."""

    def __init__(self, folder: Path, name: str) -> None:
        entry = json.loads((folder / "index.json").read_text())[name]
        self.options: dict[str, Any] = entry["options"]
        with np.load(folder / entry["file"]) as arrays:
            self.arrays = {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays}

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The arrays whose names begin so, by the rest of their names."""
        return {key.removeprefix(prefix): value for key, value in self.arrays.items() if key.startswith(prefix)}


class CutOff(SampleWeight):
    """Weights of 1, and what InsightFace's program gives for the loss: no sample's probability is below 1e-30."""

    def __call__(self, loss: Tensor) -> Tensor:
        self.loss = loss.detach().clamp_max(-math.log(1e-30)).mean()
        return torch.ones_like(loss)


class Given(PartialFC):
    """The largest of given numbers are taken, beside the classes of the batch."""

    uniform: Tensor

    def order(self, count: int) -> Tensor:
        return self.uniform[self.shard.start : self.shard.stop].argsort(descending=True)


def given_rows(weight: Tensor, head: CombinedMargin, **options: Any) -> Given:
    rows = Given(*weight.shape, head, **options)
    rows.weight.data.copy_(weight[rows.shard.start : rows.shard.stop])
    rows.sample_weight = CutOff()
    return rows


def cut_loss(rows: Given) -> Tensor:
    assert isinstance(rows.sample_weight, CutOff)
    return rows.sample_weight.loss


def margin_of(m1: float, m2: float, m3: float, scale: float, threshold: float = 0.0) -> CombinedMargin:
    """Theirs takes the angular margin only where there is no other."""
    return CombinedMargin(m1, 0.0 if m3 else m2, m3, scale, threshold or None, "none", "straight_through")


def own_samples(batch: int) -> slice:
    return slice(*distributed.class_range(batch, distributed.rank(), distributed.world_size()))


def cases(golden: Golden, world: int) -> list[str]:
    return sorted({key.split("/")[0] for key in golden.under(f"world{world}/")})


def sampled_case(golden: Golden, name: str) -> dict[str, Tensor]:
    """Loss, gradients and sampled classes of a case, of this process."""
    kind = max((kind for kind in golden.options["margins"] if name.endswith(kind)), key=len)
    margins = dict(golden.options["margins"][kind])
    head = margin_of(scale=golden.options["scale"], threshold=margins.pop("interclass_filter"), **margins)
    sampling, _, rest = name.removesuffix(f"_{kind}").partition("_")
    rate = 1.0 if sampling == "full" else float(sampling.removeprefix("sampled"))
    features, labels = (golden.arrays.get(f"{key}_{rest}", golden.arrays[key]) for key in ("embeddings", "labels"))
    rows = given_rows(golden.arrays["weight"], head, sample_rate=rate)
    rows.uniform = golden.arrays["uniform"]
    own = own_samples(len(features))
    leaf = features[own].requires_grad_()
    output = rows(leaf, labels[own])
    output.loss.backward()
    assert leaf.grad is not None
    gradient = rows.weight.grad
    assert gradient is not None
    sampled = gradient.coalesce().indices()[0] + rows.shard.start if gradient.is_sparse else torch.empty(0)
    assert not gradient.is_sparse or gradient.is_coalesced(), "its rows ascend already"
    return {
        "loss": cut_loss(rows),
        "grad_embeddings": leaf.grad,
        "grad_weight": gradient.to_dense(),
        "sampled_classes": sampled,
    }


def assert_case(golden: Golden, name: str, shares: list[dict[str, Tensor]]) -> None:
    for key, value in golden.under(f"world{len(shares)}/{name}/").items():
        found = shares[0][key] if key == "loss" else torch.cat([share[key] for share in shares])
        torch.testing.assert_close(found, value, rtol=1e-4 if key == "loss" else 1e-3, atol=1e-5, msg=f"{name} {key}")


@pytest.mark.parametrize("folder", FOLDERS, ids=str)
def test_samples_of_one_process(folder: Path) -> None:
    golden = Golden(folder, "partial_fc")
    for name in cases(golden, 1):
        assert_case(golden, name, [sampled_case(golden, name)])


@pytest.mark.parametrize("folder", FOLDERS, ids=str)
def test_updates_of_lazy_sgd(folder: Path) -> None:
    golden = Golden(folder, "partial_fc")
    said = golden.options["sparse"]  # SGD lr .1 momentum .9 weight decay 5e-4, CosFace .4, rate .5, three steps
    lr, momentum, decay, margin, rate = map(float, re.findall(r"\d*\.?\d+(?:e-?\d+)?", said))
    head = margin_of(1.0, 0.0, margin, golden.options["scale"])
    rows = given_rows(golden.arrays["weight"], head, sample_rate=rate)
    sgd = rows.optimizer(UpdateRule("sgd", lr, decay, momentum, False, (0.9, 0.999), 1e-8))
    assert isinstance(sgd, RowSGD)
    for number in range(1 + max(int(key.split("/")[0]) for key in golden.under("sparse/step"))):
        step = golden.under(f"sparse/step{number}/")
        rows.uniform = step["uniform"]
        loss = rows(step["embeddings"], step["labels"]).loss
        loss.backward()
        sgd.step()
        sgd.zero_grad()
        rows.after_update()
        torch.testing.assert_close(loss.detach(), step["loss"], rtol=1e-4, atol=0)
        torch.testing.assert_close(rows.weight.detach(), step["weight_after"], rtol=1e-4, atol=1e-6)
        state = sgd.state[rows.weight]["momentum_buffer"]
        torch.testing.assert_close(state, step["momentum_after"], rtol=1e-3, atol=1e-4)


def exact_updates(golden: Golden, case: dict[str, Any]) -> float:
    """Largest difference to updates of a dense optimiser on sampled losses, on this process's rows."""
    arrays = golden.under(f"{case['name']}/")
    expected = golden.under(f"{case['name']}/world{distributed.world_size()}/")
    head = margin_of(*case["margin"], case["scale"])
    rows = given_rows(arrays["weight"], head, sample_rate=case["rate"], unsampled="exact").double()
    sgd = rows.optimizer(UpdateRule("sgd", 1.0, case["weight_decay"], case["momentum"], False, (0.9, 0.999), 1e-8))
    assert isinstance(sgd, RowSGD)
    own, samples = slice(rows.shard.start, rows.shard.stop), own_samples(arrays["labels"].shape[1])
    differences = []
    for number, rate in enumerate(arrays["learning_rates"]):
        rows.uniform = arrays["uniform"][number]
        sgd.param_groups[0]["lr"] = float(rate)
        features = arrays["embeddings"][number][samples].double().requires_grad_()
        rows(features, arrays["labels"][number][samples]).loss.backward()
        assert rows.weight.grad is not None
        assert features.grad is not None
        found = {"loss": cut_loss(rows), "grad_weight": rows.weight.grad.to_dense(), "grad_embeddings": features.grad}
        sgd.step()
        sgd.zero_grad()
        rows.after_update()
        found["weight_after"] = sgd.caught_up(rows.weight)
        for key, value in found.items():
            part = {"loss": ..., "grad_embeddings": samples}.get(key, own)
            wanted = expected[f"{key}_f64"][number][part]
            differences.append(float((value - wanted).abs().max() / wanted.abs().max().clamp_min(1)))
    return max(differences)


@pytest.mark.golden
def test_exact_updates_of_one_process(golden_root: Path) -> None:
    golden = Golden(golden_root / "newest" / "algorithms", "sparse_optimiser")
    for case in golden.options["cases"]:
        assert exact_updates(golden, case) < 1e-12


@dataclass(frozen=True)
class Results:
    """Of one process; all cases in one start of processes, because starting takes longer than computing."""

    sampled: list[list[dict[str, Tensor]]]
    exact: list[float]


def of_this_process() -> Results:
    goldens = [Golden(folder, "partial_fc") for folder in FOLDERS]
    sampled = [[sampled_case(golden, name) for name in cases(golden, distributed.world_size())] for golden in goldens]
    sparse = [Golden(NEWEST, "sparse_optimiser")] if NEWEST.is_dir() else []
    return Results(sampled, [exact_updates(one, case) for one in sparse for case in one.options["cases"]])


@pytest.mark.slow  # two processes draw what one does: test_partial_fc.py
def test_samples_and_exact_updates_of_two_processes() -> None:
    results = distributed.run_processes(of_this_process, 2)
    for number, folder in enumerate(FOLDERS):
        golden = Golden(folder, "partial_fc")
        for place, name in enumerate(cases(golden, 2)):
            assert_case(golden, name, [one.sampled[number][place] for one in results])
    for one in results:
        assert max(one.exact, default=0.0) < 1e-12
        assert len(one.exact) == 2 * NEWEST.is_dir()


@pytest.fixture(scope="module")
def trajectories(golden_root: Path) -> Golden:
    golden = Golden(golden_root / "newest" / "algorithms", "sparse_optimiser")
    golden.options, golden.arrays = golden.options["optimiser"], golden.under("optimiser/")
    return golden


def rule_of(golden: Golden, decay: float) -> UpdateRule:
    adamw = golden.options["adamw"]
    return UpdateRule("sgd", 1.0, decay, golden.options["momentum"], False, tuple(adamw["betas"]), adamw["eps"])


def follow(golden: Golden, optimizer: RowOptimizer, weight: nn.Parameter, factor: float = 1.0) -> Any:
    """The number of each update of the golden gradients."""
    arrays = golden.arrays
    for number, rate in enumerate(arrays["learning_rates"]):
        rows = arrays["sampled"][number].nonzero()[:, 0]
        if isinstance(optimizer, RowSGD):
            optimizer.catch_up(rows)
        weight.grad = torch.sparse_coo_tensor(rows[None], arrays["grad"][number][rows], weight.shape)
        optimizer.param_groups[0]["lr"] = factor * float(rate)
        optimizer.step()
        yield number


def equal(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.golden
def test_trajectories_of_lazy_sgd(trajectories: Golden) -> None:
    for decay in trajectories.options["wd"]:
        weight = nn.Parameter(trajectories.arrays["weight"].clone())
        sgd = RowSGD([weight], rule_of(trajectories, decay))
        expected = trajectories.under(f"sgd_lazy/wd{decay}/")
        for number in follow(trajectories, sgd, weight):
            equal(weight.detach(), expected["weight"][number])
            equal(sgd.state[weight]["momentum_buffer"], expected["momentum"][number])


@pytest.mark.golden
@pytest.mark.parametrize("horizon", [4096, 7, 1])
def test_trajectories_of_dense_sgd_are_those_of_the_exact_one(horizon: int, trajectories: Golden) -> None:
    for decay in trajectories.options["wd"]:
        weight = nn.Parameter(trajectories.arrays["weight"].clone())
        sgd = RowSGD([weight], rule_of(trajectories, decay), exact=True, horizon=horizon)
        expected = trajectories.under(f"sgd_dense/wd{decay}/")
        for number in follow(trajectories, sgd, weight):
            equal(sgd.caught_up(weight), expected["weight"][number])
        sgd.catch_up()
        assert weight.equal(sgd.caught_up(weight))
        equal(sgd.state[weight]["momentum_buffer"], expected["momentum"][-1])


@pytest.mark.golden
def test_trajectories_of_lazy_adamw(trajectories: Golden) -> None:
    options = trajectories.options["adamw"]
    weight = nn.Parameter(trajectories.arrays["weight"].clone())
    adamw = RowAdamW([weight], rule_of(trajectories, options["weight_decay"]))
    expected, stored = trajectories.under("adamw_lazy/"), options["steps_stored"]
    factor = float(options["learning_rates"].split("*")[0])  # 0.1 * optimiser/learning_rates
    for number in follow(trajectories, adamw, weight, factor):
        if number in stored:
            state = {"weight": weight.detach(), **adamw.state[weight]}
            for key, values in expected.items():
                equal(state[key], values[stored.index(number)])
