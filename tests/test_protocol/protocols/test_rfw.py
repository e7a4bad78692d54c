"""RFW: groups in one pass, mean and spread worked by hand, trials and mistakes over all groups."""

import json
from pathlib import Path

import numpy as np
import pytest

from facelab.errors import ConfigError, DataError
from facelab.test_protocol.base import Embeddings, Report
from facelab.test_protocol.protocols.rfw import GROUPS, RFW


def write_groups(root: Path) -> None:
    """Groups A and B: 10 folds of a same and a different pair; the numbers of people repeat in both groups."""
    for group in "AB":
        lines = []
        for fold in range(10):
            lines += [f"m.{fold}\t1\t2", f"m.{fold}\t1\tm.{fold}x\t1"]
            for name in (f"m.{fold}/m.{fold}_0001.jpg", f"m.{fold}/m.{fold}_0002.jpg", f"m.{fold}x/m.{fold}x_0001.jpg"):
                path = root / "data" / group / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"")
        (root / "txts" / group).mkdir(parents=True)
        (root / "txts" / group / f"{group}_pairs.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture
def protocol(tmp_path: Path) -> RFW:
    write_groups(tmp_path)
    return RFW(tmp_path / "data", tmp_path / "txts", ("A", "B"))


def evaluated(protocol: RFW) -> Report:
    """In group B the different pairs of folds 0 and 1 are as alike as the same pairs."""
    values = np.zeros((60, 2), np.float32)
    for image in range(60):
        stranger = image % 3 == 2 and image not in (32, 35)
        values[image] = (0, 1) if stranger else (1, 0)
    return protocol.evaluate(Embeddings(values))


def test_mean_and_spread(protocol: RFW) -> None:
    report = evaluated(protocol)
    values = {metric.name: metric.value for metric in report.metrics}
    assert values["accuracy A"] == 1.0
    assert values["accuracy B"] == pytest.approx(0.9)  # folds 0 and 1 have one of two pairs right
    assert report.headline.name == "accuracy"
    assert report.headline.value == pytest.approx(0.95)
    assert report.headline.spread == values["accuracy deviation"] == pytest.approx(0.05)
    assert values["accuracy range"] == pytest.approx(0.1)
    assert {"AUC A", "EER B", "TAR@FAR=1e-1 B"} <= values.keys()
    assert report.options["groups"] == ["A", "B"]
    lower = {metric.name for metric in report.metrics if metric.better == "low"}
    assert lower == {"accuracy deviation", "accuracy range", "EER A", "EER B"}
    assert all(metric.better == "high" for metric in report.metrics if metric.name not in lower)


def test_trials_and_mistakes_count_over_all_groups(protocol: RFW) -> None:
    report = evaluated(protocol)
    assert len(report.trials["score"]) == 40
    left, right, same = (report.trials[name] for name in ("left", "right", "same"))
    assert ((left == right) == same).all()
    assert not set(left[:20]) & set(left[20:])  # m.0 of A and m.0 of B are two people
    mistakes = [(mistake.kind, mistake.left, mistake.right) for mistake in report.mistakes]
    assert mistakes == [("false match", 30, 32), ("false match", 33, 35)]
    assert protocol.images.location(32).endswith("data/B/m.0x/m.0x_0001.jpg")


def test_names_of_images_do_not_say_where_they_lie(protocol: RFW) -> None:
    names = [protocol.images.name(row) for row in range(60)]
    assert names[:2] == ["A/m.0/m.0_0001.jpg", "A/m.0/m.0_0002.jpg"]
    assert len(set(names)) == 60


def test_roots_and_lists_by_group(protocol: RFW, tmp_path: Path) -> None:
    roots = {group: tmp_path / "data" / group for group in "AB"}
    lists = {group: tmp_path / "txts" / group / f"{group}_pairs.txt" for group in "AB"}
    assert RFW(roots, lists, ("A", "B")).images.fingerprint() == protocol.images.fingerprint()
    with pytest.raises(ConfigError, match="RFW root names A, B, but the groups are African, Asian, Caucasian, Indian"):
        RFW(roots, lists)
    with pytest.raises(ConfigError, match="at least one group"):
        RFW(roots, lists, ())
    with pytest.raises(DataError, match=r"txts/C/C_pairs\.txt: there is no such file"):
        RFW(tmp_path / "data", tmp_path / "txts", ("C",))


@pytest.mark.golden
def test_golden_groups(golden_root: Path, tmp_path: Path) -> None:
    """The whole protocol, on image files that are never read."""
    folder = golden_root / "protocols" / "lfw"
    expected = json.loads((folder / "expected.json").read_text())["metrics"]
    with np.load(folder / "embeddings_rfw.npz") as arrays:
        pools = {g: dict(zip(arrays[f"names_{g}"].tolist(), arrays[f"feat_{g}"], strict=True)) for g in GROUPS}
    for group, pool in pools.items():
        for name in pool:
            path = tmp_path / group / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
    protocol = RFW(tmp_path, folder / "rfw")
    values = [
        pools[g][Path(part.images.location(row)).relative_to(tmp_path / g).as_posix()]
        for g, part in zip(GROUPS, protocol.parts, strict=True)
        for row in range(len(part.images))
    ]
    report = protocol.evaluate(Embeddings(np.array(values, np.float32)))
    found = {metric.name: metric.value for metric in report.metrics}
    for group in GROUPS:
        entry = expected[f"correct/rfw_{group}/accuracy_mean"]
        assert found[f"accuracy {group}"] == pytest.approx(entry["value"], abs=entry["tolerance"] + 1e-12)
    (over_all,) = [entry for name, entry in expected.items() if name.endswith("/mean_and_std_over_races")]
    both = [found["accuracy"], found["accuracy deviation"]]
    assert both == pytest.approx(over_all["value"], abs=over_all["tolerance"] + 1e-12)
