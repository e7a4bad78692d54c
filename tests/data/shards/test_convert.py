"""`facelab data convert`: from every form into every form, with the same images, labels and order."""

import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from facelab.cli.main import app
from facelab.data.base import Source
from facelab.data.formats.conversion import Stored, stems
from facelab.data.sources.open_source import open_source
from facelab.data.sources.packed import Packed
from facelab.data.sources.recordio import RecordIO
from facelab.data.sources.webdataset import WebDataset
from facelab.errors import ConfigError, DataError

FORMS = ("webdataset", "packed", "recordio", "parquet")
COUNT = 7


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["data", *map(str, words)], catch_exceptions=False)


def convert(source: object, form: str, out: Path, *more: object) -> Source:
    result = run("convert", source, "--to", form, "--out", out, "--per-shard", 3, *more)
    assert result.exit_code == 0, result.output
    assert form in result.output
    return open_source(out)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, png: Any, picture: Any) -> Callable[[str], Path]:
    """A function that gives seven images of three people in a form; each is made once."""
    folder = tmp_path_factory.mktemp("forms")
    for n in range(COUNT):
        path = folder / "faces" / f"p{n // 3}" / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(picture(n)))

    def form(name: str) -> Path:
        if not (folder / name).exists():
            convert(folder / "faces", name, folder / name)
        return folder / name

    return form


def pair(first: str, second: str) -> Any:
    return pytest.param(first, second, marks=[pytest.mark.extras] if "parquet" in (first, second) else [])


@pytest.mark.parametrize(("first", "second"), [pair(*both) for both in product(("faces", *FORMS), FORMS)])
def test_images_labels_and_order_come_through(
    first: str, second: str, made: Callable[[str], Path], tmp_path: Path, picture: Any, png: Any
) -> None:
    if "parquet" in (first, second):
        pytest.importorskip("pyarrow")
    source = convert(made(first), second, tmp_path / "out", "--png")
    assert source.labels.tolist() == [n // 3 for n in range(COUNT)]
    for n in range(COUNT):
        assert np.array_equal(source.read(n), picture(n))
        if isinstance(source, Stored) and first != "packed":
            assert source.encoded(n) == png(picture(n))


def test_shards_keep_names_and_lie_beside_their_indices(made: Callable[[str], Path], tmp_path: Path) -> None:
    folder = made("webdataset")
    assert sorted(path.name for path in folder.iterdir()) == [
        f"shard-{n:05d}.tar{more}" for n in range(3) for more in ("", ".index")
    ]
    source = open_source(folder)
    assert [source.name(n) for n in (0, 6)] == ["shard-00000.tar/p0/0.png", "shard-00002.tar/p2/6.png"]
    again = convert(folder, "webdataset", tmp_path / "again")
    assert again.fingerprint() == source.fingerprint()
    first, second = ((of / "shard-00001.tar").read_bytes() for of in (folder, tmp_path / "again"))
    assert first == second
    packed = convert(folder, "packed", tmp_path / "packed")
    assert isinstance(packed, Packed)
    assert packed.name(6) == "shard-00002.tar/p2/6.png"


def test_the_index_of_a_shard_is_written_beside_it(made: Callable[[str], Path], tmp_path: Path) -> None:
    shard = Path(shutil.copy(made("webdataset") / "shard-00001.tar", tmp_path))
    assert f"{shard}.index" in run("index", shard).output.replace("\n", "")
    expected = (made("webdataset") / "shard-00001.tar.index").read_bytes()
    assert len((tmp_path / "shard-00001.tar.index").read_bytes()) == len(expected)
    with pytest.raises(DataError, match="exists already"):
        run("index", shard)


def test_names_with_dots_are_one_sample_each(tmp_path: Path, png: Any, picture: Any) -> None:
    (tmp_path / "faces" / "ann").mkdir(parents=True)
    for name in ("a.1.png", "a.2.png", "b.png"):
        (tmp_path / "faces" / "ann" / name).write_bytes(png(picture(1)))
    source = convert(tmp_path / "faces", "webdataset", tmp_path / "out")
    assert isinstance(source, WebDataset)
    assert [source.name(n).rpartition("/")[2] for n in range(3)] == ["a_1.png", "a_2.png", "b.png"]


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        ("p0/0.png", "p0/1.png", ["p0/0", "p0/1"]),
        ("p0\\0.png", "p0/./1.jpeg", ["p0/0", "p0/1"]),
        ("/disk/faces/p0/0.png", "../p0/1.png", ["p0/0", "p0/1"]),  # of what lies elsewhere the last two parts
        ("p0/0.png", "p0/..", None),
        ("p0/a.png", "P0/A.PNG", None),  # one file on some disks
    ],
)
def test_names_of_records_are_kept_if_all_can_be(
    first: str, second: str, kept: list[str] | None, made: Callable[[str], Path], tmp_path: Path
) -> None:
    shutil.copytree(made("recordio"), tmp_path / "records")
    path = tmp_path / "records" / "train.rec"
    labels = RecordIO(path).labels.tolist()
    names = [first, second, *(f"p{label}/{n}.png" for n, label in enumerate(labels[2:], 2))]
    path.with_suffix(".lst").write_text("".join(f"{n}\t{labels[n]}\t{name}\n" for n, name in enumerate(names)))
    numbered = [f"{label}/{n:08d}" for n, label in enumerate(labels)]
    stem = stems(RecordIO(path))
    assert [stem(n) for n in range(COUNT)][:2] == (numbered[:2] if kept is None else kept)
    path.with_suffix(".lst").write_text("".join(f"{n}\t0\t{name}\n" for n, name in enumerate(names)))
    stem = stems(RecordIO(path))
    assert [stem(n) for n in range(COUNT)] == numbered, "the list of other records"


def test_what_has_to_be_encoded_is_jpeg_unless_told(made: Callable[[str], Path], tmp_path: Path) -> None:
    source = convert(made("packed"), "webdataset", tmp_path / "out", "--quality", 50)
    assert isinstance(source, WebDataset)
    assert source.encoded(0).startswith(b"\xff\xd8")
    assert source.name(0) == "shard-00000.tar/p0/0.jpg"


def test_nothing_is_written_over_or_half_written(made: Callable[[str], Path], tmp_path: Path) -> None:
    for form in ("webdataset", "packed"):
        with pytest.raises(DataError, match="exists already"):
            run("convert", made("faces"), "--to", form, "--out", made("packed"))
    with pytest.raises(ConfigError, match="--to is 'webdatset'. Did you mean 'webdataset'"):
        run("convert", made("faces"), "--to", "webdatset", "--out", tmp_path / "out")
    broken = tmp_path / "faces"
    shutil.copytree(made("faces"), broken)
    (broken / "p1" / "4.png").write_bytes(b"")
    for form in ("webdataset", "recordio", "packed"):
        with pytest.raises(DataError, match=r"p1/4\.png"):
            run("convert", broken, "--to", form, "--out", tmp_path / form)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["faces"]


def test_inspect_takes_shards(made: Callable[[str], Path]) -> None:
    told = run("inspect", made("webdataset"), "--decode").output
    assert "WebDataset" in told
    assert "12x10 (7)" in told
