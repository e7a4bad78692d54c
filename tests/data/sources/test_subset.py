"""Images of records that a list names."""

from pathlib import Path

import numpy as np
import pytest

from facelab.data.formats.conversion import encoder
from facelab.data.formats.record_writer import RecordLayout, write_recordio
from facelab.data.sources.image_folder import ImageFolder
from facelab.data.sources.open_source import open_source
from facelab.data.sources.packed import write_packed
from facelab.data.sources.recordio import RecordIO
from facelab.data.sources.subset import Subset
from facelab.errors import DataError


@pytest.fixture
def records(faces: Path, tmp_path: Path) -> RecordIO:
    source = ImageFolder(faces)
    write_recordio(tmp_path / "train.rec", source, encoder(source, 95), RecordLayout(True, False))
    return RecordIO(tmp_path / "train.rec")


def keep(path: Path, source: RecordIO, rows: list[int]) -> Path:
    path.write_text("".join(f"{source.name(row)} {source.labels[row]}\n" for row in rows))
    return path


def test_records_of_a_list(records: RecordIO, tmp_path: Path) -> None:
    listed = keep(tmp_path / "keep.txt", records, [0, 3, 5])
    some = open_source(f"{{Subset: {{source: {{RecordIO: {{path: {tmp_path / 'train.rec'}}}}}, images: {listed}}}}}")
    assert (len(some), some.num_classes, some.labels.tolist()) == (3, 2, [0, 1, 1])
    assert some.name(1) == records.name(3)
    assert some.location(1) == records.location(3)
    np.testing.assert_array_equal(some.read(2), records.read(5))
    write_packed(tmp_path / "packed", some)


def test_another_choice_is_another_set(records: RecordIO, tmp_path: Path) -> None:
    one = Subset(records, keep(tmp_path / "one.txt", records, [0, 1]))
    other = Subset(records, keep(tmp_path / "other.txt", records, [0, 2]))
    for of in (Subset.fingerprint, Subset.revision, Subset.people_hash):
        assert of(one) != of(other)
        assert of(one) == of(Subset(records, tmp_path / "one.txt"))


def test_a_list_of_other_records_is_refused(records: RecordIO, tmp_path: Path) -> None:
    (tmp_path / "keep.txt").write_text("record 99 0\n")
    with pytest.raises(DataError, match="keep.txt line 1: 'record 99' is not in the source RecordIO"):
        Subset(records, tmp_path / "keep.txt")
