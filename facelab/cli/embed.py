"""``facelab embed`` and ``facelab verify``: a model on a user's own photos."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facelab.cli.commands import command
from facelab.cli.detect import DetectOption, DetectorOption, DetectorOptions, asked_detector, built_detector
from facelab.cli.options import AnyPhotoOption, BackendOption, CheckpointOption, PluginOption, ResizeOption, writable
from facelab.errors import ConfigError, in_range, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from facelab.model.face_model import FaceModel
    from facelab.quality.card import ScoreSource
    from facelab.weights.calibration import Calibration

USUAL_FMR = 1e-3

QualityOption = Annotated[
    str | None,
    typer.Option(
        metavar="TABLE|SCORER",
        help="Quality scores for adapted models: a table of `facelab iqa score`, or a scorer as '{Sharpness: {}}'; by "
        "default the scorer that the adapters were trained with.",
    ),
]


@command("embed", place=40)
def embed_command(
    model: Annotated[str, typer.Argument(help="Folder of a run or of a checkpoint.")],
    images: Annotated[list[Path], typer.Argument(help="Aligned face images, or photos.")],
    out: Annotated[Path, typer.Option(help="Where to write the embeddings, an .npz file.", callback=writable())] = Path(
        "embeddings.npz"
    ),
    flip: Annotated[bool, typer.Option(help="Add the embedding of the mirrored image.")] = False,
    detect: DetectOption = None,
    detector: DetectorOption = "yunet",
    option: DetectorOptions = None,
    resize: ResizeOption = False,
    any_photo: AnyPhotoOption = False,
    quality: QualityOption = None,
    checkpoint: CheckpointOption = "last",
    plugins: PluginOption = None,
    backend: BackendOption = "torch",
) -> None:
    """Write the embeddings of face images, scaled to norm 1."""
    import numpy as np

    import facelab
    from facelab.weights.whole_file import write_whole

    found: list[str] = []
    embeddings = facelab.load(model, checkpoint=checkpoint, backend=backend).embed(
        [str(path) for path in images],
        flip=flip,
        resize=resize,
        any_photo=any_photo,
        quality=_parsed(quality),
        detect=asked_detector(detect, resize, detector, option),
        on_face=found.append,
    )
    _tell(found)
    packed = io.BytesIO()
    np.savez(packed, paths=np.array([str(path) for path in images]), embeddings=embeddings)
    write_whole(out, packed.getvalue())
    what = "1 embedding" if len(images) == 1 else f"{len(images):,} embeddings"
    where = f"{'is' if len(images) == 1 else 'are'} in '{out}'"
    typer.echo(f"{what} of length {embeddings.shape[1]} {where}.")


@command("verify", place=50)
def verify_command(
    first: Annotated[Path, typer.Argument(help="Aligned face image, or a photo.")],
    second: Annotated[Path, typer.Argument(help="Aligned face image, or a photo.")],
    model: Annotated[str, typer.Option("--model", "-m", help="Folder of a run or of a checkpoint.")],
    threshold: Annotated[
        float | None, typer.Option(help="Similarity from which on two faces are the same person.")
    ] = None,
    fmr: Annotated[
        float | None,
        typer.Option(
            help="Instead: false match rate, such as 1e-3, whose threshold facelab calibrate has measured; by default "
            "1e-3 where there is one."
        ),
    ] = None,
    flip: Annotated[bool, typer.Option(help="Use the mirrored images too.")] = False,
    detect: DetectOption = None,
    detector: DetectorOption = "yunet",
    option: DetectorOptions = None,
    resize: ResizeOption = False,
    any_photo: AnyPhotoOption = False,
    quality: QualityOption = None,
    checkpoint: CheckpointOption = "last",
    plugins: PluginOption = None,
    backend: BackendOption = "torch",
) -> None:
    """Say how similar two faces are."""
    import facelab

    if threshold is not None:
        in_range("--threshold", threshold, -1.0, 1.0)
        if fmr is not None:
            raise ConfigError("--threshold and --fmr both say when two faces are the same person; give one of them.")
    loaded = facelab.load(model, checkpoint=checkpoint, backend=backend)
    how = {"flip": flip, "resize": resize, "any_photo": any_photo}
    if fmr is not None:
        loaded.calibrated().check_use(**how)
        loaded.calibrated().at(fmr)
    found: list[str] = []
    finding = {"detect": asked_detector(detect, resize, detector, option), "on_face": found.append}
    similarity = loaded.similarity(first, second, quality=_parsed(quality), **how, **finding)
    _tell(found)
    cosine = f"cosine similarity {similarity:.4f}"
    if threshold is not None:
        typer.echo(f"{cosine}  {_verdict(similarity, threshold)} at threshold {threshold:g}")
        return
    typer.echo(cosine)
    try:
        calibration = loaded.calibrated()
        calibration.check_use(**how)
    except ConfigError as reason:  # nothing was asked that needs it
        typer.echo(f"No verdict: {reason}", err=True)
        return
    for line in _judged(loaded, calibration, similarity, fmr):
        typer.echo(line)
    if found:
        _tell(_other_alignment(calibration, loaded.input_spec.width, detector, option))


def _other_alignment(calibration: "Calibration", size: int, detector: str, option: list[str] | None) -> "Iterator[str]":
    """A line where faces that were found in photos are no such faces as those that were calibrated on."""
    from facelab.data.alignment.photo_aligner import PhotoAligner

    built = built_detector(detector, option, None)
    here = PhotoAligner(built.detector, size=size).record(built.name, built.options, "png")
    if not here.is_like(calibration.alignment):
        yield (
            f"Note: the faces here were found by {detector}, but those that the verdict rests on "
            f"({calibration.protocol}) were aligned otherwise ({calibration.alignment}), so its rates may be others: "
            "align the photos of a test by facelab data align in the same way, and calibrate on them."
        )


def _judged(model: "FaceModel", calibration: "Calibration", similarity: float, fmr: float | None) -> "Iterator[str]":
    """What a calibrated model says of a cosine: a verdict and a probability."""
    from facelab.weights.calibration import rate_name

    usual = next((one for one in calibration.thresholds if one.fmr == USUAL_FMR), None)
    chosen = usual if fmr is None else calibration.at(fmr)
    if chosen is not None:
        yield (
            f"{_verdict(similarity, chosen.threshold)} at FMR {rate_name(chosen.fmr)}: threshold "
            f"{chosen.threshold:.4f}, measured on {calibration.protocol} (FMR {chosen.fmr_low:.1e} to "
            f"{chosen.fmr_high:.1e}, FNMR {100 * chosen.fnmr:.2f} %)"
        )
    probability = float(model.probability(similarity))
    yield f"probability {probability:.4f} of the same person, if half of all pairs that are compared are"


def _tell(found: "Iterable[str]") -> None:
    """Say which faces were found, and what follows: nobody should think that a whole photo was compared."""
    for line in sorted(set(found)):  # threads found them, in any order
        typer.echo(printable(line), err=True)


def _verdict(similarity: float, threshold: float) -> str:
    return f"{'same' if similarity >= threshold else 'different'} person"


def _parsed(quality: str | None) -> "ScoreSource | None":
    from facelab.model.given_quality import parse_score_source

    return None if quality is None else parse_score_source(quality, "--quality")
