"""Detectors on photos with real faces in known places: found, how well aligned, what that costs a network, how fast.

LFW's aligned faces are pasted into scenes, turned, scaled, blurred and compressed, so that the right alignment of each
is known. For each size of the pasted square: the share that is found, how far the aligned crop lies from the right one
(mean over the template's five points, in pixels of the 112), the cosine of genuine pairs and d', and milliseconds a
photo. Besides, LFW's protocol on crops that a detector made anew.

    python benchmarks/detectors.py scenes --out detectors.json
    python benchmarks/detectors.py lfw --detector yunet --out detectors.json
    python benchmarks/detectors.py speed --out detectors.json
    python benchmarks/detectors.py table --out detectors.json

Each detector and size is one entry of the file; what is there is not measured again.
"""

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
import yaml
from comparison import machine
from numpy.typing import NDArray
from rich.console import Console

from facelab.catalogue import build
from facelab.data.alignment.align_files import AlignOptions
from facelab.data.alignment.alignment import align, similarity, template
from facelab.data.alignment.detected_folder import align_photos
from facelab.data.alignment.photo_aligner import FaceChoice, PhotoAligner
from facelab.data.alignment.photos import open_photos
from facelab.data.base import Pixels
from facelab.data.detection.base import DETECTORS, Detector
from facelab.data.formats.images import decode_image
from facelab.data.formats.open_files import open_files
from facelab.model.face_model import FaceModel, load_backbone
from facelab.progress_bar import track
from facelab.test_protocol.metrics.metrics import kfold_accuracy
from facelab.test_protocol.protocols.lfw import read_lfw
from facelab.weights.whole_file import write_whole

Array = NDArray[Any]
SIZES = (16, 24, 32, 48, 80, 160, 320, 480)
HEIGHT, WIDTH = 480, 640
TURN = 20.0  # degrees, either way
NEAR = 0.3  # of the pasted square's side, from the right place to a face that counts as found
RIGHT = "right places"
ARMS = {
    RIGHT: None,
    "yunet alone": "{yunet: {refine: false}}",
    "yunet": "yunet",
    "mtcnn": "mtcnn",
    "centerface": "centerface",
}
FORMS = {"found": "{:.1%}", "error": "{:.2f}", "genuine": "{:.3f}", "d'": "{:.2f}", "ms": "{:.0f}"}
SHARED = Path("../shared")
cli = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Scene:
    """A photo with one face.

    Attributes:
        photo: RGB, uint8, (H, W, 3).
        matrix: (2, 3), from the aligned face to the photo.
    """

    photo: Pixels
    matrix: Array

    def places(self) -> Array:
        """Where the template's five points lie in the photo, (5, 2)."""
        return template() @ self.matrix[:, :2].T + self.matrix[:, 2]


def wall(random: np.random.Generator, height: int, width: int) -> Array:
    """Something to stand before: coloured patches of many sizes, of which coarse ones count most."""
    photo = np.full((height, width, 3), 128.0, np.float32)
    for cells in (2, 4, 8, 16, 32, 64):
        grid = random.normal(0, 60 / cells**0.5, (cells * 3 // 4 + 1, cells, 3)).astype(np.float32)
        photo += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    return photo


def paste(photo: Array, face: Pixels, side: int, turn: float, centre: Array) -> tuple[Array, Array]:
    """A photo with a face as a soft-edged square of ``side`` pixels, turned by ``turn``, and the map from the face."""
    scale = side / face.shape[0]
    linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = np.concatenate([linear, (centre - linear @ np.full(2, (face.shape[0] - 1) / 2))[:, None]], axis=1)
    shrunk = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA) if scale < 1 else face
    factor = shrunk.shape[0] / face.shape[0]
    inner = matrix.copy()  # from the shrunk face, whose pixels are areas
    inner[:, :2] /= factor
    inner[:, 2] += inner[:, :2] @ np.full(2, 0.5 - 0.5 * factor)
    soft = np.zeros(shrunk.shape[:2], np.float32)
    border = max(1, round(0.04 * shrunk.shape[0]))
    soft[border:-border, border:-border] = 1.0
    soft = cv2.blur(soft, (2 * border + 1, 2 * border + 1))
    size = photo.shape[1::-1]
    mask = cv2.warpAffine(soft, inner, size, flags=cv2.INTER_LINEAR)[..., None]
    there = cv2.warpAffine(shrunk, inner, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return photo * (1 - mask) + there * mask, matrix


def taken(photo: Array, random: np.random.Generator) -> Pixels:
    """A photo as a camera keeps it: blurred, with noise and JPEG's losses."""
    seen = cv2.GaussianBlur(photo, (0, 0), random.uniform(0.3, 1.0)) + random.normal(0, 3, photo.shape)
    bgr = seen.clip(0, 255).astype(np.uint8)[..., ::-1]
    return decode_image(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes(), "scene")


def scene(face: Pixels, side: int, seed: int, height: int = HEIGHT, width: int = WIDTH) -> Scene:
    """A photo with an aligned face as a square of ``side`` pixels, somewhere and turned."""
    random = np.random.default_rng((seed, side))
    turn = np.deg2rad(random.uniform(-TURN, TURN))
    reach = min(side * (abs(np.cos(turn)) + abs(np.sin(turn))) / 2, min(height, width) / 2)
    centre = random.uniform((reach, reach), (max(width - reach, reach + 1), max(height - reach, reach + 1)))
    photo, matrix = paste(wall(random, height, width), face, side, turn, centre)
    return Scene(taken(photo, random), matrix)


def crop_error(points: Array, right: Scene) -> float:
    """How far from the template the face's right places lie in the crop that some landmarks give, in its pixels."""
    matrix = similarity(points, template())
    return float(np.linalg.norm(right.places() @ matrix[:, :2].T + matrix[:, 2] - template(), axis=1).mean())


def nearest(detector: Detector, one: Scene, side: int) -> Array | None:
    """Landmarks of the face that is found where it is; None if there is none."""
    points = detector.detect(one.photo).points
    away = np.linalg.norm(points.mean(axis=1) - one.places().mean(axis=0), axis=1)
    return points[away.argmin()] if len(away) and away.min() < NEAR * side else None


def separation(genuine: Array, impostor: Array) -> float:
    """d': distance of the means in units of the mean deviation."""
    return float((genuine.mean() - impostor.mean()) / np.sqrt((genuine.var() + impostor.var()) / 2))


def measure(detector: Detector | None, faces: Array, side: int, model: FaceModel) -> dict[str, float]:
    """All numbers of one detector at one size.

    Args:
        detector: None aligns by the right places.
        faces: Aligned faces, uint8, (P, 2, 112, 112, 3): two of each person.
        side: Of the pasted square, in pixels.
        model: Embeds the crops.
    """
    crops, found, errors, seconds = np.zeros_like(faces), np.zeros(faces.shape[:2], bool), [], []
    for row, column in np.ndindex(found.shape):
        one = scene(faces[row, column], side, 2 * row + column)
        start = time.perf_counter()
        points = one.places() if detector is None else nearest(detector, one, side)
        seconds.append(time.perf_counter() - start)
        if points is not None:
            found[row, column] = True
            errors.append(crop_error(points, one))
            crops[row, column] = align(one.photo, points)
    both = found.all(axis=1)
    embeddings = np.stack([model.embed(crops[both, column]) for column in (0, 1)])
    genuine = (embeddings[0] * embeddings[1]).sum(axis=1)
    impostor = (embeddings[0] * np.roll(embeddings[1], 1, axis=0)).sum(axis=1)
    several = both.sum() > 1
    return {
        "found": float(found.mean()),
        "error": float(np.median(errors)) if errors else float("nan"),
        "genuine": float(genuine.mean()) if several else float("nan"),
        "d'": separation(genuine, impostor) if several else float("nan"),
        "ms": 1000 * float(np.median(seconds)),
    }


def pairs_of_faces(shared: Path, people: int) -> Array:
    """Two aligned LFW faces of each of some people, (P, 2, 112, 112, 3)."""
    files = open_files(shared / "data" / "faces" / "lfw112.tar")
    several = [names for _, names in files.people() if len(names) > 1]
    chosen = [several[row] for row in np.linspace(0, len(several) - 1, people).astype(int)]
    return np.array([[decode_image(files.read(name), name) for name in names[:2]] for names in chosen])


def network(shared: Path) -> FaceModel:
    """EdgeFace-XXS."""
    return load_backbone("EdgeFace-XXS", shared / "data" / "weights" / "edgeface_xxs.safetensors", device="cpu")


def results(out: Path) -> dict[str, Any]:
    """What was measured before."""
    return json.loads(out.read_text()) if out.is_file() else {"machine": machine(), "opencv": cv2.__version__}


def keep(out: Path, part: str, name: str, value: Any) -> None:
    """Add one entry to the file."""
    found = results(out)
    found.setdefault(part, {})[name] = value
    write_whole(out, json.dumps(found, indent=1) + "\n")


Out = Annotated[Path, typer.Option(help="The file of results.")]
Shared = Annotated[Path, typer.Option(help="Folder with data/faces/lfw112.tar and data/weights.")]
Arms = Annotated[list[str] | None, typer.Option("--detector", help="Name or YAML; may be repeated.")]


def arms(given: list[str] | None) -> dict[str, str | None]:
    """Detectors to measure, by what tables call them."""
    return dict(ARMS) if not given else {name: ARMS.get(name, name) for name in given}


def built(spec: str | None) -> Detector | None:
    """A detector by name or YAML."""
    return None if spec is None else build(DETECTORS, yaml.safe_load(spec))


@cli.command()
def scenes(
    out: Out = Path("detectors.json"),
    shared: Shared = SHARED,
    detector: Arms = None,
    people: Annotated[int, typer.Option(help="Of each, two faces.")] = 100,
    size: Annotated[list[int] | None, typer.Option(help="Sides of the pasted squares; may be repeated.")] = None,
) -> None:
    """Faces of all sizes, pasted into scenes."""
    cv2.setNumThreads(1)
    faces, model = pairs_of_faces(shared, people), network(shared)
    for name, spec in arms(detector).items():
        found_by = built(spec)
        for side in size or SIZES:
            if f"{name} {side}" not in results(out).get("scenes", {}):
                keep(out, "scenes", f"{name} {side}", measure(found_by, faces, side, model))


@cli.command()
def lfw(
    out: Out = Path("detectors.json"),
    shared: Shared = SHARED,
    detector: Arms = None,
    pairs: Annotated[int, typer.Option(help="Every so many-th pair, 1 for all.")] = 1,
) -> None:
    """LFW's accuracy on crops that detectors make anew of faces in a plain wall, against the given crops."""
    cv2.setNumThreads(1)
    files, model = open_files(shared / "data" / "faces" / "lfw112.tar"), network(shared)
    listed = read_lfw(shared / "data" / "faces" / "lfw_pairs.txt")
    listed = listed.keep(np.arange(len(listed)) % pairs == 0)
    given = np.array([decode_image(files.read(str(files.find(name))), name) for name in listed.images])
    for name, spec in {"given crops": None, **arms(detector)}.items():
        if name in (RIGHT, *results(out).get("lfw", {})):
            continue
        crops, centred = given, 0
        if spec is not None:
            aligner = PhotoAligner(build(DETECTORS, yaml.safe_load(spec)), FaceChoice(on_missing="centre_crop"))
            made = [aligner.align(in_a_wall(face), name) for face in track(given, len(given), name, Console())]
            crops = np.array([photo.crops[0] for photo in made])
            centred = sum(not len(photo.faces.scores) for photo in made)
        embeddings = model.embed(crops)
        left, right = embeddings[listed.pairs].swapaxes(0, 1)
        folds = kfold_accuracy((left * right).sum(axis=1), listed.same, listed.fold).accuracy
        shown = {"accuracy": 100 * float(folds.mean()), "deviation": 100 * float(folds.std(ddof=1)), "centred": centred}
        keep(out, "lfw", name, shown)


def in_a_wall(face: Pixels) -> Pixels:
    """A photo of LFW's 250x250 pixels with an aligned face in it, pixel for pixel."""
    photo = np.full((250, 250, 3), face.mean(axis=(0, 1)), np.uint8)
    photo[60:172, 69:181] = face
    return photo


@cli.command()
def speed(
    out: Out = Path("detectors.json"),
    shared: Shared = SHARED,
    detector: Arms = None,
    photos: Annotated[int, typer.Option(help="JPEG files of 960x1280.")] = 96,
    repeats: Annotated[int, typer.Option(help="Of which the median counts.")] = 3,
    workers: Annotated[list[int] | None, typer.Option(help="Threads; may be repeated.")] = None,
) -> None:
    """Photos a second of `facelab data align`, files to files, by the number of workers."""
    faces = pairs_of_faces(shared, 8)
    for name, spec in arms(detector).items():
        found_by = built(spec)
        if found_by is None or name in results(out).get("speed", {}):
            continue
        aligner = PhotoAligner(found_by, FaceChoice(on_missing="centre_crop"))
        with tempfile.TemporaryDirectory() as text:
            folder = Path(text)
            (folder / "photos").mkdir()
            for row in range(photos):
                one = scene(faces[row % 8, 0], (160, 240, 320)[row % 3], row, 960, 1280).photo
                cv2.imwrite(str(folder / "photos" / f"{row}.jpg"), one[..., ::-1])
            keep(out, "speed", name, {each: rates(folder, aligner, each, repeats) for each in workers or (1, 2)})


def rates(folder: Path, aligner: PhotoAligner, workers: int, repeats: int) -> float:
    """Photos a second, the median of some runs."""
    cv2.setNumThreads(1)
    source, found = open_photos(folder / "photos"), []
    for number in range(repeats):
        options = AlignOptions(workers=workers)
        start = time.perf_counter()
        align_photos(
            source,
            aligner,
            aligner.record("", {}, "png"),
            folder / f"{workers}-{number}",
            options,
            lambda work, _: work,
        )
        found.append(len(source.names) / (time.perf_counter() - start))
    return float(np.median(found))


@cli.command()
def table(out: Out = Path("detectors.json")) -> None:
    """All results as Markdown."""
    found = results(out)
    for line in tables(found):
        print(line)


def tables(found: dict[str, Any]) -> Iterator[str]:
    """The lines of one table a measure, a row a detector and a column a size; then LFW and speed."""
    scenes = {tuple(key.rsplit(" ", 1)): value for key, value in found.get("scenes", {}).items()}
    names, sides = list(dict.fromkeys(key[0] for key in scenes)), sorted({int(key[1]) for key in scenes})
    for measure, form in (
        ("found", "{:.1%}"),
        ("error", "{:.2f}"),
        ("genuine", "{:.3f}"),
        ("d'", "{:.2f}"),
        ("ms", "{:.0f}"),
    ):
        yield f"| {measure} | {' | '.join(f'{side} px' for side in sides)} |"
        yield "|---" * (len(sides) + 1) + "|"
        for name in names:
            cells = [scenes.get((name, str(side)), {}).get(measure) for side in sides]
            yield f"| {name} | {' | '.join('' if cell is None else form.format(cell) for cell in cells)} |"
        yield ""
    for name, one in found.get("lfw", {}).items():
        yield f"| {name} | {one['accuracy']:.2f} ± {one['deviation']:.2f} | {one['centred']} |"
    yield ""
    for name, one in found.get("speed", {}).items():
        yield f"| {name} | {' | '.join(f'{rate:.1f} with {workers}' for workers, rate in one.items())} |"


if __name__ == "__main__":
    cli()
