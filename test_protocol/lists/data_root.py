"""What a folder of test sets holds: PETALface's, InsightFace's, FaceX-Zoo's and our own layout, as they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facelab.catalogue import Spec
from facelab.config import merge
from facelab.data.alignment.ijbs_lists import VIDEO_FOLDER
from facelab.errors import ConfigError, DataError, did_you_mean
from facelab.test_protocol.lists.facexzoo_conf import DATA_CONF, facexzoo_sets
from facelab.test_protocol.lists.ijbs_images import crop_folder

Options = dict[str, Any]
Specs = dict[str, dict[str, Options]]
"""Protocols by the name that tables show: ``{"CFP-FP": {"BinPack": {"path": …}}}``."""

PACK_TITLES = {
    "lfw": "LFW",
    "cfp_fp": "CFP-FP",
    "cplfw": "CPLFW",
    "agedb_30": "AgeDB-30",
    "calfw": "CALFW",
    "cfp_ff": "CFP-FF",
    "vgg2_fp": "VGG2-FP",
}
HQ_VAL = ("lfw", "cfp_fp", "cplfw", "agedb_30", "calfw", "cfp_ff")
INSIGHTFACE_VAL = ("lfw", "cfp_fp", "agedb_30")


@dataclass(frozen=True)
class Place:
    """Where a layout keeps a set.

    Attributes:
        name: Name in tables.
        protocol: Registered name.
        sign: What must be there, below the root.
        options: Options that are paths below the root.
        optional: Whether nobody misses it where the layout's other sets are.
    """

    name: str
    protocol: str
    sign: str
    options: Mapping[str, str]
    optional: bool = False


def _pack(path: str, optional: bool = False) -> Place:
    stem = Path(path).stem
    return Place(PACK_TITLES.get(stem, stem), "BinPack", path, {"path": path}, optional)


def _folder(name: str, protocol: str, path: str, optional: bool = False) -> Place:
    return Place(name, protocol, path, {"root": path}, optional)


PETALFACE = (
    *(_pack(f"HQ_val/{stem}.bin") for stem in HQ_VAL),
    _folder("IJB-B", "IJBB", "ijb/IJBB"),
    _folder("IJB-C", "IJBC", "ijb/IJBC"),
    _folder("IJB-S", "IJBS", "IJBS"),
    _folder("TinyFace", "TinyFace", "tinyface_aligned_112"),
)
OURS = (
    Place("LFW", "LFW", "lfw/pairs.txt", {"root": "lfw/images", "pairs": "lfw/pairs.txt"}),
    _folder("IJB-C", "IJBC", "IJBC"),
    Place("TinyFace", "TinyFace", "tinyface/Probe", {"root": "tinyface"}),
    _folder("IJB-S", "IJBS", "ijbs"),
)
LAYOUTS = (
    "HQ_val/*.bin, ijb/IJBB, ijb/IJBC, IJBS and tinyface_aligned_112 (PETALface), *.bin (InsightFace), data_conf.yaml "
    "(FaceX-Zoo), lfw, IJBC, tinyface and ijbs (facelab data synthetic)"
)


@dataclass(frozen=True)
class DataRoot:
    """Test sets in a folder.

    Attributes:
        root: The folder.
        specs: What was found.
        missing: What the same layouts have elsewhere: name and, in brackets, what would have to be there.
    """

    root: Path
    specs: Specs
    missing: tuple[str, ...]

    def describe(self) -> str:
        """One sentence of what was found and what not."""
        lacking = f"; not found: {', '.join(self.missing)}" if self.missing else ""
        return f"{self.root}: found {', '.join(self.specs)}{lacking}"

    def choose(self, given: Mapping[str, Spec | None]) -> dict[str, Spec]:
        """What was found with given protocols laid over it; those come first, and null leaves one out.

        Args:
            given: As a configuration has them, by the name that tables show.
        """
        chosen = merge(self.specs, given, ("*",))
        order = {**dict.fromkeys(given), **dict.fromkeys(chosen)}
        return {name: chosen[name] for name in order if chosen[name] is not None}

    def named(self, words: Mapping[str, Any]) -> dict[str, Spec | None]:
        """Options as the command line has them, by names of tables or protocols, as `choose` takes them.

        A name that was found, or whose protocol was found, adds options to it; another one names a protocol more.

        Raises:
            ConfigError: If null is given for what was not found.
        """
        given: dict[str, Spec | None] = {}
        for word, options in words.items():
            tables = [word] if word in self.specs else [name for name, spec in self.specs.items() if word in spec]
            if options is None and not tables:
                known = f"Found: {', '.join(self.specs)}."
                raise ConfigError(f"{word} was not found in {self.root}.{did_you_mean(word, self.specs)} {known}")
            for name in tables or [word]:
                (protocol,) = self.specs.get(name, {word: {}})
                given[name] = None if options is None else {protocol: options}
        return given


def chosen_protocols(data_root: Path | None, given: Mapping[str, Spec | None]) -> tuple[dict[str, Spec], str]:
    """Protocols of a configuration, and a sentence on what its data root holds (empty without one).

    Raises:
        ConfigError: If a ``data_conf.yaml`` cannot be read.
        DataError: If there is no such folder, or nothing in it.
    """
    if data_root is None:
        return {name: spec for name, spec in given.items() if spec is not None}, ""
    found = find_protocols(data_root)
    return found.choose(given), found.describe()


def find_protocols(root: Path) -> DataRoot:
    """Everything in a folder that can be tested on.

    Raises:
        ConfigError: If a ``data_conf.yaml`` cannot be read.
        DataError: If there is no such folder, or nothing in it.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder of test sets.")
    specs, missing = facexzoo_sets(root / DATA_CONF) if (root / DATA_CONF).is_file() else ({}, {})
    for layout in (PETALFACE, OURS, _insightface(root)):
        found = [place for place in layout if (root / place.sign).exists()]
        for place in found:
            if place.protocol == "IJBS" and _is_raw(root / place.sign):
                missing[place.name] = f"holds videos; cut the faces with: facelab data ijbs-crops {root / place.sign}"
            else:
                _add(specs, place, root)
        # A layout of which nothing is there is not this folder's, so none of its sets is missed.
        if any(not place.optional for place in found):
            missing = {place.name: place.sign for place in layout if not place.optional} | missing
    lacking = tuple(f"{name} ({reason})" for name, reason in missing.items() if name not in specs)
    if not specs:
        reason = f"found nothing to test on; not found: {', '.join(lacking)}" if lacking else "knows no test set in it"
        raise DataError(f"{root}: {reason}. Layouts: {LAYOUTS}.")
    return DataRoot(root, specs, lacking)


def _insightface(root: Path) -> tuple[Place, ...]:
    """The packs that InsightFace tests on, and whatever others lie beside them."""
    others = sorted(path.name for path in root.glob("*.bin") if path.stem not in INSIGHTFACE_VAL)
    return (*(_pack(f"{stem}.bin") for stem in INSIGHTFACE_VAL), *(_pack(name, optional=True) for name in others))


def _add(specs: Specs, place: Place, root: Path) -> None:
    name = f"{place.name} ({Path(place.sign).name})" if place.name in specs else place.name
    specs[name] = {place.protocol: {key: str(root / path) for key, path in place.options.items()}}


def _is_raw(folder: Path) -> bool:
    """Whether IJB-S has its videos but no face crops ``<subject>/videos_<video>_<frame>.jpg``."""
    crops = crop_folder(folder)
    return (folder / VIDEO_FOLDER).is_dir() and crops == folder and not any(folder.glob("*/videos_*"))
