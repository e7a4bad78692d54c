"""Losses give the numbers and gradients of the original programs, in float64."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from facelab.training_mode.distillation.losses.angular import angular
from facelab.training_mode.distillation.losses.fsp import flow
from facelab.training_mode.distillation.losses.ft import factor_transfer
from facelab.training_mode.distillation.losses.pkt import pkt
from facelab.training_mode.distillation.losses.snn_mimic import mimic
from facelab.training_mode.distillation.losses.soft_target import soft_target

Arrays = dict[str, Tensor]
Loss = Callable[[list[Tensor], list[Tensor]], Tensor]
COPY = Path(__file__).resolve().parents[2] / "golden" / "algorithms"
MAPS = ["map1", "map2", "map3", "map4"]


def read(folder: Path) -> Arrays:
    with np.load(folder / "kd.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]).double() for name in arrays}


def fsp(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    pairs = zip(pairwise(student), pairwise(teacher), strict=True)
    return torch.stack([F.mse_loss(flow(*own), flow(*other)) for own, other in pairs]).mean()


# Name in the file: what it compares, the names of its gradients, and ours.
LOSSES: dict[str, tuple[list[str], list[str], Loss]] = {
    "snn_mimic": (["logits"], ["grad_student"], lambda s, t: mimic(s[0], t[0], s[0].shape[1])),
    "soft_target_T4": (["logits"], ["grad_student"], lambda s, t: soft_target(s[0], t[0], 4.0)),
    "soft_target_T1": (["logits"], ["grad_student"], lambda s, t: soft_target(s[0], t[0], 1.0)),
    "pkt": (["feat"], ["grad_student"], lambda s, t: pkt(s[0], t[0])),
    "angular": (["feat"], ["grad_student"], lambda s, t: angular(s[0], t[0])),
    "fitnet": (["map4"], ["grad_map4_student"], lambda s, t: F.mse_loss(s[0], t[0])),
    "fsp": (MAPS, [f"grad_{name}_student" for name in MAPS], fsp),
    "ft": (["factor"], ["grad_student"], lambda s, t: factor_transfer(s[0], t[0])),
}


def check(golden: Arrays, name: str) -> None:
    inputs, gradients, loss = LOSSES[name]
    student = [golden[f"{key}_student"].clone().requires_grad_() for key in inputs]
    value = loss(student, [golden[f"{key}_teacher"] for key in inputs])
    value.backward()
    # Values of PKT are about 1e-4, and those of the original were computed in fp32.
    rtol, atol = (1e-3, 1e-8) if name == "pkt" else (1e-4, 1e-6)
    torch.testing.assert_close(value.detach(), golden[f"{name}/loss"], rtol=rtol, atol=atol)
    for tensor, key in zip(student, gradients, strict=True):
        torch.testing.assert_close(tensor.grad, golden[f"{name}/{key}"], rtol=rtol, atol=atol)


@pytest.fixture(scope="module")
def golden() -> Arrays:
    return read(COPY)


@pytest.mark.parametrize("name", LOSSES)
def test_equals_the_original(name: str, golden: Arrays) -> None:
    check(golden, name)


@pytest.mark.golden
def test_equals_the_original_in_the_golden_folder(golden_root: Path) -> None:
    arrays = read(golden_root / "algorithms")
    for name in LOSSES:
        check(arrays, name)
    assert {key.split("/")[0] for key in arrays if key.endswith("/loss")} == LOSSES.keys() | {"pkt_zero_row"}


def test_pkt_of_a_row_of_zeros_is_finite(golden: Arrays) -> None:
    value = pkt(golden["pkt_zero_row/feat_student"], golden["feat_teacher"])
    torch.testing.assert_close(value, golden["pkt_zero_row/loss"], rtol=1e-3, atol=1e-8)


def test_one_matrix_of_fsp(golden: Arrays) -> None:
    found = flow(golden["map1_student"], golden["map2_student"])
    torch.testing.assert_close(found, golden["fsp/matrix_12_student"], rtol=1e-4, atol=1e-6)
