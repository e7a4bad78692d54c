"""What a model's card says of its scores: thresholds for false match rates, and the way from a cosine to a probability.

A part of the card, so that it goes wherever the model goes. It names the weights by hash and the preprocessing: a
threshold says nothing of another checkpoint, or of mirrored images if there were none.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from facelab.errors import CheckpointError, ConfigError, in_range
from facelab.weights.state_hash import state_hash

KEY = "calibration"  # in a model's card
FEWEST_FALSE_MATCHES = 10  # at a threshold, so that its rate is known to about a third
FMRS = (1e-3, 1e-4, 1e-5, 1e-6)
STEEPEST = 1e6  # slope of a likelihood ratio over cosines, which float32 tells apart by 6e-8

Rate = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
Line = Annotated[str, Field(min_length=1, max_length=1000)]


class _Recorded(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class Threshold(_Recorded):
    """A cosine for a false match rate.

    Attributes:
        fmr: The false match rate that was asked for.
        threshold: Accept where the cosine is at least this.
        real_fmr: The rate that the different pairs really have there, at most ``fmr``.
        fmr_low: Lower end of its 95 % interval.
        fmr_high: Upper end.
        fnmr: False non-match rate of the same pairs there.
        fnmr_low: Lower end of its 95 % interval.
        fnmr_high: Upper end.
    """

    fmr: float = Field(gt=0.0, lt=1.0)
    threshold: float = Field(ge=-1.0, le=1.0)
    real_fmr: Rate
    fmr_low: Rate
    fmr_high: Rate
    fnmr: Rate
    fnmr_low: Rate
    fnmr_high: Rate


class Calibration(_Recorded):
    """The thresholds of a model and the map of its cosines to probabilities.

    Attributes:
        version: Of this record.
        weights: Hash of the weights that were measured.
        input: Size, colour order and range of their input, in words.
        flip: Whether the embeddings of mirrored images were added.
        resize: Whether images of another size were resized.
        any_photo: Whether those too that cannot be aligned faces by their shape.
        alignment: How the faces were aligned, as the images' record says; ``unknown`` without one.
        protocol: The protocol that was measured on.
        image_set: Hash of its images.
        same: Same pairs.
        different: Different pairs that the thresholds come from.
        impostors: ``listed`` for the protocol's pairs, ``all`` for every pair of images of two people.
        people: Number of people; None if they are unknown.
        thresholds: By falling false match rate.
        slope: Of the log-likelihood ratio over the cosine.
        offset: Log-likelihood ratio of the cosine 0.
        cllr: Cost of these likelihood ratios in bits; over disjoint people if there are ``folds``.
        min_cllr: The least that a rising map of the cosines could cost on the same pairs.
        folds: Folds of the cross-validation of ``cllr``; 0 if it was measured on the pairs that it was fitted to.
    """

    version: Literal[1]
    weights: str = Field(pattern="^[0-9a-f]{32}$")
    input: Line
    flip: bool
    resize: bool
    any_photo: bool
    alignment: Line
    protocol: Line
    image_set: Line
    same: Count
    different: Count
    impostors: Literal["listed", "all"]
    people: Count | None
    thresholds: tuple[Threshold, ...] = Field(max_length=32, strict=False)
    slope: float = Field(gt=0.0, le=STEEPEST)
    offset: float = Field(ge=-STEEPEST, le=STEEPEST)
    cllr: float = Field(ge=0.0, allow_inf_nan=False)
    min_cllr: float = Field(ge=0.0, allow_inf_nan=False)
    folds: Count

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        pairs = list(zip(self.thresholds, self.thresholds[1:], strict=False))
        if any(before.fmr <= after.fmr or before.threshold > after.threshold for before, after in pairs):
            raise ValueError("thresholds must rise while their false match rates fall")
        return self

    def at(self, fmr: float) -> Threshold:
        """The threshold for a false match rate.

        Raises:
            ConfigError: If there is none; the message says for which there are some.
        """
        in_range("fmr", fmr, 0.0, 1.0, low_open=True, high_open=True)
        for threshold in self.thresholds:
            if math.isclose(threshold.fmr, fmr, rel_tol=1e-9):
                return threshold
        known = ", ".join(rate_name(threshold.fmr) for threshold in self.thresholds) or "none"
        few = f"; {too_few(fmr, self.different)}" if is_too_few(fmr, self.different) else ""
        raise ConfigError(
            f"there is no threshold for the FMR {rate_name(fmr)}, calibrated on {self.protocol} ({known}){few}."
        )

    def check_use(self, *, flip: bool, resize: bool, any_photo: bool) -> None:
        """Refuse to judge cosines that were made otherwise than those that were calibrated.

        Raises:
            ConfigError: If mirrored or resized images are used where they were not, or the other way round.
        """
        for name, given in (("flip", flip), ("resize", resize), ("any_photo", any_photo)):
            if getattr(self, name) != given:
                option = f"--{name.replace('_', '-')}"
                raise ConfigError(
                    f"the thresholds were calibrated {'without' if given else 'with'} {option}, which changes the "
                    f"cosines; {'leave it out' if given else 'add it'}, or calibrate anew "
                    f"{'with' if given else 'without'} it."
                )

    def probability(self, scores: ArrayLike, prior: float = 0.5) -> NDArray[np.float64]:
        """Probability that two images show one person.

        Args:
            scores: Cosines, of any shape.
            prior: Share of same pairs among all that are compared, in (0, 1).

        Raises:
            ConfigError: If ``prior`` is out of range.
        """
        in_range("prior", prior, 0.0, 1.0, low_open=True, high_open=True)
        odds = self.slope * np.asarray(scores, np.float64) + self.offset + math.log(prior / (1.0 - prior))
        return np.asarray(np.exp(-np.logaddexp(0.0, -odds)))


def is_too_few(fmr: float, different: int) -> bool:
    """Whether fewer than ten false matches are to be expected at a false match rate."""
    return different * fmr < FEWEST_FALSE_MATCHES - 1e-9  # 10,000 times 1e-3 must count as ten


def too_few(fmr: float, different: int) -> str:
    """Why there is no threshold for a false match rate."""
    needed = math.ceil(FEWEST_FALSE_MATCHES / fmr - 1e-6)
    return f"it needs {needed:,} different pairs, {FEWEST_FALSE_MATCHES} / FMR, and there are {different:,}"


def rate_name(rate: float) -> str:
    """A rate as it is named: ``1e-3``, ``2.5e-4``."""
    mantissa, exponent = f"{rate:.6e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def calibration_of(
    card: Mapping[str, Any], state: Mapping[str, Tensor], input_described: str, where: str
) -> Calibration | None:
    """The calibration in a card that was checked already; None if there is none.

    Args:
        card: The description of a model.
        state: Its weights by name, in the network's order.
        input_described: What its input is.
        where: Names the model in messages.

    Raises:
        CheckpointError: If it is that of other weights or of another input.
    """
    if card.get(KEY) is None:
        return None
    found = Calibration.model_validate(card[KEY])
    mend = f"calibrate it anew: facelab calibrate {where} PROTOCOL"
    if found.input != input_described:
        raise CheckpointError(
            f"the calibration of '{where}' is that of another input ({found.input}, and not {input_described}); {mend}."
        )
    if found.weights != state_hash(state):
        raise CheckpointError(f"the calibration of '{where}' is that of other weights (by hash); {mend}.")
    return found
