"""Quality tables of protocols: which table belongs to which, found and checked before anything is embedded."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from torch import nn

from facelab.backbone.base import check_quality, check_scorer
from facelab.errors import ConfigError, did_you_mean
from facelab.quality.table import QualityScores, ScoreTable
from facelab.test_protocol.base import Protocol


def open_scores(
    protocols: Sequence[tuple[str, Protocol]],
    tables: Mapping[str, Path],
    network: nn.Module | None = None,
    *,
    complete: bool = True,
) -> dict[str, QualityScores]:
    """Scores of the images of each protocol that has a table.

    Args:
        protocols: Name for tables and protocol.
        tables: Score table by the protocol's name.
        network: What is to be tested; if it takes quality scores, every protocol needs a table.
        complete: Whether every image needs a score; else those that cannot be read may do without.

    Raises:
        ConfigError: If a table is for no protocol, one is missing that the network needs, or one is of another scorer
            than the network's gate.
        DataError: If a table is damaged, or misses an image.
    """
    names = [name for name, _ in protocols]
    check_names(tables, names)
    if network is not None and protocols:
        check_quality(network, given=tables.keys() == set(names))
    found = {name: (ScoreTable(tables[name]).of(of.images), of.images) for name, of in protocols if name in tables}
    for name, (scores, images) in found.items():
        if network is not None:
            check_scorer(network, scores.scorer, f"the quality table '{tables[name]}' of '{name}'")
        if complete:
            scores.require(images)
    return {name: scores for name, (scores, _) in found.items()}


def check_names(given: Iterable[str], names: Sequence[str]) -> None:
    """Refuse quality scores for a protocol that there is not.

    Raises:
        ConfigError: If so; the message suggests the nearest name.
    """
    for name in sorted(set(given) - set(names)):
        raise ConfigError(f"there is a quality table for '{name}', but no such protocol.{did_you_mean(name, names)}")
