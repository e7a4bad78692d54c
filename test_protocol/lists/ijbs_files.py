"""The five protocols of IJB-S as its lists give them: templates to search for, and the two galleries of each."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from facelab.data.alignment.ijbs_lists import METADATA, find_lists, medium_at, read_list_rows, subject_at
from facelab.errors import DataError

GALLERIES = ("surveillance", "single", "booking")
PROBES = ("surveillance_to_single-booking", "surveillance_to_surveillance", "uav_to_single-booking")
TASKS = (
    "surveillance_to_single",
    "surveillance_to_booking",
    "surveillance_to_surveillance",
    "multiview_surveillance_to_booking",
    "uav_surveillance_to_booking",
)


@dataclass(frozen=True)
class Template:
    """The pictures of one subject that are compared as one.

    Attributes:
        subject: Who.
        media: Where the subject is seen: videos, ``videos/4310``, and images, ``img/100018``; at least one.
    """

    subject: str
    media: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """One of the five protocols.

    Attributes:
        name: For example ``surveillance_to_booking``.
        probes: Templates to search for.
        galleries: G1 and G2, which share no subject.
    """

    name: str
    probes: tuple[Template, ...]
    galleries: tuple[tuple[Template, ...], tuple[Template, ...]]


class _Sightings:
    """Who is seen in which medium."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.subjects: dict[str, list[str]] = {}  # by medium
        self.media: dict[str, list[str]] = {}  # by subject
        seen: set[tuple[str, str]] = set()
        for line, row in read_list_rows(path, file_column=1):
            pair = (row[0], row[1])
            if pair in seen:  # a video has one line for each frame, millions in all
                continue
            seen.add(pair)
            subject, medium = subject_at(path, line, row[0]), medium_at(path, line, row[1])
            self.subjects.setdefault(medium, []).append(subject)
            self.media.setdefault(subject, []).append(medium)

    def probes(self, path: Path) -> tuple[Template, ...]:
        """A template for every subject seen in each of the listed media."""
        found: list[Template] = []
        first: dict[str, int] = {}
        for line, row in read_list_rows(path, file_column=0):
            medium = medium_at(path, line, row[0])
            if first.setdefault(medium, line) != line:
                raise DataError(f"{path}:{line}: '{row[0]}' is listed a second time, first on line {first[medium]}.")
            if medium not in self.subjects:
                raise DataError(f"{path}:{line}: nobody is seen in '{row[0]}', says {self.path}.")
            found += [Template(subject, (medium,)) for subject in self.subjects[medium]]
        return tuple(found)

    def all_videos(self, probes: Iterable[Template]) -> tuple[Template, ...]:
        """For each subject of ``probes`` one template of all its videos, those of the galleries included."""
        subjects = dict.fromkeys(probe.subject for probe in probes)
        videos = {name: [medium for medium in self.media[name] if medium.startswith("videos/")] for name in subjects}
        return tuple(Template(name, tuple(media)) for name, media in videos.items())


def read_tasks(root: Path) -> tuple[Task, ...]:
    """The five protocols.

    A probe is one subject in one video (for the UAV protocol also in one image), whoever else is seen there. Multiview
    probes are all videos of a subject of the surveillance-to-surveillance list. A gallery template of surveillance is
    one subject in one video, of ``single`` and ``booking`` all listed images of one subject.

    Args:
        root: Folder of the lists, with prefix ``ijbs_`` or ``cs6_``, or one that has them in ``protocols``.

    Raises:
        DataError: If a list is missing, a line is malformed (the message names file and line), a subject is in both
            galleries, or no probe has a mate in a gallery.
    """
    folder, prefix = find_lists(Path(root))
    seen = _Sightings(folder / f"{prefix}{METADATA}")
    surveillance, to_surveillance, uav = (seen.probes(folder / f"{prefix}{name}_probe.csv") for name in PROBES)
    galleries = {kind: _read_galleries(folder / "galleries", prefix, kind) for kind in GALLERIES}
    probes = (surveillance, surveillance, to_surveillance, seen.all_videos(to_surveillance), uav)
    kinds = ("single", "booking", "surveillance", "booking", "booking")
    tasks = tuple(
        Task(name, of_task, galleries[kind]) for name, of_task, kind in zip(TASKS, probes, kinds, strict=True)
    )
    for task, kind in zip(tasks, kinds, strict=True):
        _require_mates(task, [_gallery_path(folder / "galleries", prefix, kind, number) for number in (1, 2)])
    return tasks


def _gallery_path(folder: Path, prefix: str, kind: str, number: int) -> Path:
    return folder / f"{prefix}surveillance_to_{kind}_g{number}.csv"


def _read_galleries(folder: Path, prefix: str, kind: str) -> tuple[tuple[Template, ...], tuple[Template, ...]]:
    owner: dict[str, Path] = {}
    first, second = (_read_gallery(_gallery_path(folder, prefix, kind, number), kind, owner) for number in (1, 2))
    return first, second


def _read_gallery(path: Path, kind: str, owner: dict[str, Path]) -> tuple[Template, ...]:
    """The templates of one list; ``owner`` keeps the gallery of each subject."""
    media: dict[str, dict[str, int]] = {}
    for line, row in read_list_rows(path, file_column=2):
        subject, medium = subject_at(path, line, row[1]), medium_at(path, line, row[2])
        if owner.setdefault(subject, path) != path:
            raise DataError(f"{path}:{line}: subject {subject} is in the other gallery too, {owner[subject].name}.")
        first = media.setdefault(subject, {}).setdefault(medium, line)
        if first != line and kind != "surveillance":  # a video has one line for each frame
            raise DataError(
                f"{path}:{line}: '{row[2]}' of subject {subject} is listed a second time, first on {first}."
            )
    if kind == "surveillance":
        return tuple(Template(subject, (medium,)) for subject, of in media.items() for medium in of)
    return tuple(Template(subject, tuple(of)) for subject, of in media.items())


def _require_mates(task: Task, paths: list[Path]) -> None:
    searched = {probe.subject for probe in task.probes}
    for gallery, path in zip(task.galleries, paths, strict=True):
        if not any(template.subject in searched for template in gallery):
            raise DataError(f"{path}: none of its subjects is searched for by {task.name}; the gallery has no mates.")
