"""Every metric of golden ``protocols/megaface``, by the protocol on files in their real layout."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facelab.test_protocol.base import Embeddings, Report
from facelab.test_protocol.lists.megaface_lists import read_feature_list
from facelab.test_protocol.metrics.mate_pairs import without_noise
from facelab.test_protocol.protocols.megaface import MegaFace

SMALL = Path(__file__).resolve().parent.parent / "golden"


class Golden:
    """One folder ``protocols/megaface``, with empty files for images below ``root``."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.root = folder, root
        self.expected: dict[str, Any] = json.loads((folder / "expected.json").read_text())["metrics"]
        lists = folder / "devkit" / "templatelists"
        self.faces = lists / "facescrub_features_list.json"
        self.lists = tuple(sorted(lists.glob("megaface_features_list.json_*_1")))
        longest = max((read_feature_list(path).images for path in self.lists), key=len)
        with np.load(folder / "embeddings.npz") as arrays:
            self.vectors = {name: arrays[name] for name in arrays.files}
        self.row = {name: row for row, name in enumerate(longest)}
        for kind, names in (("plain", read_feature_list(self.faces).images), ("strangers", longest)):
            for name in names:
                for below in ("plain", "masked") if kind == "plain" else (kind,):
                    path = root / below / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.touch()
        self.report = cache(self._report)

    def protocol(self, *, noise: bool, ranks: tuple[int, ...] = (1,), fars: tuple[float, ...] = (1e-3,)) -> MegaFace:
        noises = {
            name: None if noise else self.folder / f"{name}.txt" for name in ("facescrub_noises", "megaface_noises")
        }
        return MegaFace(
            self.root / "plain",
            self.faces,
            self.lists,
            self.root / "strangers",
            self.root / "masked",
            **noises,
            ranks=ranks,
            fars=fars,
            rules="facexzoo",
        )

    def embeddings(self, protocol: MegaFace) -> Embeddings:
        strangers = [
            protocol.images.location(row) for row in range(2 * len(self.vectors["facescrub"]), len(protocol.images))
        ]
        rows = [self.row[path.split("/strangers/")[1]] for path in strangers]
        parts = (self.vectors["facescrub"], self.vectors["facescrub_masked"], self.vectors["megaface"][rows])
        return Embeddings(np.concatenate(parts))

    def _report(self, noise: bool, ranks: tuple[int, ...], fars: tuple[float, ...]) -> Report:
        protocol = self.protocol(noise=noise, ranks=ranks, fars=fars)
        return protocol.evaluate(self.embeddings(protocol))

    def value(self, metric: str) -> Any:
        """What we compute for a metric."""
        expected = self.expected[metric]["value"]
        if metric == "info/counts":
            return self._counts()
        if metric.endswith("replacement_vector_of_first_listed_noisy_image"):
            return self._replacement(self.expected[metric]["options"])
        what = metric.rsplit("/", 1)[1]
        if what.startswith("tar_at_far_"):
            far = float(what.removeprefix("tar_at_far_"))
            report = self.report(False, (1,), (far,))
            return next(
                one.value for one in report.metrics if one.name.startswith("TAR@FAR") and one.name.count("@") == 1
            )
        ranks = tuple(map(int, expected)) if what == "rank" else (1,)
        found = self._ranks(metric, ranks)
        return found if what == "rank" else found["1"]

    def _ranks(self, metric: str, ranks: tuple[int, ...]) -> dict[str, Any]:
        size = int(re.findall(r"gallery_(\d+)", metric)[0])
        values = {one.name: one.value for one in self.report("with_noise" in metric, ranks, (1e-3,)).metrics}
        prefix = "masked " if "_masked/" in metric else ""
        suffix = "" if size == len(self.row) else f"@{size}"
        original = " (FaceX-Zoo)" if metric.startswith("facexzoo") else ""
        return {str(rank): values[f"{prefix}rank-{rank}{suffix}{original}"] for rank in ranks}

    def _counts(self) -> dict[str, Any]:
        protocol = self.protocol(noise=False)
        return {
            "facescrub_images": len(protocol.person),
            "facescrub_ids": len(np.unique(protocol.person)),
            "facescrub_noisy": int(protocol.noisy.sum()),
            "noisy_per_gallery": {str(len(rows)): int(protocol.noisy_strangers[rows].sum()) for rows in protocol.lists},
        }

    def _replacement(self, options: str) -> Any:
        protocol = self.protocol(noise=False)
        row = read_feature_list(self.faces).images.index(re.findall(r"image (\S+):", options)[0])
        return without_noise(self.vectors["facescrub"], protocol.person, protocol.noisy)[row]


def check_all(golden: Golden) -> None:
    wrong = []
    for name, entry in golden.expected.items():
        ours, expected, tolerance = golden.value(name), entry["value"], float(entry["tolerance"])
        if name == "info/counts":
            same = ours == expected
        elif isinstance(expected, dict):
            same = ours.keys() == expected.keys() and np.allclose(
                list(ours.values()), [expected[key] for key in ours], rtol=0, atol=tolerance
            )
        else:
            same = np.allclose(ours, expected, rtol=0, atol=tolerance)
        if not same:
            wrong.append(f"{name}: expected {expected}, got {ours}")
    assert not wrong, "\n".join(wrong)


def test_every_metric_of_the_small_copy(tmp_path: Path) -> None:
    check_all(Golden(SMALL / "protocols" / "megaface", tmp_path))


@pytest.mark.golden
def test_every_metric_of_the_golden_folder(golden_root: Path, tmp_path: Path) -> None:
    check_all(Golden(golden_root / "protocols" / "megaface", tmp_path))
