"""Quality scores by scorers that settings name: each set of images is scored once, and its table is kept."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from facelab import distributed
from facelab.backbone.base import takes_quality
from facelab.catalogue import resolve
from facelab.data.base import ImageSet
from facelab.data.sources.resized import ResizedImages
from facelab.errors import ConfigError
from facelab.iqa.base import SCORERS, PixelScorer, Scorer
from facelab.iqa.scored_set import ScoringOptions
from facelab.iqa.shares import score_in_shares
from facelab.model.kept_scores import kept_table, score_once
from facelab.progress import OnProgress, OnStage
from facelab.quality.card import ScoreSource
from facelab.quality.table import write_scores
from facelab.test_protocol.base import Protocol
from facelab.test_protocol.extraction.quality import check_names

OpenNetwork = Callable[[], nn.Module]
"""Loads the trained network that a scorer asks, when one does."""


@dataclass(frozen=True)
class Scoring:
    """How sets of images get their quality scores.

    Tables are kept in ``FACELAB_CACHE``, else ``facelab`` in the user's cache folder, under a hash of scorer, its
    version and the set, so that no run scores an image twice that it, another one or ``facelab iqa score`` has scored.

    Attributes:
        network: Opens the trained network that scorers take which need one, or None.
        device: Where scorers compute.
        show: Told what is scored, the images done and all images.
        size: Height and width that images are brought to first, as the network will see them; None for as they are.
    """

    network: OpenNetwork | None
    device: torch.device
    show: OnStage | None = None
    size: tuple[int, int] | None = None

    def table(self, quality: ScoreSource, images: ImageSet, what: str) -> Path:
        """The score table of some images: the one that is named, or that of the scorer that is named.

        Every process of a distributed run must call this; each scores a share of the images, and the main one writes.

        Args:
            quality: A path, or a scorer as ``{name: options}``.
            images: What needs scores.
            what: What progress calls them.

        Raises:
            ConfigError: If the scorer cannot be built.
            DataError: If an image cannot be scored, or the table cannot be written.
        """
        if isinstance(quality, Path):
            return quality
        scorer = build_scorer(quality, self.network)
        seen = images if self.size is None else ResizedImages(images, *self.size)
        if isinstance(scorer, PixelScorer):
            return score_once(scorer, seen, ScoringOptions(self.device), self._progress(what))[0]
        path = kept_table(scorer.card, seen, str(quality))  # looked up anew: files may change
        found = score_in_shares(scorer, seen, ScoringOptions(self.device), self._progress(what))
        distributed.together(
            lambda: write_scores(path, seen, found.values, scorer.card) if distributed.is_main() else None
        )
        return path

    def online(self, quality: ScoreSource) -> PixelScorer:
        """The scorer that is named, for images that exist in a step only.

        Raises:
            ConfigError: If it cannot be built, is a table, or looks at more than pixels.
        """
        scorer = None if isinstance(quality, Path) else build_scorer(quality, self.network)
        if not isinstance(scorer, PixelScorer):
            raise ConfigError(
                f"data.online_quality: {quality} cannot score augmented images; choose a scorer of pixels, such as "
                "{Sharpness: {}}."
            )
        return scorer

    def tables(
        self,
        given: Mapping[str, ScoreSource],
        protocols: Sequence[tuple[str, Protocol]],
        network: nn.Module,
        default: ScoreSource | None,
    ) -> dict[str, Path]:
        """Score tables by the names of protocols.

        Args:
            given: What the settings say of each protocol.
            protocols: Names and protocols.
            network: What is to be tested.
            default: The scorer of its training images; protocols that nothing is said of take it if the network
                needs scores.

        Raises:
            ConfigError: If something is said of an unknown protocol.
        """
        check_names(given, [name for name, _ in protocols])
        usual = default if takes_quality(network) and not isinstance(default, Path) else None
        chosen = {name: given.get(name, usual) for name, _ in protocols}
        return {
            name: self.table(quality, protocol.images, f"scoring {name}")
            for name, protocol in protocols
            if (quality := chosen[name]) is not None
        }

    def _progress(self, what: str) -> OnProgress | None:
        show = self.show
        return None if show is None else lambda done, total: show(what, done, total)


def build_scorer(spec: dict[str, dict[str, Any] | None], network: OpenNetwork | None) -> Scorer:
    """The scorer that settings name.

    Args:
        spec: ``{name: options}``.
        network: Opens the trained network that scorers take which need one, or None.

    Raises:
        ConfigError: If it is unknown, an option is wrong, or it needs a network and there is none.
        CheckpointError: If that network cannot be loaded.
    """
    name, options = resolve(SCORERS, spec)
    if "network" not in SCORERS.parameters(name):
        return SCORERS.build(name, options)
    if network is None:
        raise ConfigError(f"the scorer '{name}' asks a trained network, but the settings name no base model.")
    return SCORERS.build(name, options, network=network())
