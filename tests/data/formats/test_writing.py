"""Large files that are there whole or not at all."""

import errno
from pathlib import Path

import pytest

from facelab.data.formats.writing import written_files, written_folder
from facelab.errors import DataError


def write_onto_a_full_disk(target: Path) -> None:
    with written_folder(target) as folder, written_files(folder / "train.rec") as (part,):
        part.write_text("so far")
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_told_with_the_name_that_the_user_gave(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"/a\.b/train\.rec: the disk is full; nothing was written"):
        write_onto_a_full_disk(tmp_path / "a.b")
    assert not list(tmp_path.iterdir())
