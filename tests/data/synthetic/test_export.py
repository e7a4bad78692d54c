"""Written formats read back: by our own readers where there are some, and file by file."""

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from facelab.cli.data.synthetic import synthetic_command
from facelab.data.base import SOURCES
from facelab.data.synthetic.export import (
    jpeg,
    number_in_class,
    write_bin,
    write_image_folder,
    write_lfw,
    write_tinyface,
)
from facelab.data.synthetic.formats import FORMATS, Export, write_format
from facelab.data.synthetic.source import SyntheticFaces
from facelab.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def faces(cache: Path) -> SyntheticFaces:
    return SyntheticFaces(8, 4, size=32, split="test", cache=cache)


def decoded(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]


def difference(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(int) - second.astype(int)).mean())


def test_jpeg_keeps_the_colours(faces: SyntheticFaces) -> None:
    image = np.full((16, 16, 3), (200, 100, 20), np.uint8)
    assert difference(decoded(jpeg(image)), image) < 2
    assert len(jpeg(faces.read(0), 20)) < len(jpeg(faces.read(0), 95))


def test_image_folder_and_list(faces: SyntheticFaces, tmp_path: Path) -> None:
    told: list[int] = []
    path = write_image_folder(tmp_path / "out", faces, lambda done, total: told.append(done))
    lines = [line.split(" ") for line in path.read_text().splitlines()]
    assert told == list(range(1, 33))
    assert [int(label) for _, label in lines] == faces.labels.tolist()
    assert lines[5][0] == "person_000001/0001.jpg"
    for row in (0, 5, 31):
        assert difference(decoded((path.parent / lines[row][0]).read_bytes()), faces.read(row)) < 8


def test_image_list_is_read_by_its_source(faces: SyntheticFaces, tmp_path: Path) -> None:
    path = write_image_folder(tmp_path / "out", faces)
    source = SOURCES.build("ImageList", {"root": str(path.parent), "list_file": str(path)})
    assert source.labels.tolist() == faces.labels.tolist()
    assert difference(source.read(7), faces.read(7)) < 8


def test_lfw_layout(faces: SyntheticFaces, tmp_path: Path) -> None:
    path = write_lfw(tmp_path / "lfw", faces, folds=2, pairs=24)
    header, *lines = [line.split("\t") for line in path.read_text().splitlines()]
    assert header == ["2", "6"]
    assert [len(line) for line in lines] == ([3] * 6 + [4] * 6) * 2
    assert len({tuple(line) for line in lines}) == 24
    name, first, other, second = lines[6]
    for person, number in ((name, first), (other, second)):
        image = path.parent / "images" / person / f"{person}_{int(number):04d}.jpg"
        row = int(person.removeprefix("Person_")) * 4 + int(number) - 1
        assert difference(decoded(image.read_bytes()), faces.read(row)) < 8


def test_lfw_is_read_by_its_protocol(faces: SyntheticFaces, tmp_path: Path) -> None:
    from facelab.test_protocol.protocols.lfw import LFW

    path = write_lfw(tmp_path / "lfw", faces, folds=2, pairs=24)
    protocol = LFW(path.parent / "images", path)
    assert len(protocol.images) <= 32
    assert protocol.images.read(0).shape == (32, 32, 3)


def test_bin_is_a_plain_pickle_of_bytes_and_bools(faces: SyntheticFaces, tmp_path: Path) -> None:
    path = write_bin(tmp_path / "faces.bin", faces, folds=2, pairs=24)
    with path.open("rb") as file:

        class Plain(pickle.Unpickler):
            def find_class(self, module: str, name: str) -> object:
                raise AssertionError(f"{module}.{name}")

        images, same = Plain(file).load()
    assert len(images) == 48
    assert same == ([True] * 6 + [False] * 6) * 2
    assert all(type(answer) is bool for answer in same)
    assert decoded(images[0]).shape == (32, 32, 3)


def test_tinyface_folders(faces: SyntheticFaces, tmp_path: Path) -> None:
    out = write_tinyface(tmp_path / "tinyface", faces, resolution=8, distractors=0.25)
    persons = {
        folder.name: {int(file.stem.split("_")[0]) for file in folder.glob("*.jpg")} for folder in sorted(out.iterdir())
    }
    assert set(persons) == {"Gallery_Distractor", "Gallery_Match", "Probe"}
    assert persons["Probe"] == persons["Gallery_Match"]
    assert len(persons["Probe"]) == 6
    assert not persons["Probe"] & persons["Gallery_Distractor"]
    assert len({file.name for file in out.rglob("*.jpg")}) == 32
    some = sorted((out / "Probe").glob("*.jpg"))[0]
    label, number = map(int, some.stem.split("_"))
    assert difference(decoded(some.read_bytes()), faces.read(label * 4 + number - 1)) > 3


def test_what_exists_is_never_written_over(faces: SyntheticFaces, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "faces.bin").write_text("")
    for write in (write_image_folder, lambda out, source: write_lfw(out, source, 2, 24), write_tinyface):
        with pytest.raises(DataError, match="exists already"):
            write(tmp_path / "out", faces)
    with pytest.raises(DataError, match="exists already"):
        write_bin(tmp_path / "faces.bin", faces, 2, 24)


def test_tinyface_refusals(faces: SyntheticFaces, tmp_path: Path, cache: Path) -> None:
    with pytest.raises(ConfigError, match=r"distractors is 1.0, but must lie in \[0, 1\)"):
        write_tinyface(tmp_path / "out", faces, distractors=1.0)
    with pytest.raises(ConfigError, match="resolution is 2"):
        write_tinyface(tmp_path / "out", faces, resolution=2)
    with pytest.raises(ConfigError, match="at least 2 images"):
        write_tinyface(tmp_path / "out", SyntheticFaces(3, 1, size=16, cache=cache))


def test_number_in_class_counts_in_any_order() -> None:
    assert number_in_class(np.array([2, 0, 2, 2, 0, 1])).tolist() == [0, 0, 1, 2, 1, 0]


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_can_be_ordered(form: str, tmp_path: Path, cache: Path) -> None:
    export = Export(tmp_path, 8, 4, 32, folds=2, pairs=24, cache=cache)
    told: list[int] = []
    assert write_format(form, export, lambda done, total: told.append(total)).exists()
    assert set(told) <= {32}


def test_records_are_read_by_their_source(tmp_path: Path, cache: Path) -> None:
    path = write_format("record", Export(tmp_path, 8, 4, 32, cache=cache))
    source = SOURCES.build("RecordIO", {"path": str(path)})
    assert source.labels.tolist() == np.repeat(np.arange(8), 4).tolist()
    assert difference(source.read(6), SyntheticFaces(8, 4, 32, cache=cache).read(6)) < 8


def test_an_unknown_format_is_answered(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"format is 'lwf'\. Did you mean 'lfw'\? Known: list, record, lfw"):
        write_format("lwf", Export(tmp_path))


@pytest.fixture
def app(cache: Path, monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    monkeypatch.setenv("FACELAB_CACHE", str(cache))
    application = typer.Typer()
    application.command()(synthetic_command)
    return application


SMALL = ["--identities", "8", "--per-identity", "4", "--size", "32", "--folds", "2", "--pairs", "24"]


def test_command_writes_all_formats(app: typer.Typer, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(tmp_path / "all"), *SMALL])
    assert result.exit_code == 0, result.output
    assert {item.name for item in (tmp_path / "all").iterdir()} == {
        "list",
        "lfw",
        "synthetic.bin",
        "tinyface",
        "IJBC",
        "ijbs",
        "record",
    }
    assert "pairs.txt" in result.output


def test_command_writes_some_formats(app: typer.Typer, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(tmp_path / "some"), "--format", "lfw,bin", *SMALL])
    assert result.exit_code == 0, result.output
    assert {item.name for item in (tmp_path / "some").iterdir()} == {"lfw", "synthetic.bin"}


def test_command_refuses_unknown_names(app: typer.Typer, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(tmp_path), "--format", "bni", *SMALL])
    assert isinstance(result.exception, ConfigError)
    assert "Did you mean 'bin'" in str(result.exception)
    result = CliRunner().invoke(app, [str(tmp_path), "--split", "tests", *SMALL])
    assert "Did you mean 'test'" in str(result.exception)
