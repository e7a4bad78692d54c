"""FaceX-Zoo's ``data_conf.yaml``: where its test sets lie."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from facelab.errors import ConfigError
from facelab.outside.yaml import read_yaml
from facelab.test_protocol.protocols.rfw import GROUPS

DATA_CONF = "data_conf.yaml"
IMAGES, PAIRS, MASKED = "cropped_face_folder", "pairs_file_path", "megaface-mask"
IJBC_LISTS = ("template_media_list_path", "template_pair_list_path", "image_score_list_path")
MEGAFACE = {
    "root": IMAGES,
    "facescrub_list": "facescrub_list",
    "megaface_list": "megaceface_list",  # so it is spelt there
    "facescrub_noises": "facescrub_noises_file",
    "megaface_noises": "megaface_noises_file",
}

Options = dict[str, Any]


class _Section:
    """The paths of one set, or of several that belong together."""

    def __init__(self, conf: Path, name: str, entries: Any) -> None:
        if not isinstance(entries, Mapping):
            raise ConfigError(f"'{conf}': '{name}' must hold paths, got {entries!r}.")
        self._conf, self._name, self._entries = conf, name, entries
        self.absent = ""

    def says(self, key: str) -> bool:
        """Whether a switch is there and on."""
        return bool(self._entries.get(key, False))

    def path(self, key: str) -> str:
        """A path, from the folder of the file where it is relative; the first that does not exist is remembered.

        Raises:
            ConfigError: If the section does not have it.
        """
        if key not in self._entries:
            raise ConfigError(f"'{self._conf}': '{self._name}' has no '{key}'.")
        path = self._conf.parent / str(self._entries[key])
        if not path.exists():
            self.absent = self.absent or str(path)
        return str(path)


def _pairs(section: _Section) -> Options:
    return {"root": section.path(IMAGES), "pairs": section.path(PAIRS)}


def _megaface(section: _Section) -> Options:
    paths = {option: section.path(key) for option, key in MEGAFACE.items()}
    if section.says(MASKED):
        paths["masked"] = section.path("masked_cropped_face_folder")
    return paths


def _ijbc(section: _Section) -> Options:
    lists = [section.path(key) for key in IJBC_LISTS]
    # The lists lie in the folder ``meta`` of the root.
    return {"root": str(Path(lists[0]).parent.parent), "images": section.path(IMAGES), "aligned": True}


SETS: dict[str, tuple[str, str, Callable[[_Section], Options]]] = {
    "LFW": ("LFW", "LFW", _pairs),
    "CPLFW": ("CPLFW", "CPLFW", _pairs),
    "CALFW": ("CALFW", "CALFW", _pairs),
    "AgeDB30": ("AgeDB-30", "AgeDB30", _pairs),
    "MegaFace": ("MegaFace", "MegaFace", _megaface),
    "IJBC": ("IJB-C", "IJBC", _ijbc),
}
"""FaceX-Zoo's name -> name in tables, registered name, and how the options are read."""


def facexzoo_sets(conf: Path) -> tuple[dict[str, dict[str, Options]], dict[str, str]]:
    """Protocols of the sets that are there, by names for tables; and what the others lack.

    Raises:
        ConfigError: If the file cannot be read, or a set lacks a path.
    """
    sections = {name: _Section(conf, name, entries) for name, entries in read_yaml(conf).items()}
    specs: dict[str, dict[str, Options]] = {}
    missing: dict[str, str] = {}
    for name, (title, protocol, read) in SETS.items():
        if name not in sections:
            missing[title] = f"{name} in {conf.name}"
            continue
        options, absent = read(sections[name]), sections[name].absent
        if absent:
            missing[title] = absent
        else:
            specs[title] = {protocol: options}
    _rfw(conf, sections, specs, missing)
    return specs, missing


def _rfw(
    conf: Path, sections: Mapping[str, _Section], specs: dict[str, dict[str, Options]], missing: dict[str, str]
) -> None:
    """The groups, which are sets of their own there, as one protocol."""
    groups: dict[str, Options] = {}
    for group in GROUPS:
        section = sections.get(f"RFW_{group}")
        options = {} if section is None else _pairs(section)
        if section is None or section.absent:
            missing[f"RFW {group}"] = section.absent if section is not None else f"RFW_{group} in {conf.name}"
        else:
            groups[group] = options
    if groups:
        paths = {key: {group: options[key] for group, options in groups.items()} for key in ("root", "pairs")}
        specs["RFW"] = {"RFW": {**paths, "groups": list(groups)}}
