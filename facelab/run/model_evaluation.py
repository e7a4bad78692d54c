"""Several trained models on protocols, each with the quality scores that it needs: what ``facelab test`` runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from facelab import distributed
from facelab.model.face_model import FaceModel, network_of
from facelab.model.scoring import Scoring
from facelab.progress import OnStage
from facelab.progress_bar import counted_bars
from facelab.quality.card import ScoreSource
from facelab.quality.table import QualityScores
from facelab.run.tracking import model_files
from facelab.test_protocol.base import Protocol, Report
from facelab.test_protocol.extraction.extraction_settings import OnCorrupt
from facelab.test_protocol.extraction.forward import Precision
from facelab.test_protocol.extraction.quality import open_scores
from facelab.test_protocol.report.run_report import write_run_report
from facelab.test_protocol.run import run_protocols
from facelab.test_protocol.statistics.confidence import with_intervals

Protocols = Sequence[tuple[str, Protocol]]


@dataclass(frozen=True)
class EvaluationOptions:
    """How images are embedded; `facelab.test_protocol.run.run_protocols` explains them."""

    precision: Precision = "fp32"
    batch_size: int = 64
    cache: Path | None = None
    resize: bool = False
    any_photo: bool = False
    on_corrupt: OnCorrupt = "error"


def evaluate_models(
    models: Sequence[FaceModel],
    protocols: Protocols,
    sources: Mapping[str, ScoreSource],
    options: EvaluationOptions,
    console: Console,
) -> dict[str, list[Report]]:
    """Reports of each model on each protocol, by the models' names.

    Every process of a distributed run must call this; all of them get the same reports.

    Args:
        models: What is tested.
        protocols: Name for tables and protocol.
        sources: Score table or scorer of a protocol's images by its name; models that were adapted with a scorer take
            that one by default.
        options: How images are embedded.
        console: Where progress is shown.

    Raises:
        FacelabError: As `run_protocols`; and if a model needs quality scores and there are none.
    """
    reports = {}
    for model in models:
        with counted_bars(console) as show:
            scores = quality_scores(model, protocols, sources, options, show)
            reports[model.name] = run_protocols(
                model.network,
                protocols,
                device=model.device,
                **vars(options),
                quality=scores,
                progress=partial(_show, show, model.name),
            )
    return reports


def write_evaluation(
    folder: Path,
    models: Sequence[FaceModel],
    reports: Mapping[str, list[Report]],
    console: Console,
    *,
    bootstrap: int,
    draws: int,
) -> dict[str, Path]:
    """Write the report of `evaluate_models`, and print its table; the main process does it.

    Args:
        folder: Where it goes.
        models: What was tested.
        reports: Of each model.
        console: Where the table is printed.
        bootstrap: Draws for confidence intervals by identity; 0 for none.
        draws: Of several models: draws of the tests that mark what is within noise; 0 for no tests.

    Returns:
        The files by what they are; none on other processes.

    Raises:
        DataError: If it cannot be written.
    """
    if not distributed.is_main():
        return {}
    if bootstrap:
        reports = {name: [with_intervals(one, draws=bootstrap) for one in of] for name, of in reports.items()}
    files = {model.name: model_files(model.source) for model in models}
    return write_run_report(folder, reports, console, files, draws=draws)


def quality_scores(
    model: FaceModel,
    protocols: Protocols,
    sources: Mapping[str, ScoreSource],
    options: EvaluationOptions,
    show: OnStage,
) -> dict[str, QualityScores]:
    """Quality scores of the protocols' images, by their names; none for those that need none.

    Raises:
        FacelabError: If an image cannot be scored, or the network needs scores and there are none.
    """
    scorer = model.card.get("scorer") or {}
    size = model.input_spec.aligned if options.resize else None
    scoring = Scoring(network_of(scorer.get("base"), model.device), model.device, show, size)
    tables = scoring.tables(sources, protocols, model.network, scorer.get("spec"))
    return open_scores(protocols, tables, model.network, complete=options.on_corrupt == "error")


def _show(show: OnStage, model: str, protocol: str, done: int, total: int) -> None:
    show(f"{model} on {protocol}", done, total)
