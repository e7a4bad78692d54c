"""Selectors and losses give what FaceX-Zoo's give, in float64."""

import json
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from facelab.training_mode.triplet.objectives.contrastive import contrastive
from facelab.training_mode.triplet.selection import Select, mean_where, positive_pairs, squared_distances, triplets

Arrays = dict[str, Tensor]
COPY = Path(__file__).resolve().parents[2] / "golden" / "algorithms"
NAMES: dict[Any, str] = {"hardest": "hardest", "random": "random_first", "semihard": "semihard_first", "all": "all"}


def margins(folder: Path) -> list[float]:
    options = json.loads((folder / "index.json").read_text())["triplet"]["options"]
    return [float(margin) for margin in options["margins"]]


def read(folder: Path) -> Arrays:
    with np.load(folder / "triplet.npz") as arrays:
        found = {name: torch.from_numpy(arrays[name]) for name in arrays}
    return {name: one.double() if one.is_floating_point() else one for name, one in found.items()}


def check(golden: Arrays, margin: float, select: Select) -> None:
    embedding, label = golden["embeddings"].clone().requires_grad_(), golden["labels"]
    pairs = positive_pairs(label)
    first = -torch.arange(len(label), dtype=torch.float64).expand(len(pairs), -1)
    found = triplets(squared_distances(embedding), label, pairs, margin, select, first)
    key = f"margin{margin:g}/{NAMES[select]}"
    if bool(golden.get(f"{key}/is_dummy", torch.tensor(False))):
        assert not bool(found.taken.any()), "the original takes a triplet that does not qualify"
        assert float(mean_where(found.excess.clamp_min(0.0), found.taken).detach()) == 0.0
        return
    loss = mean_where(found.excess.clamp_min(0.0), found.taken)
    loss.backward()
    torch.testing.assert_close(loss.detach(), golden[f"{key}/loss"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(embedding.grad, golden[f"{key}/grad_embeddings"], rtol=1e-4, atol=1e-5)
    if found.negative is None:
        rows, negative = found.taken.nonzero().unbind(dim=1)
        chosen, expected = torch.cat([pairs[rows], negative.unsqueeze(1)], dim=1), golden["all_triplets"]
    else:
        chosen = torch.cat([pairs, found.negative.unsqueeze(1)], dim=1)[found.taken]
        expected = golden[f"{key}/triplets"]
    assert sorted(map(tuple, chosen.tolist())) == sorted(map(tuple, expected.tolist()))


def check_pairs(golden: Arrays) -> None:
    embedding, label = golden["embeddings"], golden["labels"]
    torch.testing.assert_close(squared_distances(embedding), golden["squared_distance"], rtol=1e-4, atol=1e-6)
    assert positive_pairs(label).tolist() == golden["pairs/positive"].tolist()
    for key in {name.split("/")[0] for name in golden if name.startswith("contrastive")}:
        margin = float(key.removeprefix("contrastive_margin"))
        moved = embedding.clone().requires_grad_()
        loss = contrastive(squared_distances(moved), label, margin, hardest=True)
        loss.backward()
        torch.testing.assert_close(loss.detach(), golden[f"{key}/loss"], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(moved.grad, golden[f"{key}/grad_embeddings"], rtol=1e-4, atol=1e-5)


def check_given(golden: Arrays) -> None:
    """Triplets and pairs that are given and not chosen, of embeddings that keep their lengths."""
    anchor, positive, negative = (golden[f"plain/{name}"].clone() for name in ("anchor", "positive", "negative"))
    anchor.requires_grad_()
    number = torch.arange(len(anchor))
    label = torch.cat([number, number, number + len(anchor)])  # who is negative to one is to all
    distance = plain_distances(torch.cat([anchor, positive, negative]))
    pairs = torch.stack([number, number + len(anchor)], dim=1)
    given = triplets(distance, label, pairs, 0.5, "all").excess[number, number + 2 * len(anchor)]
    loss = given.clamp_min(0.0).mean()
    torch.testing.assert_close(loss.detach(), golden["plain/triplet_loss_margin0.5"], rtol=1e-4, atol=1e-6)
    (gradient,) = torch.autograd.grad(loss, anchor)
    torch.testing.assert_close(gradient, golden["plain/triplet_grad_anchor"], rtol=1e-4, atol=1e-5)
    each = [
        contrastive(plain_distances(torch.stack(pair)), torch.tensor([1, int(same)]), 2.5, hardest=False)
        for *pair, same in zip(anchor, positive, golden["plain/contrastive_target"], strict=True)
    ]
    loss = torch.stack(each).mean()
    torch.testing.assert_close(loss.detach(), golden["plain/contrastive_loss_margin2.5"], rtol=1e-4, atol=1e-6)
    (gradient,) = torch.autograd.grad(loss, anchor)
    torch.testing.assert_close(gradient, golden["plain/contrastive_grad_anchor"], rtol=1e-4, atol=1e-5)


def plain_distances(rows: Tensor) -> Tensor:
    """Squared, of rows of any length, (N, D) -> (N, N)."""
    return (rows.unsqueeze(0) - rows.unsqueeze(1)).square().sum(dim=2)


@pytest.fixture(scope="module")
def golden() -> Arrays:
    return read(COPY)


@pytest.mark.parametrize("select", get_args(Select))
@pytest.mark.parametrize("margin", margins(COPY))
def test_triplets_equal_those_of_the_original(margin: float, select: Select, golden: Arrays) -> None:
    check(golden, margin, select)


def test_pairs_equal_those_of_the_original(golden: Arrays) -> None:
    check_pairs(golden)


def test_given_triplets_and_pairs_equal_those_of_the_original(golden: Arrays) -> None:
    check_given(golden)


@pytest.mark.golden
def test_the_golden_folder(golden_root: Path) -> None:
    folder = golden_root / "algorithms"
    arrays = read(folder)
    check_pairs(arrays)
    check_given(arrays)
    for margin, select in product(margins(folder), get_args(Select)):
        check(arrays, margin, select)
