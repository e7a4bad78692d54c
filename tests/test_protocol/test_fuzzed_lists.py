"""Every reader of lists on text that nobody would write: it reads it, or refuses it in one sentence."""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facelab.data.alignment.ijbs_lists import read_list_rows
from facelab.data.alignment.landmarks import read_landmarks
from facelab.data.formats.alignment_record import read_alignment
from facelab.data.formats.open_files import open_files
from facelab.data.formats.people import read_ids
from facelab.data.sources.image_list import open_list
from facelab.data.sources.selection import people_of_test_list, plain_name, read_entries, rows_of_people
from facelab.errors import FacelabError
from facelab.iqa.table import Table
from facelab.quality.table import ScoreTable
from facelab.test_protocol.lists.facexzoo_conf import facexzoo_sets
from facelab.test_protocol.lists.ijb_files import read_identification, read_template_images, read_template_pairs
from facelab.test_protocol.lists.ijbs_files import read_tasks
from facelab.test_protocol.lists.integer_lines import read_integer_lines
from facelab.test_protocol.lists.megaface_lists import read_feature_list, read_noises
from facelab.test_protocol.lists.pair_list import read_pair_list
from facelab.test_protocol.lists.template_list import read_template_list
from facelab.test_protocol.protocols.calfw import read_calfw
from facelab.test_protocol.protocols.cfp import read_cfp
from facelab.test_protocol.protocols.cplfw import read_cplfw
from facelab.test_protocol.protocols.lfw import read_lfw
from facelab.test_protocol.protocols.listed_pairs import people_in
from facelab.test_protocol.protocols.rfw import read_rfw

SCORES = (
    '# {"format":"facelab scores 1","scorer":{"name":"S","version":"1","low":0.0,"high":1.0,"higher_is_better":true},'
    '"image_set":"f","images":2}\nname,score\na/1.jpg,0.5\nb/2.jpg,\n'
)
POINTS = "38.3 51.7 73.5 51.5 56.0 71.7 41.5 92.4 70.7 92.2"
METADATA = "SUBJECT_ID,FILENAME,FRAME_NUM\n1,videos/1.mp4,1\n1,img/1.jpg,\n2,videos/1.mp4,1\n2,img/2.jpg,\n"


@dataclass(frozen=True)
class Reader:
    """A reader and a file that it reads.

    Attributes:
        read: Reads the file.
        file: Its name below the folder.
        text: What it holds when it is right.
        others: Files that lie beside it, and stay right.
    """

    read: Callable[[Path], object]
    file: str
    text: str
    others: dict[str, str] = field(default_factory=dict)


def ijb(folder: Path) -> object:
    images = read_template_images(folder, "ijbc")
    return read_template_pairs(folder, "ijbc", images), read_identification(folder, "ijbc", images)


IJB = {
    "ijbc_face_tid_mid.txt": "1.jpg 1 10\n2.jpg 2 11\n",
    "ijbc_name_5pts_score.txt": f"1.jpg {POINTS} 0.9\n2.jpg {POINTS} 0.8\n",
    "ijbc_template_pair_label.txt": "1 2 0\n1 1 1\n",
    "ijbc_1N_gallery_G1.csv": "TEMPLATE_ID,SUBJECT_ID\n1,7\n",
    "ijbc_1N_gallery_G2.csv": "TEMPLATE_ID,SUBJECT_ID\n1,7\n",
    "ijbc_1N_probe_mixed.csv": "TEMPLATE_ID,SUBJECT_ID\n2,7\n",
}
CFP = {
    "Pair_list_F.txt": "1 ../Data/Images/001/frontal/01.jpg\n2 ../Data/Images/002/frontal/01.jpg\n",
    "Split/FF/01/same.txt": "1,1\n",
    "Split/FF/01/diff.txt": "1,2\n",
}


READERS = {
    "pairs": Reader(
        lambda folder: read_pair_list(folder / "l.txt"), "l.txt", 'a/1.jpg,"b, c/2.jpg",1\na/1.jpg,d.jpg,0\n'
    ),
    "LFW": Reader(lambda folder: read_lfw(folder / "l.txt"), "l.txt", "1\t1\nAnn\t1\t2\nAnn\t1\tBob\t2\n"),
    "RFW": Reader(lambda folder: read_rfw(folder / "l.txt"), "l.txt", "m.0\t1\t2\n" * 10),
    "CPLFW": Reader(lambda folder: read_cplfw(folder / "l.txt"), "l.txt", "a_1.jpg 1\nb_1.jpg 1\n" * 10),
    "CALFW": Reader(lambda folder: read_calfw(folder / "l.txt"), "l.txt", "a_0001.jpg 0\nb_0001.jpg 0\n" * 10),
    "templates": Reader(
        lambda folder: read_template_list(folder / "l.txt"), "l.txt", "path person\na.jpg Ann\nb.jpg Bob\n"
    ),
    "training list": Reader(lambda folder: open_list(folder / "l.txt").digest(), "l.txt", "a/1.jpg 0\nb c/2.jpg 1\n"),
    "lst": Reader(lambda folder: open_list(folder / "l.lst").digest(), "l.lst", "0\t0\ta/1.jpg\n1\t1\tb/2.jpg\n"),
    "landmarks": Reader(
        lambda folder: read_landmarks(folder / "l.txt"), "l.txt", f"a/1.jpg {POINTS}\nb.jpg {POINTS} 0.9\n"
    ),
    "landmarks in JSON": Reader(
        lambda folder: read_landmarks(folder / "l.json"), "l.json", f'{{"a.jpg": [{POINTS.replace(" ", ", ")}]}}'
    ),
    "ids": Reader(lambda folder: read_ids(folder / "l.txt"), "l.txt", "Ann\nBob/\n"),
    "test people": Reader(
        lambda folder: people_of_test_list(folder / "l.txt"), "l.txt", "Ann\t1\t2\na/1.jpg b/2.jpg 1\n"
    ),
    "chosen people": Reader(
        lambda folder: rows_of_people(read_entries(folder / "l.txt"), folder / "ids.txt"),
        "l.txt",
        "Ann/1.jpg 0\nBob/2.jpg 1\n",
        {"ids.txt": "Ann\n"},
    ),
    "excluded": Reader(lambda folder: people_in(folder / "l.txt"), "l.txt", "Ann\nBob/1.jpg 1\n"),
    "integers": Reader(lambda folder: read_integer_lines(folder / "l.txt", 3, "a b c"), "l.txt", "1 2 0\n3\t4\t1\n"),
    "MegaFace": Reader(lambda folder: read_feature_list(folder / "l.json"), "l.json", '{"path": ["a"], "id": ["b"]}'),
    "noises": Reader(lambda folder: read_noises(folder / "l.txt"), "l.txt", "# noisy\na\tb.jpg\n"),
    "scores": Reader(lambda folder: list(ScoreTable(folder / "l.csv").names()), "l.csv", SCORES),
    "plain scores": Reader(
        lambda folder: Table(folder / "l.csv", higher_is_better=True).names(), "l.csv", "a,0.5\nb,\n"
    ),
    "FaceX-Zoo": Reader(
        lambda folder: facexzoo_sets(folder / "data_conf.yaml"), "data_conf.yaml", "LFW:\n  pairs_file_path: a\n"
    ),
    "alignment": Reader(
        lambda folder: read_alignment(open_files(folder)),
        "alignment.json",
        '{"form": "scaled", "size": 112}',
    ),
    "IJB-S rows": Reader(lambda folder: list(read_list_rows(folder / "l.csv", 1)), "l.csv", METADATA),
    "IJB-S": Reader(read_tasks, "ijbs_metadata.csv", METADATA),
    **{f"IJB {file}": Reader(ijb, file, text, IJB) for file, text in IJB.items()},
    **{f"CFP {file}": Reader(lambda folder: read_cfp(folder, "FF"), file, text, CFP) for file, text in CFP.items()},
}
WORDS = (
    b"\n \t , ; \r\n \" ' \\ / ../ .. # = @ [ ] { } : null NaN inf -1 1e999 0x1 1_0 0 1 2 10 a/1.jpg Ann true label "
    b"\xef\xbb\xbf \xff\xfe \x00 \xe9 \xe2\x80\xa8 \xd9\xa1 \xc2\xb2"
)
TOKENS = [*WORDS.split(b" "), b" ", b"9" * 30, b"9" * 5000, b"a" * 9000, b'"' * 3, b"[" * 2000]
PIECES = st.lists(st.sampled_from(TOKENS) | st.binary(max_size=4), max_size=8).map(b"".join)


@pytest.mark.parametrize("name", READERS)
def test_only_one_sentence_leaves_a_reader(name: str, tmp_path: Path) -> None:
    """The right file with a stretch of it replaced, or something else altogether."""
    reader = READERS[name]
    for file, text in {**reader.others, reader.file: reader.text}.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    right = reader.text.encode()

    @settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(place=st.integers(0, len(right)), length=st.integers(0, 12), piece=PIECES, alone=st.booleans())
    def read(place: int, length: int, piece: bytes, alone: bool) -> None:
        content = piece if alone else right[:place] + piece + right[place + length :]
        (tmp_path / reader.file).write_bytes(content)
        with suppress(FacelabError):
            reader.read(tmp_path)

    read()


@pytest.mark.parametrize("name", READERS)
def test_numbers_beyond_any_type_are_a_sentence(name: str, tmp_path: Path) -> None:
    """Each number of the right file in turn; Python itself refuses to read 5,000 digits, NumPy those beyond 64 bits."""
    reader = READERS[name]
    for file, text in reader.others.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    (tmp_path / reader.file).parent.mkdir(parents=True, exist_ok=True)
    for found in re.finditer(r"\d+", reader.text):
        for number in ("9" * 19, "9" * 5000, "1e300", "-1"):
            (tmp_path / reader.file).write_text(reader.text[: found.start()] + number + reader.text[found.end() :])
            with suppress(FacelabError):
                reader.read(tmp_path)


@given(name=st.text(max_size=12))
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
def test_a_plain_name_of_a_plain_name_is_itself(name: str) -> None:
    assert plain_name(plain_name(name)) == plain_name(name)
