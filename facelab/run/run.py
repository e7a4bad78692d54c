"""One training run from settings to report: assemble, resume, train, evaluate, write what a user wants to look at."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from facelab import distributed
from facelab.adapter.base import AdaptedBackbone
from facelab.backbone.base import Backbone
from facelab.config import Tree, differences, merge
from facelab.engine.cuda_graph import StepGraph
from facelab.engine.kernels import kernels
from facelab.engine.loop import Callback, Progress, StopSignal, train
from facelab.engine.optimization import Optimization
from facelab.errors import CheckpointError, ConfigError, first_line
from facelab.outside.yaml import read_yaml
from facelab.plugins import import_plugins
from facelab.progress_bar import counted_bars
from facelab.quality.table import QualityScores
from facelab.run.assembly import RunParts, assemble, restore, scoring_of, supplied_size, take_snapshot
from facelab.run.callbacks import Checkpointing, Evaluation, NamedCallbacks, check_callbacks
from facelab.run.precision import describe_arithmetic
from facelab.run.run_folder import claimed
from facelab.run.settings import FREE_TO_CHANGE, RunConfig, make_config
from facelab.run.tracking import CONFIG, METRICS, ConsoleProgress, MetricsLog, last_logged, model_files, write_settings
from facelab.run.training_set import check_training_set
from facelab.test_protocol.base import Protocol, Report
from facelab.test_protocol.extraction.quality import open_scores
from facelab.test_protocol.lists.data_root import chosen_protocols
from facelab.test_protocol.protocols.reduced import open_protocol
from facelab.test_protocol.run import run_protocols
from facelab.training_mode.base import TrainingMode
from facelab.weights.checkpoint import CheckpointStore
from facelab.weights.snapshot import TRAINING, Snapshot
from facelab.weights.tensor_files import read_tree

UNUSABLE = LookupError, TypeError, ValueError, AttributeError, RuntimeError
"""What a state that is none trips over."""


@dataclass(frozen=True)
class RunResult:
    """What a run came to.

    Attributes:
        folder: Where everything lies.
        progress: Where training stands; complete unless a signal stopped it.
        reports: The latest evaluation.
    """

    folder: Path
    progress: Progress
    reports: tuple[Report, ...]


def run_training(
    config: RunConfig,
    folder: Path | None,
    console: Console,
    *,
    resume: bool = False,
    checkpoint: str = "last",
    allow_changes: bool = False,
) -> RunResult:
    """Train, or go on with training.

    Args:
        config: The settings.
        folder: The run's folder; None makes a new one: ``output/name``, else ``output/name-2`` …
        console: Where the main process reports.
        resume: Go on from a checkpoint in ``folder``, or start if there is none.
        checkpoint: Which one: ``last``, ``best`` or ``step-<update>``. Later ones are deleted as new ones are written.
        allow_changes: Resume although settings differ from those of the checkpoint.

    Raises:
        FacelabError: For everything that is the user's to mend.
    """
    with StopSignal.cleaning_up(), claimed(folder, config.output / config.name, console.print) as place:
        return _run(config, place, console, resume, checkpoint, allow_changes)


def _run(
    config: RunConfig, folder: Path, console: Console, resume: bool, checkpoint: str, allow_changes: bool
) -> RunResult:
    store = CheckpointStore(folder / "checkpoints")
    nothing = store.index().last is None and checkpoint == "last"
    found = None if nothing else store.find(checkpoint)
    if found and not resume:
        raise ConfigError(f"'{folder}' already holds a run; go on with it by --resume, or choose another folder.")
    if resume and not found:
        _require_unbegun(folder, config)
        console.print(f"'{folder}' has no checkpoint: it begins at update 0")
    if found:
        config = with_precision_of(folder, config)
        check_changes(folder, config, allow_changes)
        store.require_unharmed(found)
    import_plugins(config.plugins)
    check_callbacks(config.callbacks)
    asked = config.training.precision
    with counted_bars(console) as show:
        parts = assemble(config, show, resumed=found is not None)
        config = parts.config
        protocols = open_protocols(config, console)
        network, complete = parts.mode.inference_network(), config.evaluation.on_corrupt == "error"
        scoring = scoring_of(config, parts.device, show)
        tables = scoring.tables(config.evaluation.quality, protocols, network, config.data.quality)
    scores = open_scores(protocols, tables, network, complete=complete)
    log = MetricsLog(folder, tensorboard=config.tensorboard) if distributed.is_main() else None
    write = _leave_to_the_main_process if log is None else log.write
    added = NamedCallbacks(config.callbacks, folder=folder, mode=parts.mode, console=console, log=write)
    if log is not None:
        log.followers = tuple(added.by_name.values())
    if found:
        check_training_set(parts.training_set, found, allow_changes=allow_changes, say=console.print)
        _go_on_from(found, parts, added)
        if distributed.is_main():
            console.print(f"resumed '{folder}' at update {parts.progress.update} of {parts.progress.total}")
    if distributed.is_main():
        write_settings(folder, config.tree())
        console.print(describe_arithmetic(config, parts.device, asked), highlight=False)
        _show_adapters(parts, console)
    distributed.barrier()
    evaluation = _train(parts, protocols, scores, store, console, log, added)
    _report_corrupt(parts, folder, console)
    return RunResult(folder, parts.progress, tuple(evaluation.reports))


def _go_on_from(checkpoint: Path, parts: RunParts, added: NamedCallbacks) -> None:
    """`restore` the run and its callbacks; a state that nothing can go on from is told in a sentence.

    Its hashes are right, so it was written so: by hand, or by somebody else.
    """
    try:
        restore(parts, checkpoint)
        added.restore(checkpoint)
    except UNUSABLE as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise CheckpointError(
            f"no run can go on from the state in the checkpoint '{checkpoint}' ({reason})."
        ) from error


def _require_unbegun(folder: Path, config: RunConfig) -> None:
    """Refuse to begin a run anew that had come so far that a checkpoint must have been lost.

    Raises:
        ConfigError: If its log goes on behind the first checkpoint.
    """
    update, epoch = last_logged(folder)
    every = config.checkpoint
    if epoch > every.every_epochs or (every.every_updates is not None and update > every.every_updates):
        raise ConfigError(
            f"'{folder}' has no checkpoint, although {METRICS} shows that it came to update {update}; bring "
            f"'{folder / 'checkpoints'}' back, or delete {METRICS} to begin again at update 0."
        )


def _leave_to_the_main_process(update: int, values: Mapping[str, float]) -> None:
    """One process writes the log."""


def _show_adapters(parts: RunParts, console: Console) -> None:
    """How much is trained, where something stays frozen."""
    for module in parts.mode.trained_modules():
        if isinstance(module, AdaptedBackbone):
            console.print(module.count().describe(), highlight=False)


def _train(
    parts: RunParts,
    protocols: list[tuple[str, Protocol]],
    scores: dict[str, QualityScores],
    store: CheckpointStore,
    console: Console,
    log: MetricsLog | None,
    added: NamedCallbacks,
) -> Evaluation:
    config = parts.config

    def test() -> list[Report]:
        with parts.mode.inference().inference_view() as network:
            return test_network(network, protocols, scores, config, parts.device)

    evaluation = Evaluation(config.evaluation, test, log)

    def take(at: Progress) -> Snapshot:
        return added.added_to(take_snapshot(parts, at))

    checkpointing = Checkpointing(config.checkpoint, store, take, parts.optim.check)
    shown: list[Callback] = [log, ConsoleProgress(console)] if log is not None else []
    step = step_graph(parts.mode, parts.optim) if config.training.cuda_graph else None
    fast: AbstractContextManager[None] = nullcontext()
    if parts.device.type == "cuda":
        fast = kernels(tf32=config.training.tf32, cudnn_benchmark=config.training.cudnn_benchmark)
    with fast, StopSignal().installed() as stop:
        train(
            parts.mode,
            parts.feed,
            parts.optim,
            [*shown, evaluation, *added.by_name.values(), checkpointing],  # what they remember is kept too
            progress=parts.progress,
            log_every=config.training.log_every,
            stop=stop,
            step=step,
        )
    if parts.progress.complete and protocols and not evaluation.reports:
        evaluation.reports = test()  # resumed after the last update
    return evaluation


def step_graph(mode: TrainingMode, optim: Optimization) -> StepGraph:
    """Steps of a mode by a CUDA graph."""
    return StepGraph(mode, optim, {"mode": mode, **mode.networks(), **mode.row_owners()})


def test_network(
    network: Backbone,
    protocols: list[tuple[str, Protocol]],
    scores: dict[str, QualityScores],
    config: RunConfig,
    device: torch.device,
) -> list[Report]:
    """Reports of a network on protocols, by the settings of a run.

    Args:
        network: On ``device``.
        protocols: Protocols by the names that tables show.
        scores: Quality scores of a protocol's images by its name.
        config: The settings.
        device: Where it runs.
    """
    return run_protocols(
        network,
        protocols,
        device=device,
        precision=config.evaluation.precision,
        batch_size=config.evaluation.batch_size,
        channels_last=config.training.channels_last,
        resize=config.data.resize,
        any_photo=config.data.any_photo,
        on_corrupt=config.evaluation.on_corrupt,
        quality=scores,
    )


def open_protocols(config: RunConfig, console: Console) -> list[tuple[str, Protocol]]:
    """The protocols of the settings, built before training so that a missing file is found at once."""
    specs, found = chosen_protocols(config.evaluation.data_root, config.evaluation.protocols)
    if found:
        console.print(found, highlight=False)
    return [(name, open_protocol(spec, **supplied_size(config))) for name, spec in specs.items()]


def check_changes(folder: Path, config: RunConfig, allow: bool) -> None:
    """Compare the settings with those that a run was started with.

    What the run's version did not know yet has the value that it has by default.

    Raises:
        ConfigError: If something that matters differs and ``allow`` is false; the message lists what.
    """
    old, new = saved_settings(folder), config.tree()
    new = make_config(
        new, "the settings"
    ).tree()  # as the old ones: a plugin may have been imported since they were read
    with suppress(ConfigError):  # else a value is no longer allowed, and stands among the differences as it is
        old = make_config(old, str(folder / CONFIG)).tree()
    changed = [line for line in differences(old, new) if not line.startswith(FREE_TO_CHANGE)]
    if changed and not allow:
        raise ConfigError(
            f"'{folder}' was started with other settings: {'; '.join(changed)}. "
            "Take them back, or pass --allow-changes to go on with the new ones."
        )


def with_precision_of(folder: Path, config: RunConfig) -> RunConfig:
    """The settings, with ``auto`` as that which the run chose when it began, perhaps on another machine."""
    if config.training.precision != "auto":
        return config
    chosen = saved_settings(folder).get("training", {}).get("precision", "auto")
    return make_config(merge(config.tree(), {"training": {"precision": chosen}}), "the settings")


def trained_files(folder: Path) -> dict[str, Path]:
    """What reports link to of a run: its last checkpoint and its log."""
    last = CheckpointStore(folder / "checkpoints").index().last
    return model_files(folder / "checkpoints" / last if last else None)


def saved_settings(folder: Path) -> Tree:
    """The settings of a run as its folder has them; where their file is lost or damaged, those of its last checkpoint.

    Raises:
        CheckpointError: If the folder is not a run.
        ConfigError: If the file is damaged, and there is no checkpoint.
    """
    path, store = folder / CONFIG, CheckpointStore(folder / "checkpoints")
    try:
        if tree := read_yaml(path):
            return tree
        reason = f"'{path}' is empty."
    except ConfigError as error:
        reason = str(error)
    if store.index().last is not None:
        stored: Tree = read_tree(store.find("last") / TRAINING, lazily=True)["config"]
        return stored
    if path.exists():
        raise ConfigError(reason)
    raise CheckpointError(f"'{folder}' is not a run: it has no {CONFIG}.")


def _report_corrupt(parts: RunParts, folder: Path, console: Console) -> None:
    corrupt = parts.feed.loader.corrupt
    if corrupt.count:
        path = folder / f"corrupt-{distributed.rank():05d}.jsonl"
        corrupt.write(path)
        console.print(f"{corrupt.count} images could not be read and were replaced; see '{path}'.", style="yellow")
