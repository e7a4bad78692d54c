"""IJB-S: faces from surveillance video, searched for in galleries of photos and of other videos."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from facelab.citation import Citation
from facelab.data.formats.images import PathImages
from facelab.data.formats.open_files import open_files
from facelab.errors import one_of
from facelab.test_protocol.base import PROTOCOLS, Embeddings, Mistake, Protocol, Report
from facelab.test_protocol.lists.ijbs_files import Task, Template, read_tasks
from facelab.test_protocol.lists.ijbs_images import crop_folder, find_crops
from facelab.test_protocol.metrics.frame_sums import WEIGHTINGS, Weighting, longest_rows, weighted_sums
from facelab.test_protocol.metrics.metrics import Floats, Integers
from facelab.test_protocol.metrics.pair_scores import check_embeddings, unit
from facelab.test_protocol.protocols.identification_report import cmc_curves, hardest, rank_trials
from facelab.test_protocol.protocols.ijbs_search import Searched, search_task, task_metrics

CMC_RANKS = 50
Thresholds = Literal["exact", "reference"]


@PROTOCOLS.register("IJBS")
class IJBS(Protocol):
    """IJB-S (Kalka et al., BTAS 2018): five protocols, each closed set and open set.

    A template is the weighted mean of all its frames, scaled to norm 1; the frames of several videos are pooled, so
    that long videos weigh more. Scores are cosines. In the closed set both galleries are one (rank 1, 5, 10). In the
    open set each is searched by itself, probes whose subject is only in the other one being strangers, and the mean of
    both is given (TPIR at FPIR 1 and 10 %).
    A template none of whose frames has a crop is never found.

    Args:
        root: Folder with the lists (``ijbs_metadata.csv`` …, or ``cs6_metadata.csv`` …), in it or in ``protocols``.
        images: Face crops ``<subject>/videos_<video>_<frame>.jpg`` and ``<subject>/img_<n>.jpg`` in a folder or an
            archive. By default ``root/aligned``, ``crops`` or ``images``, else ``root`` itself.
        weighting: Weight of a frame's direction in its template: its ``norm`` (AdaFace), ``norm2``, its norm squared
            (PETALface), ``unit`` for equal weights, or ``quality``, its score.
        thresholds: ``exact``, or ``reference`` to have the numbers of AdaFace's and PETALface's programs first.
        flip: Whether the embeddings of an image and of its mirror image are added.
        name: Name in tables.

    Raises:
        DataError: If lists or crops are missing, a line is malformed, a subject is in both galleries, or a gallery has
            no mates.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="kalka2018ijbs",
        title="IJB-S: IARPA Janus Surveillance Video Benchmark",
        authors="Kalka, Nathan D. and Maze, Brianna and Duncan, James A. and O'Connor, Kevin and Elliott, Stephen and "
        "Hebert, Kaleb and Bryan, Julia and Jain, Anil K.",
        venue="IEEE International Conference on Biometrics Theory, Applications and Systems (BTAS)",
        year=2018,
    )

    def __init__(
        self,
        root: Path,
        images: Path | None = None,
        weighting: Weighting = "norm",
        thresholds: Thresholds = "exact",
        flip: bool = False,
        name: str = "IJB-S",
    ) -> None:
        one_of("weighting", weighting, WEIGHTINGS)
        one_of("thresholds", thresholds, ("exact", "reference"))
        self.weighting, self.thresholds, self.flip, self.name = weighting, thresholds, flip, name
        self.tasks = read_tasks(root)
        self._sighting = sightings(self.tasks)
        files = open_files(images if images is not None else crop_folder(Path(root)))
        names, self._group = find_crops(Path(root), files, self._sighting)
        self.images = PathImages(files.root, names)

    def evaluate(self, embeddings: Embeddings) -> Report:
        """Ranks and TPIR of all five protocols; curve, trials and mistakes are those of the first."""
        searched = self.search(embeddings)
        kinds: tuple[Literal["reference", "correct"], ...] = ("reference", "correct")
        wanted = kinds if self.thresholds == "reference" else kinds[1:]
        metrics = [metric for kind in wanted for task in searched for metric in task_metrics(task, kind)]
        first = searched[0]
        return Report(
            self.name,
            tuple(metrics),
            self.options(searched),
            cmc_curves(first.closed, min(CMC_RANKS, len(first.gallery))),
            rank_trials(first.closed, first.person),
            self._mistakes(first, embeddings),
        )

    def search(self, embeddings: Embeddings) -> tuple[Searched, ...]:
        """All probes searched for in their galleries, one result for each protocol.

        Raises:
            DataError: If the embeddings do not fit: other count, not finite, without the scores that are the weights.
        """
        check_embeddings(embeddings, self.images)
        sums = weighted_sums(
            embeddings, self._group, len(self._sighting), self.weighting, self.flip, self.images.location
        )
        numbers = {name: row for row, name in enumerate(dict.fromkeys(subject for subject, _ in self._sighting))}

        def vectors_of(templates: Sequence[Template]) -> Floats:
            rows = [[self._sighting[template.subject, medium] for medium in template.media] for template in templates]
            starts = np.cumsum([0, *map(len, rows[:-1])])
            # Frames are weighted in the sums already: a template adds up its sightings, and each frame is read once for
            # all five protocols.
            return unit(np.add.reduceat(sums[np.concatenate(rows)], starts, axis=0))

        return tuple(search_task(task, vectors_of, numbers) for task in self.tasks)

    def options(self, searched: Sequence[Searched]) -> Mapping[str, Any]:
        """Settings, and the size of each protocol."""
        sizes = {
            task.name: {"probes": len(task.person), "gallery": len(task.gallery), "templates without image": task.empty}
            for task in searched
        }
        return {"flip": self.flip, "weighting": self.weighting, "thresholds": self.thresholds, "protocols": sizes}

    def _mistakes(self, first: Searched, embeddings: Embeddings) -> tuple[Mistake, ...]:
        """The hardest errors; the image of a template is the one whose embedding is longest."""
        image = longest_rows(embeddings.values, self._group, len(self._sighting))

        def shown(templates: Sequence[Template]) -> Integers:
            rows = [[image[self._sighting[one.subject, medium]] for medium in one.media] for one in templates]
            return np.array([max(row) for row in rows], np.int64)

        return hardest(first.met, shown(self.tasks[0].probes), shown(first.gallery))


def sightings(tasks: Iterable[Task]) -> dict[tuple[str, str], int]:
    """A number for every (subject, medium) that some template needs."""
    templates = (template for task in tasks for part in (task.probes, *task.galleries) for template in part)
    pairs = dict.fromkeys((template.subject, medium) for template in templates for medium in template.media)
    return {pair: number for number, pair in enumerate(pairs)}
