"""``facelab calibrate``: thresholds and probabilities into a model's card."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from facelab.cli.commands import command
from facelab.cli.names import protocol
from facelab.cli.options import AnyPhotoOption, CheckpointOption, DeviceOption, PluginOption, ResizeOption, writable
from facelab.cli.protocols import open_protocols, quality_tables
from facelab.errors import ConfigError

if TYPE_CHECKING:
    from facelab.run.calibration import Calibrated
    from facelab.test_protocol.base import Protocol
    from facelab.weights.calibration import Calibration


@command("calibrate", place=45)
def calibrate_command(
    run: Annotated[str, typer.Argument(help="Folder of a run, a checkpoint or a model, or a file of a model.")],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PROTOCOL.OPTION=VALUE]...",
            help="A protocol that compares pairs of images, as for facelab test: LFW.root=lfw112.tar "
            "LFW.pairs=pairs.txt. Without one, that of the run's own configuration.",
            autocompletion=protocol,
        ),
    ] = None,
    choose: Annotated[
        str | None, typer.Option("--protocol", help="Which one, where a data root or the run has several.")
    ] = None,
    impostors: Annotated[
        Literal["all", "listed"],
        typer.Option(help="Different pairs: all that the images give where people are known, or the listed ones."),
    ] = "all",
    checkpoint: CheckpointOption = "last",
    batch_size: Annotated[int, typer.Option(help="Images in a forward pass.")] = 64,
    resize: ResizeOption = False,
    any_photo: AnyPhotoOption = False,
    quality: Annotated[
        str | None,
        typer.Option(metavar="TABLE|SCORER", help="Quality scores of the images, for models that take them."),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option("--plot", metavar="PNG", help="Draw cosines, thresholds and probabilities.", callback=writable()),
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps embeddings.")] = None,
    device: DeviceOption = "auto",
    plugins: PluginOption = None,
) -> None:
    """Measure thresholds for false match rates and probabilities, and write them into the model's card."""
    from facelab import distributed
    from facelab.inputs import check_any_photo
    from facelab.model.face_model import is_exported, load_model
    from facelab.run.calibration import calibrate
    from facelab.run.model_evaluation import EvaluationOptions
    from facelab.test_protocol.report.plots import plot
    from facelab.weights.calibration import KEY, rate_name
    from facelab.weights.model_folder import rewrite_card
    from facelab.weights.whole_file import require_writable

    check_any_photo(any_photo, resize)
    with distributed.joined():
        console = Console(soft_wrap=True, markup=False, highlight=False, quiet=not distributed.is_main())
        if is_exported(Path(run)):
            raise ConfigError(f"'{run}' is exported; calibrate its run and export that anew, thresholds go along.")
        model = load_model(run, checkpoint=checkpoint, device=device, calibrated=False)
        assert model.source is not None, "it was loaded"
        # Its card is written when all is measured.
        require_writable(model.source, "folder" if model.source.is_dir() else "file")
        name, one = _one_protocol(open_protocols(words or [], [run], [model], console), choose)
        sources = quality_tables([quality] if quality else [], [name], [] if words else [run])
        options = EvaluationOptions(batch_size=batch_size, cache=cache, resize=resize, any_photo=any_photo)
        found = calibrate(
            model, name, one, options=options, quality=sources.get(name), impostors=impostors, console=console
        )
        if distributed.is_main():
            rewrite_card(model.source, {**model.card, KEY: found.calibration.model_dump(mode="json")})
            _print(console, found)
            if picture is not None:
                console.print(f"Drawn: {plot(found.charts, picture)}")
            rates = [f" --fmr {rate_name(one.fmr)}" for one in found.calibration.thresholds[:1]]
            console.print(
                f"They are in the card of '{model.source}'; try: facelab verify A B --model {run}{''.join(rates)}"
            )


def _one_protocol(found: "list[tuple[str, Protocol]]", choose: str | None) -> "tuple[str, Protocol]":
    chosen = [(name, one) for name, one in found if choose in (None, name)]
    if len(chosen) == 1:
        return chosen[0]
    names = ", ".join(name for name, _ in found)
    if choose is None:
        raise ConfigError(f"a calibration comes from one protocol, but there are {names}; choose it by --protocol.")
    raise ConfigError(f"there is no protocol '{choose}'; there are: {names}.")


def _print(console: Console, found: "Calibrated") -> None:
    calibration = found.calibration
    console.print(_made_on(calibration))
    table = Table("FMR", "cosine from", "real FMR", "FNMR", box=None, pad_edge=False)
    for one in calibration.thresholds:
        real = f"{one.real_fmr:.2e} [{one.fmr_low:.2e}, {one.fmr_high:.2e}]"
        missed = f"{100 * one.fnmr:.2f} % [{100 * one.fnmr_low:.2f}, {100 * one.fnmr_high:.2f}]"
        table.add_row(f"{one.fmr:.0e}".replace("e-0", "e-"), f"{one.threshold:.4f}", real, missed)
    if calibration.thresholds:
        console.print(table)
    for refused in found.refused:
        console.print(f"No threshold for FMR {refused}.")
    how = f"cross-validated over {calibration.folds} folds" if calibration.folds else "on the pairs of the fit"
    console.print(
        f"Probabilities: Cllr {calibration.cllr:.4f} bits ({how}), minCllr {calibration.min_cllr:.4f}; "
        f"log-likelihood ratio {calibration.slope:.3f} * cosine {calibration.offset:+.3f}"
    )


def _made_on(calibration: "Calibration") -> str:
    people = "people unknown" if calibration.people is None else f"{calibration.people:,} people"
    which = "every pair of two people" if calibration.impostors == "all" else "as listed"
    return (
        f"{calibration.protocol}: {calibration.same:,} same pairs, {calibration.different:,} different pairs "
        f"({which}), {people}; intervals of 95 %"
    )
