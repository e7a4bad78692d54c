"""``facelab draw``: gallery and probes of some people in the embedding spaces of several models."""

import posixpath
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facelab.cli.commands import command
from facelab.cli.data import opened_source
from facelab.cli.options import AnyPhotoOption, CheckpointOption, DeviceOption, PluginOption, ResizeOption, writable
from facelab.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from facelab.data.base import Source
    from facelab.model.face_model import FaceModel
    from facelab.quality.card import ScoreSource
    from facelab.test_protocol.report.embedding_plot import Shown

    Rows = dict[str, NDArray[np.int64]]


@command("draw", place=90)
def draw_command(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Folders of runs or checkpoints.")],
    gallery: Annotated[str, typer.Option(metavar="DATA", help="Sharp images: a folder or archive of people, YAML …")],
    probe: Annotated[
        str, typer.Option(metavar="DATA", help="Others of the same people, e.g. '{Degraded: {source: …}}'.")
    ],
    people: Annotated[int, typer.Option(min=1, max=10, help="How many people to show.")] = 8,
    images: Annotated[int, typer.Option(min=1, help="Images of each person on either side, at most.")] = 6,
    resize: ResizeOption = False,
    any_photo: AnyPhotoOption = False,
    quality: Annotated[
        str | None,
        typer.Option(
            metavar="SCORER",
            help="Scorer for adapted models as '{Sharpness: {}}'; by default the one that they were adapted with.",
        ),
    ] = None,
    checkpoint: CheckpointOption = "last",
    device: DeviceOption = "auto",
    plugins: PluginOption = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The picture, a .png file.", callback=writable())] = Path(
        "embeddings.png"
    ),
) -> None:
    """Draw where models put gallery and probes, for example before and after adaptation."""
    from facelab.backbone.base import takes_quality
    from facelab.cli.evaluate import open_models
    from facelab.model.given_quality import parse_score_source
    from facelab.test_protocol.report.embedding_plot import plot_embeddings

    sides = [opened_source(data, None, None) for data in (gallery, probe)]
    rows = [_by_person(source) for source in sides]
    both = [person for person in rows[0] if person in rows[1]][:people]
    if not both:
        first = [next(iter(side)) for side in rows]
        raise DataError(f"gallery and probe have nobody in common; the first are '{first[0]}' and '{first[1]}'.")
    chosen = [{person: side[person][:images] for person in both} for side in rows]
    scorer = None if quality is None else parse_score_source(quality, "--quality")
    opened = open_models(models, checkpoint, None, None, device)
    if scorer is not None and not any(takes_quality(model.network) for model in opened):
        raise ConfigError("none of the models takes quality scores; leave --quality out.")
    shown = {model.name: _shown(model, sides, chosen, scorer, resize=resize, any_photo=any_photo) for model in opened}
    plot_embeddings(shown, out)
    for name, one in shown.items():
        typer.echo(f"{name}: {one.found():.1%} of {len(one.probe)} probes are nearest to their person.")
    typer.echo(f"The picture of {len(both)} people is in '{out}'.")


def _by_person(source: "Source") -> "Rows":
    """Rows of each person: the folder of an image's name, or its class where images have no names."""
    import numpy as np

    found: dict[str, list[int]] = {}
    for row in range(len(source)):
        name = source.name(row)
        # A name that is nothing but the image's place says nothing of the person.
        folder = "" if name == source.location(row) else posixpath.dirname(name)
        found.setdefault(folder or f"class {source.labels[row]}", []).append(row)
    return {person: np.array(of_person, np.int64) for person, of_person in found.items()}


def _shown(
    model: "FaceModel",
    sides: "list[Source]",
    chosen: "list[Rows]",
    scorer: "ScoreSource | None",
    *,
    resize: bool,
    any_photo: bool,
) -> "Shown":
    import numpy as np

    from facelab.backbone.base import takes_quality
    from facelab.test_protocol.report.embedding_plot import Shown

    scored = scorer if takes_quality(model.network) else None
    embeddings, numbers = [], []
    for source, rows in zip(sides, chosen, strict=True):
        pixels = [source.read(int(row)) for of_person in rows.values() for row in of_person]
        embeddings.append(model.embed(pixels, quality=scored, resize=resize, any_photo=any_photo))
        numbers.append(np.repeat(np.arange(len(rows)), [len(of_person) for of_person in rows.values()]))
    return Shown(embeddings[0], numbers[0], embeddings[1], numbers[1], tuple(chosen[0]))
