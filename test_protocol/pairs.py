"""Pair lists in the formats of the field: LFW, RFW, CPLFW, CALFW, AgeDB-30 and CFP. Reading them touches no image."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facelab.errors import DataError
from facelab.test_protocol.metrics import Booleans, Integers

FAMILY_FOLDS = 10


@dataclass(frozen=True)
class PairList:
    """Pairs of images with their answers and folds.

    Attributes:
        images: Each distinct image once, in order of first appearance: names below the image root.
        pairs: Rows of ``images``, int64, (P, 2).
        same: Whether each pair shows one person, (P,).
        fold: Number of each pair's fold, from 0, int64, (P,).
    """

    images: tuple[str, ...]
    pairs: Integers
    same: Booleans
    fold: Integers

    @classmethod
    def of(cls, named: Iterable[tuple[str, str, bool]], fold: NDArray[np.int64]) -> "PairList":
        """Number the images of named pairs."""
        rows: dict[str, int] = {}
        table = [(rows.setdefault(a, len(rows)), rows.setdefault(b, len(rows)), same) for a, b, same in named]
        array = np.array(table, np.int64).reshape(-1, 3)
        return cls(tuple(rows), array[:, :2], array[:, 2] != 0, fold)

    def __len__(self) -> int:
        return len(self.same)

    @property
    def folds(self) -> int:
        """Number of folds."""
        return len(np.unique(self.fold))

    def named(self) -> Iterator[tuple[str, str, bool]]:
        """Both image names and the answer of each pair."""
        for (left, right), same in zip(self.pairs, self.same, strict=True):
            yield self.images[left], self.images[right], bool(same)

    def keep(self, rows: Booleans) -> "PairList":
        """Some of the pairs, in their order and in the folds they had; images that no pair needs are dropped."""
        kept = [pair for pair, wanted in zip(self.named(), rows, strict=True) if wanted]
        return PairList.of(kept, np.unique(self.fold[rows], return_inverse=True)[1].astype(np.int64))


def read_lfw(path: Path) -> PairList:
    """LFW's ``pairs.txt``: a header ``folds<TAB>n``, then for each fold n same and n different pairs.

    A header ``n`` alone means one fold. A same pair is ``name i j``, a different pair ``name1 i name2 j``, separated by
    tabs or blanks; names may contain blanks. An image is ``name/name_%04d.jpg``.

    Raises:
        DataError: If the file is missing or a line is not a pair; the message names file and line.
    """
    lines = _lines(path)
    number, header = next(lines, (1, ""))
    counts = header.split()
    if not 1 <= len(counts) <= 2 or not all(map(str.isdecimal, counts)):
        raise DataError(f"{path}:{number}: the first line must be 'folds<TAB>pairs', got '{header}'.")
    folds, half = (int(counts[0]), int(counts[1])) if len(counts) == 2 else (1, int(counts[0]))
    named = [_lfw_pair(path, number, line) for number, line in lines]
    if not named or len(named) != folds * 2 * half:
        raise DataError(
            f"{path}: the header promises {folds} folds of {half} same and {half} different pairs, "
            f"that is {folds * 2 * half}, but {len(named)} pairs follow."
        )
    fold = np.arange(len(named)) // (2 * half)
    same = np.bincount(fold, weights=[pair[2] for pair in named], minlength=folds)
    if (same != half).any():
        wrong = int(np.argmax(same != half))
        raise DataError(f"{path}: fold {wrong + 1} has {int(same[wrong])} same pairs, the header promises {half}.")
    return PairList.of(named, fold)


def read_rfw(path: Path) -> PairList:
    """RFW's ``RACE_pairs.txt``: as LFW without the header, in 10 folds of consecutive pairs.

    Raises:
        DataError: If the file is missing or a line is not a pair; the message names file and line.
    """
    named = [_lfw_pair(path, number, line) for number, line in _lines(path)]
    return PairList.of(named, _family_folds(path, len(named)))


def _lfw_pair(path: Path, number: int, line: str) -> tuple[str, str, bool]:
    fields = line.split("\t") if line.count("\t") in (2, 3) else _blank_separated(line)
    fields = [field.strip() for field in fields]
    if len(fields) == 3 and fields[1].isdecimal() and fields[2].isdecimal():
        return _lfw_image(fields[0], fields[1]), _lfw_image(fields[0], fields[2]), True
    if len(fields) == 4 and fields[1].isdecimal() and fields[3].isdecimal():
        return _lfw_image(fields[0], fields[1]), _lfw_image(fields[2], fields[3]), False
    raise DataError(f"{path}:{number}: expected 'name i j' or 'name1 i name2 j', got '{line}'.")


def _blank_separated(line: str) -> list[str]:
    """Fields of a line whose names may contain blanks, or nothing if it can be read in two ways."""
    words = line.split()
    numbers = [place for place, word in enumerate(words) if word.isdecimal() and place]
    if numbers == [len(words) - 2, len(words) - 1]:
        return [" ".join(words[:-2]), *words[-2:]]
    if len(numbers) == 2 and numbers[1] == len(words) - 1:
        first = numbers[0]
        return [" ".join(words[:first]), words[first], " ".join(words[first + 1 : -1]), words[-1]]
    return []


def _lfw_image(name: str, number: str) -> str:
    return f"{name}/{name}_{int(number):04d}.jpg"


def read_cplfw(path: Path) -> PairList:
    """CPLFW's ``pairs_CPLFW.txt``: two lines ``image label`` for each pair, of which the first label counts.

    All same pairs come first in the file. Fold k takes the k-th tenth of them, then the k-th tenth of the others.

    Raises:
        DataError: If the file is missing, or a line has no label; the message names file and line.
    """
    return _two_line_pairs(path)


def read_calfw(path: Path) -> PairList:
    """CALFW's ``pairs_CALFW.txt``: as CPLFW, with any label but 0 (there: the fold, from 1) for same pairs.

    Raises:
        DataError: If the file is missing, or a line has no label; the message names file and line.
    """
    return _two_line_pairs(path)


def _two_line_pairs(path: Path) -> PairList:
    rows = [_image_and_label(path, number, line) for number, line in _lines(path)]
    if len(rows) % 2:
        raise DataError(f"{path}: a pair takes two lines, but there is an odd number of them ({len(rows)}).")
    named = [(left, right, label != 0) for (left, label), (right, _) in zip(rows[::2], rows[1::2], strict=True)]
    _family_folds(path, len(named))
    by_class = [[pair for pair in named if pair[2]], [pair for pair in named if not pair[2]]]
    ordered: list[tuple[str, str, bool]] = []
    fold: list[int] = []
    for number in range(FAMILY_FOLDS):
        for pairs in by_class:
            share = pairs[_cut(pairs, number) : _cut(pairs, number + 1)]
            ordered += share
            fold += [number] * len(share)
    return PairList.of(ordered, np.array(fold, np.int64))


def _cut(pairs: list[tuple[str, str, bool]], fold: int) -> int:
    return len(pairs) * fold // FAMILY_FOLDS


def _image_and_label(path: Path, number: int, line: str) -> tuple[str, int]:
    fields = line.strip().rsplit(None, 1)
    if len(fields) != 2 or not re.fullmatch(r"-?\d+", fields[1]):
        raise DataError(f"{path}:{number}: expected 'image label', got '{line}'.")
    return fields[0], int(fields[1])


def read_agedb(path: Path) -> PairList:
    """AgeDB-30's ``04_FINAL_protocol_30_years.mat``: a cell of splits, each with 2 x n image stems and n labels.

    Labels are 1 for same pairs and -1 for others. Fields are taken by position, because their names differ between
    copies of the file. ``.jpg`` is added to a stem.

    Raises:
        DataError: If the file is missing, is not a MATLAB file, or does not have that form.
    """
    named: list[tuple[str, str, bool]] = []
    fold: list[int] = []
    for number, split in enumerate(_agedb_splits(path)):
        pairs = _agedb_split(split, f"{path}: split {number + 1}")
        named += pairs
        fold += [number] * len(pairs)
    return PairList.of(named, np.array(fold, np.int64))


def _agedb_splits(path: Path) -> list[object]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    if not path.is_file():
        raise DataError(f"{path}: there is no such file.")
    try:
        splits = loadmat(path, variable_names=["splits"], appendmat=False).get("splits")
    except (
        MatReadError,
        ValueError,
        TypeError,
        OSError,
        NotImplementedError,
        MemoryError,
        KeyError,
        IndexError,
    ) as error:
        raise DataError(f"{path}: is not a readable MATLAB file ({type(error).__name__}: {error}).") from None
    if not isinstance(splits, np.ndarray) or splits.dtype != object or not splits.size:
        raise DataError(f"{path}: has no variable 'splits' that is a cell of splits.")
    return list(splits.ravel())


def _agedb_split(split: object, where: str) -> list[tuple[str, str, bool]]:
    if not isinstance(split, np.ndarray) or split.size != 1 or len(split.dtype.names or ()) < 2:
        raise DataError(f"{where} is not a struct of pairs and labels.")
    pairs, labels = (split.ravel()[0][field] for field in (0, 1))
    labels = np.asarray(labels).ravel()
    if getattr(pairs, "ndim", 0) != 2 or pairs.shape[0] != 2 or pairs.shape[1] != len(labels):
        raise DataError(f"{where} must have 2 x n images and n labels, got {np.shape(pairs)} and {len(labels)}.")
    if not np.isin(labels, (1, -1, 0)).all():
        raise DataError(f"{where} has labels other than 1 and -1.")
    return [
        (f"{_stem(left, where)}.jpg", f"{_stem(right, where)}.jpg", bool(label == 1))
        for left, right, label in zip(pairs[0], pairs[1], labels, strict=True)
    ]


def _stem(cell: object, where: str) -> str:
    """The text inside nested 1x1 cells and structs."""
    for _ in range(8):
        if isinstance(cell, str) and cell:
            return cell
        if isinstance(cell, np.void) and cell.dtype.names:
            cell = cell[0]
        elif isinstance(cell, np.ndarray) and cell.size == 1:
            cell = cell.ravel()[0]
        else:
            break
    raise DataError(f"{where} holds something else than image names.")


def read_cfp(protocol: Path, kind: str) -> PairList:
    """CFP's ``Protocol`` folder: numbered image lists, and per fold ``same.txt`` and ``diff.txt`` of number pairs.

    Args:
        protocol: The folder with ``Pair_list_F.txt``, ``Pair_list_P.txt`` and ``Split``.
        kind: ``FF`` (frontal to frontal) or ``FP`` (frontal to profile).

    Returns:
        Pairs in folds; image names are relative to the folder above ``protocol``.

    Raises:
        DataError: If a file is missing or a line is wrong; the message names file and line.
    """
    if kind not in ("FF", "FP"):
        raise DataError(f"CFP has the kinds FF and FP, not '{kind}'.")
    lists = {letter: _cfp_images(protocol / f"Pair_list_{letter}.txt") for letter in set(kind)}
    named: list[tuple[str, str, bool]] = []
    fold: list[int] = []
    folders = sorted(folder for folder in (protocol / "Split" / kind).glob("*") if folder.is_dir())
    if not folders:
        raise DataError(f"{protocol / 'Split' / kind}: there are no folds.")
    for number, folder in enumerate(folders):
        for file, same in (("same.txt", True), ("diff.txt", False)):
            pairs = list(_cfp_pairs(folder / file, lists[kind[0]], lists[kind[1]]))
            named += [(left, right, same) for left, right in pairs]
            fold += [number] * len(pairs)
    return PairList.of(named, np.array(fold, np.int64))


def _cfp_images(path: Path) -> dict[str, str]:
    images = {}
    for number, line in _lines(path):
        key, _, image = line.strip().partition(" ")
        if not key.isdecimal() or not image.strip():
            raise DataError(f"{path}:{number}: expected 'number path', got '{line}'.")
        images[key] = image.strip().removeprefix("../")
    return images


def _cfp_pairs(path: Path, left: dict[str, str], right: dict[str, str]) -> Iterator[tuple[str, str]]:
    for number, line in _lines(path):
        first, _, second = (part.strip() for part in line.partition(","))
        if first not in left or second not in right:
            raise DataError(f"{path}:{number}: '{line}' does not name two images of the lists.")
        yield left[first], right[second]


def _family_folds(path: Path, count: int) -> Integers:
    if count < FAMILY_FOLDS:
        raise DataError(f"{path}: {count} pairs are too few for {FAMILY_FOLDS} folds.")
    return np.arange(count) * FAMILY_FOLDS // count


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers from 1.

    Raises:
        DataError: If the file is missing or is not text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file.") from None
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path}: cannot be read as text ({error}).") from None
    lines = text.replace("\r\n", "\n").split("\n")  # splitlines() would also cut at characters that a name may hold
    return ((number, line) for number, line in enumerate(lines, 1) if line.strip())
