"""The errors of `doctor`: a copy of a set of aligned faces in which a known part is spoilt, the same for every seed."""

import io
import json
import tarfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from facelab.data.base import Pixels
from facelab.data.formats.conversion import encode_jpeg
from facelab.data.formats.images import decode_image
from facelab.data.sources.image_folder import ImageFolder

SPOIL = ("unreadable", "size", "colour", "alignment", "quality")
LABELS = ("wrong label", "several people", "two labels", "outlier")
COPIES = ("duplicate", "duplicate elsewhere", "overlap")
GROUPS: dict[str, tuple[str, ...]] = {"nothing": (), "pixels": SPOIL, "labels": LABELS, "copies": COPIES}
"""Kinds that are planted into one copy: those of two groups would hide each other."""

STRANGERS = 1500
Random = np.random.Generator


@dataclass
class Planted:
    """A copy with errors.

    Attributes:
        files: Encoded images by ``person/name``.
        truth: By kind, what was planted: names of images, or of two folders for ``two labels``.
        test: A test set in the same form.
        strangers: Images of other people.
    """

    files: dict[str, bytes]
    truth: dict[str, list[list[str]]] = field(default_factory=lambda: defaultdict(list))
    test: dict[str, bytes] = field(default_factory=dict)
    strangers: dict[str, bytes] = field(default_factory=dict)

    def people(self) -> dict[str, list[str]]:
        """Images of each folder."""
        found: dict[str, list[str]] = defaultdict(list)
        for name in self.files:
            found[name.partition("/")[0]].append(name)
        return found

    def move(self, name: str, person: str, mark: str) -> str:
        """Put an image into another folder; gives its new name."""
        new = f"{person}/{mark}_{name.rpartition('/')[2]}"
        self.files[new] = self.files.pop(name)
        return new


def halves(source: ImageFolder) -> tuple[set[int], set[int]]:
    """People to choose thresholds on, and people to report."""
    order = np.random.default_rng(0).permutation(source.num_classes)
    return set(order[::2].tolist()), set(order[1::2].tolist())


def plant(source: ImageFolder, people: set[int], group: str, share: float, seed: int) -> Planted:
    """A copy of some people with errors.

    Args:
        source: Aligned faces.
        people: Classes to copy; the others are strangers.
        group: A key of `GROUPS`.
        share: How many images (people, where an error is one of people) each kind concerns, 0..1.
        seed: Chooses them.
    """
    rows, others = list[int](), list[int]()
    for row, label in enumerate(source.labels.tolist()):
        (rows if label in people else others).append(row)
    planted = Planted({source.name(row): source.encoded(row) for row in rows})
    random = np.random.default_rng(seed)
    strangers = [others[at] for at in random.permutation(len(others))[:STRANGERS].tolist()]
    planted.strangers = {source.name(row): source.encoded(row) for row in strangers}
    if group in PLANTERS:
        PLANTERS[group](planted, round(share * len(rows)), random)
    return planted


def plant_pixels(planted: Planted, count: int, random: Random) -> None:
    """Spoil the pixels of ``count`` images in each of five ways."""
    names = sorted(planted.files)
    order = random.permutation(len(names))
    for number, kind in enumerate(SPOIL):
        for at in order[number * count : (number + 1) * count].tolist():
            planted.files[names[at]] = SPOILERS[kind](planted.files[names[at]], random)
            planted.truth[kind].append([names[at]])


def plant_labels(planted: Planted, count: int, random: Random) -> None:
    """Images under another person, people under one name, one under two, and images of people who are not in the set.

    A person takes part in one of the first three. Of strangers there are half as many.
    """
    people = planted.people()
    large = [name for name in sorted(people) if len(people[name]) >= 4]
    random.shuffle(large)
    part = max(2, len(large) // 4)
    split, merged, givers = large[:part], large[part : 3 * part], large[3 * part :]
    for name in split[: max(1, part // 2)]:
        images = sorted(people[name])
        random.shuffle(images)
        for image in images[: len(images) // 2]:
            planted.move(image, f"{name}__2", "s")
        planted.truth["two labels"].append([name, f"{name}__2"])
    for first, second in zip(merged[0:part:2], merged[1:part:2], strict=False):
        few, many = sorted((first, second), key=lambda name: len(people[name]))
        for image in people[few]:
            planted.truth["several people"].append([planted.move(image, many, "m")])
    takers = [name for name in sorted(people) if 2 <= len(people[name]) < 4] or givers
    wrong = [image for name in givers for image in sorted(people[name])[2:]]
    random.shuffle(wrong)
    for image in wrong[:count]:
        taker = takers[random.integers(len(takers))]
        if image.startswith(f"{taker}/"):
            continue
        planted.truth["wrong label"].append([planted.move(image, taker, "w")])
    hosts = [name for name in givers if len(people[name]) > 3]
    for image in sorted(planted.strangers)[: count // 2]:
        name = f"{hosts[random.integers(len(hosts))]}/o_{image.rpartition('/')[2]}"
        planted.files[name] = planted.strangers[image]
        planted.truth["outlier"].append([name])


def plant_copies(planted: Planted, count: int, random: Random) -> None:
    """Copies under the same person and under others, and a test set with some of the people."""
    names = sorted(planted.files)
    people = planted.people()
    chosen = random.permutation(len(names))
    folders = sorted(people)
    for at in chosen[:count].tolist():
        copy = f"{names[at].removesuffix('.jpg')}_d.jpg"
        planted.files[copy] = altered(planted.files[names[at]], random)
        planted.truth["duplicate"].append([names[at], copy])
    for at in chosen[count : 2 * count].tolist():
        person = folders[random.integers(len(folders))]
        if person == names[at].partition("/")[0]:
            continue
        copy = f"{person}/e_{names[at].rpartition('/')[2]}"
        planted.files[copy] = altered(planted.files[names[at]], random)
        planted.truth["duplicate elsewhere"].append([names[at], copy])
    pairs = [name for name in folders if len(people[name]) >= 2]
    random.shuffle(pairs)
    for person in pairs[: max(1, len(pairs) // 10)]:
        image = sorted(people[person])[0]
        if image not in planted.files or any(image in one for one in planted.truth["duplicate"]):
            continue
        planted.test[image] = planted.files.pop(image)
        planted.truth["overlap"] += [[name] for name in sorted(planted.files) if name.startswith(f"{person}/")]
    gone = set(planted.test)
    planted.test |= planted.strangers
    for kind in ("duplicate", "duplicate elsewhere"):
        planted.truth[kind] = [pair for pair in planted.truth[kind] if not gone & set(pair)]


PLANTERS: dict[str, Callable[[Planted, int, Random], None]] = {
    "pixels": plant_pixels,
    "labels": plant_labels,
    "copies": plant_copies,
}


def cut_short(data: bytes, random: Random) -> bytes:
    """Half of the files end early, the others have no image in them."""
    if random.random() < 0.5:
        return data[: int(len(data) * random.uniform(0.1, 0.7))]
    return random.integers(0, 256, len(data), dtype=np.uint8).tobytes()


def resized(data: bytes, random: Random) -> bytes:
    """Another size."""
    height, width = random.choice([96, 100, 120, 128, 160]), random.choice([96, 112, 128])
    return _jpeg(cv2.resize(_pixels(data), (int(width), int(height))))


def swapped(data: bytes, random: Random) -> bytes:
    """Blue stored as red."""
    return _jpeg(_pixels(data)[..., ::-1])


def misaligned(data: bytes, random: Random) -> bytes:
    """Shifted by 10 to 20 pixels, turned by 15 to 40 degrees, or of 0.6 to 0.8 or 1.25 to 1.6 times the size."""
    matrix = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    kind = random.integers(3)
    if kind == 0:
        angle, far = random.uniform(0, 2 * np.pi), random.uniform(10, 20)
        matrix[:, 2] = far * np.cos(angle), far * np.sin(angle)
    else:
        angle = random.uniform(15, 40) * random.choice([-1, 1]) if kind == 1 else 0.0
        low, high = ((0.6, 0.8), (1.25, 1.6))[random.integers(2)]
        matrix = cv2.getRotationMatrix2D((55.5, 55.5), angle, random.uniform(low, high) if kind == 2 else 1.0)
    return _jpeg(cv2.warpAffine(_pixels(data), matrix, (112, 112), borderMode=cv2.BORDER_REFLECT_101))


def blurred(data: bytes, random: Random) -> bytes:
    """Through a Gaussian of 2 to 4 pixels."""
    return _jpeg(cv2.GaussianBlur(_pixels(data), (0, 0), random.uniform(2.0, 4.0)))


def altered(data: bytes, random: Random) -> bytes:
    """The same file, compressed anew, brighter or darker, at half resolution and back, or mirrored."""
    kind = random.integers(5)
    if kind == 0:
        return data
    pixels = _pixels(data)
    if kind == 2:
        pixels = np.clip(pixels * random.uniform(0.7, 1.3), 0, 255).astype(np.uint8)
    if kind == 3:
        pixels = cv2.resize(cv2.resize(pixels, (56, 56), interpolation=cv2.INTER_AREA), (112, 112))
    if kind == 4:
        pixels = pixels[:, ::-1]
    return encode_jpeg(np.ascontiguousarray(pixels), 60 if kind == 1 else 90)


SPOILERS: dict[str, Callable[[bytes, Random], bytes]] = {
    "unreadable": cut_short,
    "size": resized,
    "colour": swapped,
    "alignment": misaligned,
    "quality": blurred,
}


def write(planted: Planted, folder: Path) -> None:
    """``train.tar``, ``test.tar`` and ``truth.json`` in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, files in (("train", planted.files), ("test", planted.test)):
        if files:
            _write_tar(folder / f"{name}.tar", files)
    (folder / "truth.json").write_text(json.dumps(planted.truth))


def _write_tar(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name in sorted(files):
            member = tarfile.TarInfo(name)
            member.size = len(files[name])
            archive.addfile(member, io.BytesIO(files[name]))


def _pixels(data: bytes) -> Pixels:
    return decode_image(data, "an image")


def _jpeg(pixels: Sequence[object] | Pixels) -> bytes:
    return encode_jpeg(np.ascontiguousarray(pixels), 95)
