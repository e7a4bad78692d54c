"""IJB-S: a hand-made set of four subjects, templates without images, and every refusal by its text."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from facelab.data.alignment.ijbs_lists import crop_stem, medium_of_crop
from facelab.errors import ConfigError, DataError
from facelab.test_protocol.base import PROTOCOLS, Embeddings
from facelab.test_protocol.lists.ijbs_files import read_tasks
from facelab.test_protocol.protocols.ijbs import IJBS

AXES = {"1": 0, "2": 1, "3": 2, "4": 3}
SEEN = (("1", "a"), ("3", "a"), *((subject, "b") for subject in "1234"))
LISTS = {  # subjects 1 and 2 are in G1, 3 and 4 in G2; a is seen by 1 and 3, b by all, c in no probe list, u from above
    "metadata.csv": "SUBJECT_ID,FILENAME,X\n"
    + "".join(f"{s},videos/{v}.mp4,{n}\n" for s, v in SEEN for n in (0, 1))
    + "".join(f"{s},videos/c.mp4,0\n{s},img/{s}0.jpg,0\n{s},img/{s}1.jpg,0\n" for s in "1234")
    + "2,img/90.jpg,0\n4,videos/u.mp4,0\n",
    "surveillance_to_single-booking_probe.csv": "FILENAME\nvideos/a.mp4\nvideos/b.mp4\n",
    "surveillance_to_surveillance_probe.csv": "FILENAME\nvideos/b.mp4\n",
    "uav_to_single-booking_probe.csv": "FILENAME\nvideos/u.mp4\nimg/90.jpg\n",
} | {
    f"galleries/surveillance_to_{kind}_g{side}.csv": "ID,SUBJECT_ID,FILENAME\n"
    + "".join(f"{s},{s},{file.format(s)}\n" for s in subjects for file in files)
    for kind, files in (
        ("surveillance", ("videos/c.mp4", "videos/c.mp4")),
        ("single", ("img/{}0.jpg",)),
        ("booking", ("img/{}0.jpg", "img/{}1.jpg")),
    )
    for side, subjects in ((1, "12"), (2, "34"))
}  # fmt: skip
CROPS = (
    *(f"{s}/videos_{v}_{n}.jpg" for s, v in SEEN for n in (7, 12)),
    *(f"{s}/videos_c_3.jpg" for s in "1234"),
    *(f"{s}/img_{s}{n}.jpg" for s in "1234" for n in "01"),
    "2/img_90.jpg",
    "4/videos_u_5.png",
)  # fmt: skip

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(lists: dict[str, str | None] | None = None, without: tuple[str, ...] = (), prefix: str = "ijbs_") -> Path:
        """A root with the lists, some replaced or (None) left out, and all crops but those that match."""
        for name, text in (LISTS | (lists or {})).items():
            folder, _, stem = name.rpartition("/")
            path = tmp_path / "protocols" / folder / f"{prefix}{stem}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if text is not None:
                path.write_text(text)
        for name in CROPS:
            if not any(name.startswith(start) for start in without):
                path = tmp_path / "crops" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        return tmp_path

    return write


def ideal(protocol: IJBS, lift: float = 0.0) -> Embeddings:
    """An axis for each subject; ``lift`` tilts subject 3 to subject 1."""
    values = np.zeros((len(protocol.images), 4), np.float32)
    for row in range(len(values)):
        subject = protocol.images.name(row).split("/")[0]
        values[row, AXES[subject]] = 2.0
        values[row, 0] += lift if subject == "3" else 0.0
    return Embeddings(values)


def numbers(protocol: IJBS, embeddings: Embeddings) -> dict[str, float | None]:
    return {metric.name: metric.value for metric in protocol.evaluate(embeddings).metrics}


@pytest.mark.parametrize("prefix", ["ijbs_", "cs6_"])
def test_templates_of_the_five_protocols(write: Write, prefix: str) -> None:
    single, booking, surveillance, multiview, uav = read_tasks(write(prefix=prefix))
    assert [(t.subject, t.media) for t in single.probes] == [
        (s, (f"videos/{v}",)) for s, v in (("1", "a"), ("3", "a"), ("1", "b"), ("2", "b"), ("3", "b"), ("4", "b"))
    ]
    assert [len(t.probes) for t in (booking, surveillance, multiview, uav)] == [6, 4, 4, 2]
    assert {t.subject: t.media for t in multiview.probes} == {
        "1": ("videos/a", "videos/b", "videos/c"),
        "2": ("videos/b", "videos/c"),
        "3": ("videos/a", "videos/b", "videos/c"),
        "4": ("videos/b", "videos/c", "videos/u"),
    }
    assert {(t.subject, t.media) for t in uav.probes} == {("4", ("videos/u",)), ("2", ("img/90",))}
    assert [t.media for t in booking.galleries[0]] == [("img/10", "img/11"), ("img/20", "img/21")]
    assert [t.media for t in surveillance.galleries[1]] == [("videos/c",), ("videos/c",)]


def test_perfect_embeddings_find_everybody(write: Write) -> None:
    protocol = PROTOCOLS.build("IJBS", {"root": str(write())})
    assert isinstance(protocol, IJBS)
    assert len(protocol.images) == len(CROPS)
    report = protocol.evaluate(ideal(protocol))
    assert report.headline.name == "surveillance_to_single rank-1"
    assert {metric.value for metric in report.metrics if "rank-" in metric.name} == {1.0}
    assert {metric.value for metric in report.metrics if "FPIR" in metric.name} == {None}  # 10 strangers are needed
    assert report.trials["rank"].tolist() == [1] * 6
    assert report.curves["rank_rate"].tolist() == [1.0] * 4
    assert report.mistakes == ()
    assert report.options["protocols"]["uav_surveillance_to_booking"]["probes"] == 2


def test_who_looks_like_another_is_missed_and_shown(write: Write) -> None:
    protocol = IJBS(write())
    embeddings = ideal(protocol)
    for row in range(len(protocol.images)):
        if protocol.images.name(row).startswith("3/videos_a"):
            embeddings.values[row] = [3, 0, 1, 0]
    values = numbers(protocol, embeddings)
    assert values["surveillance_to_single rank-1"] == pytest.approx(5 / 6)
    assert values["surveillance_to_single rank-5"] == 1.0
    assert values["surveillance_to_surveillance rank-1"] == 1.0
    match, non_match = protocol.evaluate(embeddings).mistakes
    assert (match.kind, non_match.kind) == ("false match", "false non-match")
    names = [protocol.images.name(row) for row in (match.left, match.right, non_match.right)]
    assert names[0].startswith("3/videos_a")
    assert names[1:] == ["1/img_10.jpg", "3/img_30.jpg"]
    assert match.score == pytest.approx(3 / np.sqrt(10))
    assert non_match.score == pytest.approx(1 / np.sqrt(10))


def test_the_weighting_decides_between_a_long_and_two_short_frames(write: Write) -> None:
    """Frames of subject 1 in video a: one of length 3 that shows it, one of length 2 that looks like subject 2."""
    root = write()
    found = {}
    for weighting in ("norm2", "unit"):
        protocol = IJBS(root, weighting=weighting)  # type: ignore[arg-type]
        embeddings = ideal(protocol)
        for row in range(len(protocol.images)):
            if protocol.images.name(row) == "1/videos_a_7.jpg":
                embeddings.values[row] = [3, 0, 0, 0]
            if protocol.images.name(row) == "1/videos_a_12.jpg":
                embeddings.values[row] = [-0.2, 1.5, 0, 0]
        found[weighting] = numbers(protocol, embeddings)["surveillance_to_single rank-1"]
    assert found == {"norm2": 1.0, "unit": pytest.approx(5 / 6)}


@pytest.mark.parametrize("without", ["3/videos_a", "3/img_30"])
def test_a_template_without_images_is_never_found_but_counts(write: Write, without: str) -> None:
    protocol = IJBS(write(without=(without,)))
    report = protocol.evaluate(ideal(protocol))
    values = {metric.name: metric.value for metric in report.metrics}
    missed = 1 if "videos" in without else 2  # both probes of subject 3 lack their mate
    for rank in (1, 5, 10):
        assert values[f"surveillance_to_single rank-{rank}"] == pytest.approx((6 - missed) / 6)
    assert values["surveillance_to_booking rank-1"] == pytest.approx(5 / 6 if "videos" in without else 1.0)
    assert report.options["protocols"]["surveillance_to_single"]["templates without image"] == 1
    name = protocol.images.name
    shown = [(mistake.kind, name(mistake.left), name(mistake.right)) for mistake in report.mistakes]
    videos = () if "videos" in without else ("3/videos_a_7.jpg", "3/videos_b_7.jpg")  # what has no image is not shown
    assert shown == [("false match", video, "1/img_10.jpg") for video in videos]


def test_images_that_are_skipped_are_left_out(write: Write) -> None:
    protocol = IJBS(write())
    embeddings = ideal(protocol)
    bad = [row for row in range(len(protocol.images)) if protocol.images.name(row) == "1/videos_b_7.jpg"]
    embeddings.values[bad] = [0, 9, 0, 0]
    assert numbers(protocol, embeddings)["surveillance_to_single rank-1"] == pytest.approx(5 / 6)
    skipped = np.isin(np.arange(len(protocol.images)), bad)
    assert numbers(protocol, Embeddings(embeddings.values, skipped=skipped))["surveillance_to_single rank-1"] == 1.0


def test_crop_names() -> None:
    for medium, frame, stem in (
        ("videos/12", 7, "videos_12_7"),
        ("videos/a_1", 7, "videos_a_1_7"),
        ("img/9", 0, "img_9"),
    ):
        assert crop_stem(medium, frame) == stem
        assert medium_of_crop(stem) == medium
    assert medium_of_crop("videos_12") is None
    assert medium_of_crop("face_12") is None


BOOKING = "galleries/surveillance_to_booking_g1.csv"
UAV = "uav_to_single-booking_probe.csv"


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"metadata.csv": None}, "there is no ijbs_metadata.csv or cs6_metadata.csv"),
        ({UAV: None}, r"ijbs_uav_to_single-booking_probe.csv: there is no such file"),
        ({BOOKING: None}, r"galleries.ijbs_surveillance_to_booking_g1.csv: there is no such file"),
        ({UAV: ""}, "probe.csv: the list is empty"),
        ({UAV: "FILENAME\n"}, "probe.csv: the list is empty"),
        ({UAV: "videos/u.mp4\n"}, "probe.csv:1: the first line must be a header, but names 'videos/u.mp4'"),
        ({UAV: "FILENAME\nvideo/u.mp4\n"}, r"probe.csv:2: expected 'videos/<name>.mp4' or .* got 'video/u.mp4'"),
        ({UAV: "FILENAME\nvideos/u.mp4\n\nvideos/u.mp4\n"}, "probe.csv:4: 'videos/u.mp4' is listed a second time"),
        ({UAV: "FILENAME\nvideos/zz.mp4\n"}, "probe.csv:2: nobody is seen in 'videos/zz.mp4'"),
        ({"metadata.csv": "S,F\n1\n"}, "metadata.csv:2: expected at least 2 columns, got 1"),
        ({"metadata.csv": "S,F\n ,videos/a.mp4\n"}, "metadata.csv:2: ' ' is not a subject"),
        ({"metadata.csv": "S,F\n../x,videos/a.mp4\n"}, "metadata.csv:2: '../x' is not a subject"),
        ({BOOKING: "I,S,F\n1,3,img/30.jpg\n"}, "booking_g2.csv:2: subject 3 is in the other gallery too, ijbs_.*g1"),
        ({BOOKING: "I,S,F\n1,1,img/10.jpg\n1,1,img/10.jpg\n"}, "booking_g1.csv:3: 'img/10.jpg' of subject 1 is listed"),
        ({BOOKING: "I,S,F\n1,77,img/10.jpg\n"}, "booking_g1.csv: none of its subjects is searched for by surveill"),
        ({BOOKING: "I,S,F\n1,1,img/\x0010.jpg\n"}, "booking_g1.csv:2: expected"),
    ],
)  # fmt: skip
def test_malformed_lists(write: Write, lists: dict[str, str | None], message: str) -> None:
    with pytest.raises(DataError, match=message):
        IJBS(write(lists))


def test_lists_that_are_not_text(write: Write) -> None:
    root = write()
    (root / "protocols" / f"ijbs_{UAV}").write_bytes(b"FILENAME\nvideos/\xff\xfe.mp4\n")
    with pytest.raises(DataError, match="probe.csv: cannot be read as a CSV file"):
        IJBS(root)


def test_a_root_with_videos_is_answered_with_the_command(write: Write) -> None:
    root = write(without=("",))
    with pytest.raises(DataError, match=r"there are no face crops '<subject>/videos_"):
        IJBS(root, images=root / "protocols")
    (root / "videos").mkdir()
    (root / "videos" / "a.mp4").touch()
    with pytest.raises(DataError, match=r"cut them with: facelab data ijbs-crops "):
        IJBS(root)
    with pytest.raises(DataError, match="no such folder or archive"):
        IJBS(root, images=root / "nowhere")


def test_embeddings_that_do_not_fit(write: Write) -> None:
    protocol = IJBS(write())
    good = ideal(protocol).values
    broken = good.copy()
    broken[3, 1] = np.inf
    for values, message in (
        (good[:-1], f"{len(good)} images need as many embeddings"),
        (broken, r"the embedding of image 3 .* is not finite"),
        (good[:, :0], "the embeddings have no length"),
        (np.zeros_like(good), "surveillance_to_single: no template of gallery G1 has an image"),
    ):
        with pytest.raises(DataError, match=message):
            protocol.evaluate(Embeddings(values))


def test_mistyped_options(write: Write) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'norm2'"):
        IJBS(write(), weighting="norm_2")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Known: exact, reference"):
        IJBS(write(), thresholds="adaface")  # type: ignore[arg-type]
