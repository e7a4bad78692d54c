"""IJB 1:N: every probe is searched in both galleries, each by itself."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from facelab.test_protocol.base import Metric
from facelab.test_protocol.lists.ijb_files import Identification, People
from facelab.test_protocol.metrics.identification import Search, closed_set, cmc, open_set, search
from facelab.test_protocol.metrics.ijb_reference import evals_open_set, evals_ranks, merged_search
from facelab.test_protocol.metrics.metrics import Booleans, Floats
from facelab.test_protocol.metrics.score_tiles import Faces
from facelab.test_protocol.metrics.templates import Templates
from facelab.test_protocol.protocols.identification_report import fpir_name, open_set_metrics, rank_metrics, share

CURVE_RANKS = 100


@dataclass(frozen=True)
class GallerySearches:
    """All probes in each gallery. Probes whose person is not in a gallery are its non-mated ones.

    Attributes:
        names: Of the galleries.
        galleries: Their templates and people.
        probes: Templates and people of the probes.
        found: The search in each gallery.
        left_out: Templates of galleries and probes that have no readable image.
    """

    names: tuple[str, ...]
    galleries: tuple[Faces, ...]
    probes: Faces
    found: tuple[Search, ...]
    left_out: int

    @classmethod
    def of(cls, templates: Templates, lists: Identification) -> "GallerySearches":
        """Search all probes in each gallery.

        Raises:
            DataError: If a gallery or the probes have no template with a readable image.
        """
        probes = _faces(templates, lists.probes)
        galleries = tuple(_faces(templates, gallery) for gallery in lists.galleries)
        found = tuple(search(probes.vectors, gallery.vectors, probes.person, gallery.person) for gallery in galleries)
        listed = sum(len(part.template) for part in (*lists.galleries, lists.probes))
        left_out = listed - len(probes) - sum(map(len, galleries))
        return cls(tuple(gallery.name for gallery in lists.galleries), galleries, probes, found, left_out)


def _faces(templates: Templates, people: People) -> Faces:
    there: Booleans = ~templates.empty[people.template]
    return Faces(templates.values[people.template[there]], people.person[there])


def search_metrics(searches: GallerySearches, ranks: Sequence[int], fpirs: Sequence[float]) -> tuple[Metric, ...]:
    """The clean numbers: the mean of the galleries, then each gallery by itself."""
    each = [
        (*rank_metrics(found, ranks), *open_set_metrics(open_set(found, fpirs), len(found) - len(found.mated)))
        for found in searches.found
    ]
    both = " and ".join(searches.names)
    means = (_mean_metric(of_metric, f"mean of {both}") for of_metric in zip(*each, strict=True))
    apart = (
        replace(metric, name=f"{name} {metric.name}")
        for name, metrics in zip(searches.names, each, strict=True)
        for metric in metrics
    )
    return (*means, *apart)


def _mean_metric(metrics: Sequence[Metric], note: str) -> Metric:
    values = [metric.value for metric in metrics if metric.value is not None]
    if len(values) < len(metrics):
        return next(metric for metric in metrics if metric.value is None)
    return replace(metrics[0], value=float(np.mean(values)), note=note)


def merged_metrics(
    searches: GallerySearches, ranks: Sequence[int], fars: Sequence[float], project: str
) -> Iterator[Metric]:
    """What InsightFace's ``ijb_1n`` and AdaFace give: one gallery, thresholds from all non-mate scores pooled."""
    gallery = Faces(
        np.concatenate([part.vectors for part in searches.galleries]),
        np.concatenate([part.person for part in searches.galleries]),
    )
    merged = merged_search(searches.probes, gallery, ranks, fars)
    for rank, rate in zip(ranks, merged.rates, strict=True):
        yield share(f"rank-{rank} ({project})", rate, "both galleries as one", kind="reference")
    for far, recall, bound in zip(fars, merged.recall, merged.threshold, strict=True):
        note = f"mates above {bound:.4f}, from all other scores pooled; not a TPIR"
        yield share(f"recall@FAR={far:g} ({project})", recall, note, kind="reference")


def evals_metrics(
    searches: GallerySearches, ranks: Sequence[int], fpirs: Sequence[float], project: str
) -> Iterator[Metric]:
    """What InsightFace's ``ijb_evals`` gives: its mean, pooled over probes in ranks; then each gallery by itself."""
    names = [*(f"rank-{rank}" for rank in ranks), *map(fpir_name, fpirs)]
    rates = np.array(
        [
            [*closed_set(found, ranks), *(point.tpir for point in evals_open_set(found, fpirs))]
            for found in searches.found
        ]
    )
    mean = np.concatenate((evals_ranks(searches.found, ranks), rates[:, len(ranks) :].mean(axis=0)))
    why_not = "cannot be measured: a gallery has no probe with a mate, or none without"
    for place, values in (("", mean), *zip((f"{name} " for name in searches.names), rates, strict=True)):
        for name, value in zip(names, values.tolist(), strict=True):
            yield share(f"{place}{name} ({project})", value, kind="reference", why_not=why_not)


def search_curves(searches: GallerySearches) -> dict[str, Floats]:
    """Cumulative match characteristic, mean of the galleries; none if a gallery has no probe with a mate."""
    if not all(len(found.mated) for found in searches.found):
        return {}
    upto = min(CURVE_RANKS, *map(len, searches.galleries))
    rank, rates = cmc(searches.found[0], upto)[0], [cmc(found, upto)[1] for found in searches.found]
    return {"rank": rank, "rank_rate": np.mean(rates, axis=0)}
