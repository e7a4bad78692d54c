"""``facelab embed`` and ``facelab verify``: a model on a user's own photos."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facelab.cli.commands import command
from facelab.cli.options import AnyPhotoOption, CheckpointOption, PluginOption, ResizeOption
from facelab.errors import in_range

if TYPE_CHECKING:
    from facelab.quality.card import ScoreSource

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
    images: Annotated[list[Path], typer.Argument(help="Aligned face images.")],
    out: Annotated[Path, typer.Option(help="Where to write the embeddings, an .npz file.")] = Path("embeddings.npz"),
    flip: Annotated[bool, typer.Option(help="Add the embedding of the mirrored image.")] = False,
    resize: ResizeOption = False,
    any_photo: AnyPhotoOption = False,
    quality: QualityOption = None,
    checkpoint: CheckpointOption = "last",
    plugins: PluginOption = None,
) -> None:
    """Write the embeddings of face images, scaled to norm 1."""
    import numpy as np

    import facelab
    from facelab.weights.whole_file import write_whole

    embeddings = facelab.load(model, checkpoint=checkpoint).embed(
        [str(path) for path in images], flip=flip, resize=resize, any_photo=any_photo, quality=_parsed(quality)
    )
    packed = io.BytesIO()
    np.savez(packed, paths=np.array([str(path) for path in images]), embeddings=embeddings)
    write_whole(out, packed.getvalue())
    typer.echo(f"{len(images)} embeddings of length {embeddings.shape[1]} are in '{out}'.")


@command("verify", place=50)
def verify_command(
    first: Annotated[Path, typer.Argument(help="Aligned face image.")],
    second: Annotated[Path, typer.Argument(help="Aligned face image.")],
    model: Annotated[str, typer.Option("--model", "-m", help="Folder of a run or of a checkpoint.")],
    threshold: Annotated[
        float | None, typer.Option(help="Similarity from which on two faces are the same person.")
    ] = None,
    flip: Annotated[bool, typer.Option(help="Use the mirrored images too.")] = False,
    resize: ResizeOption = False,
    any_photo: AnyPhotoOption = False,
    quality: QualityOption = None,
    checkpoint: CheckpointOption = "last",
    plugins: PluginOption = None,
) -> None:
    """Say how similar two faces are."""
    import facelab

    if threshold is not None:
        in_range("--threshold", threshold, -1.0, 1.0)
    similarity = facelab.load(model, checkpoint=checkpoint).similarity(
        first, second, flip=flip, resize=resize, any_photo=any_photo, quality=_parsed(quality)
    )
    verdict = (
        ""
        if threshold is None
        else f"  {'same' if similarity >= threshold else 'different'} person at threshold {threshold:g}"
    )
    typer.echo(f"cosine similarity {similarity:.4f}{verdict}")


def _parsed(quality: str | None) -> "ScoreSource | None":
    from facelab.model.given_quality import parse_score_source

    return None if quality is None else parse_score_source(quality, "--quality")
