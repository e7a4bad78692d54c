"""Layouts of test sets as they are found, what is missing of them, and options laid over what was found."""

from pathlib import Path

import pytest

from facelab.errors import ConfigError, DataError
from facelab.test_protocol.lists.data_root import DataRoot, chosen_protocols, find_protocols


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def test_petalface(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *(f"HQ_val/{stem}.bin" for stem in ("agedb_30", "calfw", "cfp_ff", "cfp_fp", "lfw")),
        "ijb/IJBC/meta/ijbc_face_tid_mid.txt",
        "IJBS/protocols/ijbs_metadata.csv",
        "tinyface_aligned_112/Probe/1_1.jpg",
    )
    found = find_protocols(tmp_path)
    assert list(found.specs) == ["LFW", "CFP-FP", "AgeDB-30", "CALFW", "CFP-FF", "IJB-C", "IJB-S", "TinyFace"]
    assert found.specs["CFP-FP"] == {"BinPack": {"path": f"{tmp_path}/HQ_val/cfp_fp.bin"}}
    assert found.specs["IJB-C"] == {"IJBC": {"root": f"{tmp_path}/ijb/IJBC"}}
    assert found.specs["IJB-S"] == {"IJBS": {"root": f"{tmp_path}/IJBS"}}
    assert found.specs["TinyFace"] == {"TinyFace": {"root": f"{tmp_path}/tinyface_aligned_112"}}
    assert found.missing == ("CPLFW (HQ_val/cplfw.bin)", "IJB-B (ijb/IJBB)")
    assert found.describe().endswith("TinyFace; not found: CPLFW (HQ_val/cplfw.bin), IJB-B (ijb/IJBB)")


def test_insightface(tmp_path: Path) -> None:
    touch(tmp_path, "lfw.bin", "agedb_30.bin", "my_faces.bin", "train.rec")
    found = find_protocols(tmp_path)
    assert list(found.specs) == ["LFW", "AgeDB-30", "my_faces"]
    assert found.specs["my_faces"] == {"BinPack": {"path": f"{tmp_path}/my_faces.bin"}}
    assert found.missing == ("CFP-FP (cfp_fp.bin)",)


def test_ours(tmp_path: Path) -> None:
    touch(tmp_path, "lfw/pairs.txt", "synthetic.bin", "tinyface/Probe/1_1.jpg", "list/list.txt")
    found = find_protocols(tmp_path)
    assert found.specs == {
        "LFW": {"LFW": {"root": f"{tmp_path}/lfw/images", "pairs": f"{tmp_path}/lfw/pairs.txt"}},
        "TinyFace": {"TinyFace": {"root": f"{tmp_path}/tinyface"}},
        "synthetic": {"BinPack": {"path": f"{tmp_path}/synthetic.bin"}},
    }
    assert found.missing == ("IJB-C (IJBC)", "IJB-S (ijbs)")


def test_two_sets_of_one_name_are_told_apart(tmp_path: Path) -> None:
    touch(tmp_path, "lfw/pairs.txt", "lfw.bin", "HQ_val/lfw.bin")
    assert list(find_protocols(tmp_path).specs) == ["LFW", "LFW (pairs.txt)", "LFW (lfw.bin)"]


CONF = """
LFW: {pairs_file_path: lfw/pairs.txt, cropped_face_folder: lfw/crops, image_list_file_path: /nowhere/list.txt}
CPLFW: {pairs_file_path: /nowhere/pairs_CPLFW.txt, cropped_face_folder: lfw/crops}
AgeDB30: {pairs_file_path: lfw/pairs.txt, cropped_face_folder: lfw/crops}
RFW_African: {pairs_file_path: rfw/a.txt, cropped_face_folder: rfw/a}
RFW_Indian: {pairs_file_path: rfw/i.txt, cropped_face_folder: rfw/i}
MegaFace:
  facescrub_list: mega/facescrub.json
  megaceface_list: mega/megaface.json
  facescrub_noises_file: mega/noises.txt
  megaface_noises_file: mega/noises.txt
  cropped_face_folder: mega
  megaface-mask: 1
  masked_cropped_face_folder: mega/masked
IJBC:
  cropped_face_folder: ijbc/crops
  template_media_list_path: ijbc/meta/media.txt
  template_pair_list_path: ijbc/meta/pairs.txt
  image_score_list_path: ijbc/meta/scores.txt
"""


def test_facexzoo(tmp_path: Path) -> None:
    touch(tmp_path, "lfw/pairs.txt", "lfw/crops/x.jpg", "rfw/a.txt", "rfw/a/x.jpg", "rfw/i.txt", "rfw/i/x.jpg")
    touch(tmp_path, *(f"mega/{name}" for name in ("facescrub.json", "megaface.json", "noises.txt", "masked/x.jpg")))
    touch(
        tmp_path, *(f"ijbc/{name}" for name in ("crops/1.jpg", "meta/media.txt", "meta/pairs.txt", "meta/scores.txt"))
    )
    (tmp_path / "data_conf.yaml").write_text(CONF)
    found = find_protocols(tmp_path)
    lfw = {"root": f"{tmp_path}/lfw/crops", "pairs": f"{tmp_path}/lfw/pairs.txt"}
    assert found.specs["LFW"] == {"LFW": lfw}
    assert found.specs["AgeDB-30"] == {"AgeDB30": lfw}
    assert found.specs["RFW"]["RFW"]["root"] == {"African": f"{tmp_path}/rfw/a", "Indian": f"{tmp_path}/rfw/i"}
    assert found.specs["RFW"]["RFW"]["groups"] == ["African", "Indian"]
    assert found.specs["MegaFace"]["MegaFace"] == {
        "root": f"{tmp_path}/mega",
        "facescrub_list": f"{tmp_path}/mega/facescrub.json",
        "megaface_list": f"{tmp_path}/mega/megaface.json",
        "facescrub_noises": f"{tmp_path}/mega/noises.txt",
        "megaface_noises": f"{tmp_path}/mega/noises.txt",
        "masked": f"{tmp_path}/mega/masked",
    }
    ijbc = {"root": f"{tmp_path}/ijbc", "images": f"{tmp_path}/ijbc/crops", "aligned": True}
    assert found.specs["IJB-C"] == {"IJBC": ijbc}
    assert "CPLFW (/nowhere/pairs_CPLFW.txt)" in found.missing
    assert {"CALFW (CALFW in data_conf.yaml)", "RFW Asian (RFW_Asian in data_conf.yaml)"} <= set(found.missing)
    (tmp_path / "data_conf.yaml").write_text("LFW: {pairs_file_path: lfw/pairs.txt}")
    with pytest.raises(ConfigError, match=r"data_conf\.yaml': 'LFW' has no 'cropped_face_folder'"):
        find_protocols(tmp_path)
    (tmp_path / "data_conf.yaml").write_text("LFW: lfw/pairs.txt")
    with pytest.raises(ConfigError, match="'LFW' must hold paths, got 'lfw/pairs.txt'"):
        find_protocols(tmp_path)


def test_facexzoos_megaface(tmp_path: Path) -> None:
    names = ("faces.json", "strangers.json", "face_noises.txt", "stranger_noises.txt", "crops/x.jpg", "masked/x.jpg")
    touch(tmp_path, *names)
    conf = (
        "MegaFace: {facescrub_list: faces.json, megaceface_list: strangers.json, cropped_face_folder: crops, "
        "facescrub_noises_file: face_noises.txt, megaface_noises_file: stranger_noises.txt, megaface-mask: 1, "
        "masked_cropped_face_folder: masked, image_list_file: /nowhere}\n"
    )
    (tmp_path / "data_conf.yaml").write_text(conf)
    options = find_protocols(tmp_path).specs["MegaFace"]["MegaFace"]
    assert options == {
        "root": f"{tmp_path}/crops",
        "facescrub_list": f"{tmp_path}/faces.json",
        "megaface_list": f"{tmp_path}/strangers.json",
        "facescrub_noises": f"{tmp_path}/face_noises.txt",
        "megaface_noises": f"{tmp_path}/stranger_noises.txt",
        "masked": f"{tmp_path}/masked",
    }
    (tmp_path / "data_conf.yaml").write_text(conf.replace("megaface-mask: 1", "megaface-mask: 0"))
    assert "masked" not in find_protocols(tmp_path).specs["MegaFace"]["MegaFace"]


def test_videos_of_ijbs_are_answered_with_the_command_that_cuts_them(tmp_path: Path) -> None:
    touch(tmp_path, "IJBS/videos/1.mp4", "IJBS/protocols/ijbs_metadata.csv")
    with pytest.raises(DataError, match="IJB-S .holds videos; cut the faces with: facelab data ijbs-crops .*IJBS"):
        find_protocols(tmp_path)
    touch(tmp_path, "HQ_val/lfw.bin")
    found = find_protocols(tmp_path)
    assert list(found.specs) == ["LFW"]
    assert any("ijbs-crops" in reason for reason in found.missing)
    touch(tmp_path, "IJBS/subject/videos_1_20.jpg")
    assert "IJB-S" in find_protocols(tmp_path).specs


def test_nothing_and_nowhere(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"knows no test set in it\. Layouts: HQ_val/\*\.bin"):
        find_protocols(tmp_path)
    with pytest.raises(DataError, match="there is no such folder of test sets"):
        find_protocols(tmp_path / "nowhere")


@pytest.fixture
def found() -> DataRoot:
    specs = {
        "LFW": {"BinPack": {"path": "lfw.bin"}},
        "CALFW": {"BinPack": {"path": "calfw.bin"}},
        "TinyFace": {"TinyFace": {"root": "t"}},
    }
    return DataRoot(Path("root"), specs, ())


def test_words_of_the_command_line_are_laid_over_what_was_found(found: DataRoot) -> None:
    words = {"LFW": {"flip": False}, "TinyFace": None, "PairList": {"root": "a", "pairs": "b"}}
    assert found.choose(found.named(words)) == {
        "LFW": {"BinPack": {"path": "lfw.bin", "flip": False}},
        "PairList": {"PairList": {"root": "a", "pairs": "b"}},
        "CALFW": {"BinPack": {"path": "calfw.bin"}},
    }
    of_both = found.choose(found.named({"BinPack": {"folds": 5}}))
    assert [of_both[name]["BinPack"]["folds"] for name in ("LFW", "CALFW")] == [5, 5]  # type: ignore[index, call-overload]
    with pytest.raises(ConfigError, match="TinyFac was not found in root. Did you mean 'TinyFace'"):
        found.named({"TinyFac": None})


def test_protocols_of_a_configuration_come_first(found: DataRoot) -> None:
    pairs = {"SyntheticPairs": {"identities": 20}}
    chosen = found.choose({"mine": pairs, "TinyFace": {"TinyFace": {"flip": False}}, "CALFW": None})
    assert list(chosen) == ["mine", "TinyFace", "LFW"]
    assert chosen["TinyFace"] == {"TinyFace": {"root": "t", "flip": False}}
    assert chosen_protocols(None, {"mine": pairs, "other": None}) == ({"mine": pairs}, "")
