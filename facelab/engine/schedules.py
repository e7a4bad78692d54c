"""Learning rate of every update: constant, multistep, polynomial and cosine, each with a linear warm-up."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, Self

from pydantic import Field, model_validator

from facelab.config import Strict
from facelab.errors import ConfigError

ScheduleName = Literal["constant", "multistep", "polynomial", "cosine"]
Compat = Literal["none", "insightface", "transface", "swin"]

COMPAT_NEEDS: dict[str, ScheduleName] = {"insightface": "polynomial", "transface": "polynomial", "swin": "cosine"}


class ScheduleConfig(Strict):
    """How the learning rate moves; the ``schedule`` section of a run.

    Times are given in epochs and may be fractions; the rate changes from update to update.

    Attributes:
        name: ``constant``, ``multistep``, ``polynomial`` or ``cosine``.
        warmup_epochs: Length of the linear warm-up. The schedule proper fills the rest of the run, except that
            milestones count from the start of the run.
        warmup_start: Rate of the first update, in absolute terms. Without it the warm-up of w updates climbs
            ``base / w, 2 base / w, ... base``, so that no update is lost to a rate of 0 or shaken by the full rate.
        milestones: Epochs at which ``multistep`` multiplies the rate by ``gamma``.
        gamma: Factor of ``multistep``.
        power: Exponent of ``polynomial``: 1 is a straight line, 2 a parabola.
        minimum: Rate that ``polynomial`` and ``cosine`` would reach at the end of the run, in absolute terms.
        compat: Repeats the rates of a published program to the letter, oddities included, for comparisons:
            ``insightface`` (also PETALface; ``polynomial``): the very first update runs at the full rate, then the
            warm-up climbs from ``base / w``. ``transface`` (``polynomial``): the clock lags one update behind, so that
            a warm-up starts with two updates of rate 0, and every parameter group gets the rate of the first.
            ``swin`` (FaceX-Zoo's SwinTransformer recipe; ``cosine``): the clock lags one update behind and the cosine
            counts from the start of the run, so that the rate drops a little at the end of the warm-up.
    """

    name: ScheduleName = "constant"
    warmup_epochs: float = Field(default=0.0, ge=0.0)
    warmup_start: float | None = Field(default=None, ge=0.0)
    milestones: tuple[float, ...] = ()
    gamma: float = Field(default=0.1, gt=0.0, le=1.0)
    power: float = Field(default=1.0, gt=0.0)
    minimum: float = Field(default=0.0, ge=0.0)
    compat: Compat = "none"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        needed = COMPAT_NEEDS.get(self.compat, self.name)
        if needed != self.name:
            raise ValueError(f"compat '{self.compat}' repeats a {needed} schedule, not {self.name}")
        if self.name == "multistep" and not self.milestones:
            raise ValueError("multistep needs milestones, for example milestones: [10, 13, 16]; or set name: constant")
        if any(late <= early for early, late in pairwise((0.0, *self.milestones))):
            raise ValueError(f"milestones must grow and be above 0, not {list(self.milestones)}")
        if self.compat == "swin" and self.warmup_epochs and self.warmup_start is None:
            raise ValueError("compat 'swin' with a warm-up needs warmup_start, 5e-7 in the published recipe")
        return self

    def build(self, bases: Sequence[float], *, total_updates: int, updates_per_epoch: float) -> "Schedule":
        """The schedule of one run.

        Args:
            bases: Base learning rate of each parameter group.
            total_updates: Optimiser updates in the whole run.
            updates_per_epoch: Optimiser updates in one epoch; need not be whole.

        Raises:
            ConfigError: If the warm-up is longer than the run, or ``minimum`` or ``warmup_start`` above a base rate.
        """
        return Schedule(self, bases, total_updates, updates_per_epoch)


class Schedule:
    """Learning rates of one run, as a pure function of the number of updates done; nothing to save or to restore.

    Args:
        config: The settings.
        bases: Base learning rate of each parameter group.
        total_updates: Optimiser updates in the whole run.
        updates_per_epoch: Optimiser updates in one epoch.

    Raises:
        ConfigError: As `ScheduleConfig.build` says.
    """

    def __init__(
        self, config: ScheduleConfig, bases: Sequence[float], total_updates: int, updates_per_epoch: float
    ) -> None:
        self.config = config
        self.total = total_updates
        self.warmup = round(config.warmup_epochs * updates_per_epoch)
        self.milestones = [round(epoch * updates_per_epoch) for epoch in config.milestones]
        self.bases = [bases[0]] * len(bases) if config.compat == "transface" else list(bases)
        self._lag = 1 if config.compat in ("transface", "swin") else 0
        self._check()

    def rates(self, update: int) -> list[float]:
        """Learning rate of each parameter group while update number ``update`` (from 0) runs."""
        return [self.rate(base, update) for base in self.bases]

    def rate(self, base: float, update: int) -> float:
        """Learning rate of a group with base rate ``base`` while update number ``update`` (from 0) runs."""
        clock = max(update - self._lag, 0)
        if clock < self.warmup:
            return self._warmup_rate(base, clock)
        return self.config.minimum + (base - self.config.minimum) * self._decay(clock)

    def _warmup_rate(self, base: float, clock: int) -> float:
        start = self.config.warmup_start
        if self.config.compat == "insightface":
            return base * clock / self.warmup if clock else base
        if self.config.compat == "transface":
            return base * clock / self.warmup
        if start is None:
            return base * (clock + 1) / self.warmup
        return start + (base - start) * clock / self.warmup

    def _decay(self, clock: int) -> float:
        """What is left of the rate at ``clock`` updates, from 1 down to 0."""
        if self.config.name == "constant":
            return 1.0
        if self.config.name == "multistep":
            # The update that a milestone names has the lower rate already.
            return self.config.gamma ** bisect_right(self.milestones, clock)
        left = 1.0 - self._progress(clock)
        if self.config.name == "polynomial":
            return math.pow(left, self.config.power)
        return 0.5 * (1.0 - math.cos(math.pi * left))  # 1 + cos(pi (1 - left)), exact at the end

    def _progress(self, clock: int) -> float:
        """Part of the decay that is done, 0..1."""
        start = 0 if self.config.compat == "swin" else self.warmup
        # A warm-up may fill the whole run, and leave no time to divide by.
        return min((clock - start) / max(self.total - start, 1), 1.0)

    def _check(self) -> None:
        if self.warmup > self.total:
            raise ConfigError(
                f"schedule.warmup_epochs is {self.config.warmup_epochs:g} ({self.warmup} updates), but the whole run "
                f"has only {self.total} updates; shorten the warm-up or train longer."
            )
        for option, low in (("minimum", self.config.minimum), ("warmup_start", self.config.warmup_start or 0.0)):
            if low > min(self.bases):
                raise ConfigError(
                    f"schedule.{option} is {low:g}, above the learning rate {min(self.bases):g}; lower it, "
                    "or raise optimizer.lr."
                )
