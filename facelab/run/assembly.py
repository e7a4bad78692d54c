"""Builds the parts of a run from its settings, and takes and restores its whole state."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facelab import distributed
from facelab.backbone.base import check_quality
from facelab.catalogue import build
from facelab.compiler import require_compiler
from facelab.data.base import SAMPLERS, SOURCES, Source
from facelab.data.loading.loader import Loader
from facelab.data.sources.resized import Resized
from facelab.data.transforms.augment import Augment
from facelab.engine.cuda_graph import refuse_cuda_graph
from facelab.engine.loop import Progress, restore_rng, rng_state
from facelab.engine.optimization import Optimization, parameter_groups
from facelab.engine.optimizers import OptimizerConfig, is_rowwise
from facelab.errors import CheckpointError, ConfigError
from facelab.head.classifier import Classifier, UpdateRule
from facelab.model.face_model import network_of, pick_device
from facelab.model.scoring import Scoring
from facelab.model.stored_model import scorer_of_card
from facelab.plugins import import_plugins
from facelab.progress import OnProgress, OnStage
from facelab.quality.card import require_scorer
from facelab.quality.table import QualityScores, ScoreTable
from facelab.run.device_feed import DeviceFeed
from facelab.run.mode_checks import refuse_compiled_changes, refuse_missing_occluders, refuse_single_images
from facelab.run.network import open_base, open_network, refuse_unread_scores, replicate_of
from facelab.run.precision import resolve_precision
from facelab.run.settings import RunConfig
from facelab.run.trained import class_rows_of, embed_source, load_network
from facelab.run.training_set import KEY, describe
from facelab.training_mode.base import MODES, Supplies, TrainingMode, check_parts
from facelab.weights.card_check import check_card
from facelab.weights.class_rows import OF_OPTIMIZER, ClassRows, StoredRows, count_rows, open_rows
from facelab.weights.plain_values import require_plain
from facelab.weights.snapshot import Snapshot, read_card, read_local
from facelab.weights.state_fit import OTHER_CLASSIFIER, require_fit
from facelab.weights.tensor_files import read_tree

PREVIEW = 100  # batches that a mode may look through at the start


@dataclass(frozen=True)
class RunParts:
    """Everything that a run is made of.

    Attributes:
        config: The settings.
        device: Where it runs.
        source: What it trains on.
        feed: Batches on the device.
        mode: Networks, class rows and loss.
        optim: Optimisers and schedule.
        progress: Where it stands.
        card: Description of the network for its checkpoints.
        training_set: Whom it trains on, see `facelab.run.training_set`.
    """

    config: RunConfig
    device: torch.device
    source: Source
    feed: DeviceFeed
    mode: TrainingMode
    optim: Optimization
    progress: Progress
    card: dict[str, Any]
    training_set: dict[str, Any]


def assemble(config: RunConfig, show: OnStage | None = None, *, resumed: bool = False) -> RunParts:
    """Build a run that stands at its beginning.

    Args:
        config: The settings.
        show: Told what is prepared, how much is done, and of how much.
        resumed: Whether the run began already, perhaps under a version that took scores which nothing reads.

    Raises:
        FacelabError: If any setting, file or combination of them cannot work.
    """
    import_plugins(config.plugins)
    augment = Augment(config.data.augment, config.seed)
    # A second time, now that plugins have registered their transforms.
    config.data.refuse_stale_scores()
    device = pick_device(config.training.device)
    if config.training.compile != "off":
        require_compiler(f"training.compile={config.training.compile}", device, "training.compile=off")
    torch.manual_seed(config.seed)  # the same on all processes: replicated networks must start equal
    source = open_source(config, None if show is None else partial(show, "preparing the data"))
    base = open_base(config)
    if not resumed:
        refuse_unread_scores(config, base[0])
    scoring = scoring_of(config, device, show)
    scores = open_training_scores(config, source, scoring)
    loader = open_loader(config, source, device, scores)
    updates_per_epoch = loader.steps_per_epoch // config.training.accumulate
    if updates_per_epoch == 0:
        raise ConfigError(
            f"training.batch_size is {config.training.batch_size}, but the data set has only "
            f"{len(source)} images; lower it."
        )
    network = open_network(config, base, device, scores)
    backbone, card = network.backbone, network.card
    config = resolve_precision(config, backbone, device)
    check_quality(backbone, given=config.data.quality is not None)
    supplies = Supplies(
        backbone,
        source.num_classes,
        config.head,
        config.classifier,
        config.seed,
        replicate=replicate_of(config, backbone),
        load=lambda of: load_network(of, device),
        load_rows=lambda of: class_rows_of(of, source, device),
        embed_source=lambda teacher, folder: embed_source(teacher, source, folder, config, show),
        sample_weight=config.sample_weight,
        class_precision=config.training.class_precision,
        class_skip=config.training.class_skip,
        class_compile=config.training.class_compile,
    )
    mode = build(MODES, config.mode, supplies=supplies, gate=network.gate)
    # At the start, because a loss over pairs that batches do not hold would only show by being 0.
    check_parts(mode)
    refuse_missing_occluders(mode, augment)
    refuse_compiled_changes(mode, config.training.compile)
    mode.check_batches(loader.first_parts(PREVIEW), source.labels, None if scores is None else scores.values)
    refuse_single_images(mode, loader.local_batch_size)
    optim = open_optimization(config, mode, updates_per_epoch, device)
    if config.training.cuda_graph:
        refuse_cuda_graph(optim, mode.host_work())
    torch.manual_seed(config.seed + 1 + distributed.rank())  # dropout must differ between processes
    start = Progress(updates_per_epoch, config.training.epochs, config.training.batch_size)
    online = scoring.online(config.data.quality) if config.data.online_quality and config.data.quality else None
    feed = DeviceFeed(loader, augment, config.training.accumulate, device, online, mode.view, mode.wants_occluded)
    return RunParts(config, device, source, feed, mode, optim, start, card, describe(source))


def open_source(config: RunConfig, progress: OnProgress | None = None) -> Source:
    """The training images, resized where the settings say so."""
    source = build(SOURCES, config.data.source, progress=progress, **supplied_size(config))
    if not config.data.resize:
        return source
    return Resized(source, *config.data.height_width, any_photo=config.data.any_photo)


def supplied_size(config: RunConfig) -> dict[str, int]:
    """The size for sources and protocols that draw their images; one side, so nothing if the input is not square."""
    height, width = config.data.height_width
    return {"size": height} if height == width else {}


def open_loader(config: RunConfig, source: Source, device: torch.device, scores: QualityScores | None) -> Loader:
    """The loader of this process."""
    sampler = build(SAMPLERS, config.data.sampler, labels=source.labels, seed=config.seed, runs=source.runs)
    accumulate = config.training.accumulate
    return Loader(
        source,
        sampler,
        batch_size=config.training.batch_size // accumulate,
        size_name="training.batch_size" if accumulate == 1 else "training.batch_size / training.accumulate",
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        workers=config.data.workers,
        reader=config.data.reader,
        prefetch=config.data.prefetch,
        on_corrupt=config.data.on_corrupt,
        seed=config.seed,
        pin_memory=device.type == "cuda",
        quality=None if scores is None else scores.values,
    )


def scoring_of(config: RunConfig, device: torch.device, show: OnStage | None = None) -> Scoring:
    """How a run scores its test images; training images come in the size of the network already."""
    size = config.data.height_width if config.data.resize else None
    base = None if config.base is None else str(config.base)
    return Scoring(network_of(base, device), device, show, size)


def open_training_scores(config: RunConfig, source: Source, scoring: Scoring) -> QualityScores | None:
    """Quality scores of the training images, if the settings ask for them; what may be skipped needs none."""
    if config.data.quality is None:
        return None
    table = replace(scoring, size=None).table(config.data.quality, source, "scoring the training images")
    scores = ScoreTable(table).of(source)
    if config.data.on_corrupt == "error":
        scores.require(source)
    return scores


def open_optimization(
    config: RunConfig, mode: TrainingMode, updates_per_epoch: int, device: torch.device
) -> Optimization:
    """Optimisers over what the mode trains: the network, and the class rows in a group or an optimiser of their own."""
    training = config.training
    assert training.precision != "auto", "settled when the run is assembled"
    fresh = parameter_groups(mode.fresh_modules(), config.optimizer, name="new layers", lr=config.optimizer.class_lr)
    known = [parameter for group in fresh for parameter in group.parameters]
    replicated = [*parameter_groups(mode.trained_modules(), config.optimizer, known=known), *fresh]
    owners = mode.row_owners().values()
    others = [one for owner in owners if (one := owner.optimizer(update_rule(config.optimizer)))]
    own_groups = [group for optimizer in others for group in optimizer.param_groups]
    for group in own_groups:
        group |= {"name": "class rows", "sharded": True}
    moved_by_others = [parameter for group in own_groups for parameter in group["params"]]
    groups = [
        *replicated,
        *parameter_groups(
            owners,
            config.optimizer,
            name="class rows",
            lr=config.optimizer.class_lr,
            sharded=True,
            known=[*moved_by_others, *(parameter for group in replicated for parameter in group.parameters)],
        ),
    ]
    return Optimization(
        groups,
        config.optimizer,
        config.schedule,
        total_updates=updates_per_epoch * training.epochs,
        updates_per_epoch=updates_per_epoch,
        precision=training.precision,
        amp=training.amp,
        accumulate=training.accumulate,
        clip_norm=training.clip_norm,
        clip=training.clip,
        device=device,
        others=others,
        modules=list(mode.trained_modules()),
        replicas=list(mode.replicas()),
    )


def update_rule(config: OptimizerConfig) -> UpdateRule:
    """What the settings say of class rows, for owners that move them on their own."""
    names = ("name", "weight_decay", "momentum", "nesterov", "betas", "eps")
    named = {name: getattr(config, name) for name in names}
    return UpdateRule(lr=config.class_lr or config.lr, decay_biases=config.decay_norms_and_biases, **named)


def take_snapshot(parts: RunParts, progress: Progress) -> Snapshot:
    """The state of a run as it stands, for a checkpoint.

    Raises:
        ConfigError: If the mode or an optimiser remembers what a checkpoint cannot keep.
    """
    # First, because it refuses to store a state that went wrong.
    optimization = parts.optim.state_dict()
    mode, local = parts.mode.state(), parts.mode.local_state()
    require_plain(optimization, "what the optimisers want to remember")
    for state in (mode, local):
        require_plain(state, f"what the mode {type(parts.mode).__name__} wants to remember")
    rows = _take_rows(parts, optimization)
    # In one call: a checkpoint has the network twice, and it is gathered once.
    state = {"model": parts.mode.inference().state(), "mode": mode, "optimization": optimization}
    state = parts.mode.replica.gathered(state)
    return Snapshot(
        model=state["model"],
        card={**parts.card, "update": progress.update, "epoch": progress.update / progress.updates_per_epoch},
        training={
            "update": progress.update,
            "config": parts.config.tree(),
            "mode": state["mode"],
            "optimization": state["optimization"],
            "window": progress.window.state(),
            KEY: parts.training_set,
        },
        local={"rng": rng_state(), "mode": local},
        rows=rows,
    )


def restore(parts: RunParts, checkpoint: Path) -> None:
    """Bring a run that was just assembled to where a checkpoint stands, on any number of processes.

    Raises:
        CheckpointError: If the checkpoint is of another model, base or optimiser, or lacks something.
        ConfigError: If its gate was calibrated on another scorer than that of the training images now.
    """
    stored = read_card(checkpoint)
    check_card(stored, str(checkpoint))
    _refuse_other_base(parts, stored, checkpoint)
    now, then = (scorer_of_card(card) for card in (parts.card, stored))
    if now is not None:  # a table of the same path may have been made anew
        require_scorer(then, now, "data.quality")
    training = read_tree(checkpoint / "training.pt")
    parts.mode.load_state(training["mode"])
    for owner, classifier in parts.mode.row_owners().items():
        rows = _open_rows_of(classifier, owner, checkpoint)
        for name, tensor in classifier.row_tensors().items():
            rows[name].copy_into(tensor.data)
        classifier.check_rows()
        _put_rows(training["optimization"], rows, parts.optim)
    parts.optim.load_state_dict(training["optimization"])
    local = read_local(checkpoint)
    parts.progress.update = training["update"]
    if "rng" in local:
        restore_rng(local["rng"])
    else:  # a new process must not repeat the dropout of an old one
        torch.manual_seed(_new_seed(parts.config.seed, parts.progress.update, distributed.rank()))
    # With other processes, all go on from the statistics of the first one, which are among the mode's common state.
    if local["processes"] == distributed.world_size():
        parts.mode.load_local_state(local["mode"])
    parts.progress.window.load_state(training["window"], parts.device)


def _open_rows_of(classifier: Classifier, owner: str, checkpoint: Path) -> dict[str, StoredRows]:
    """This process's rows of an owner and of its optimiser.

    Raises:
        CheckpointError: If they are those of another kind of owner, or of another number of rows.
    """
    start, stop = classifier.row_range
    rows = open_rows(checkpoint, start, stop, owner)
    stored = {name: one.empty("meta") for name, one in rows.items() if not name.startswith(OF_OPTIMIZER)}
    of = f"owner of class rows {type(classifier).__name__}"
    require_fit(classifier.row_tensors(), stored, str(checkpoint), of=of, remedy=OTHER_CLASSIFIER)
    there = count_rows(checkpoint)[owner]
    if distributed.rank() == distributed.world_size() - 1 and stop != there:  # open_rows has noticed a lack
        raise CheckpointError(
            f"the checkpoint '{checkpoint}' has {there} class rows of its {owner}, but {type(classifier).__name__} "
            f"owns {stop} on all processes together; bring the former classes, options and number of processes back."
        )
    return rows


def _new_seed(seed: int, update: int, rank: int) -> int:
    """A seed for the random state of a process that joins at an update, in 0..2^63-1."""
    digest = hashlib.sha256(f"{seed} {update} {rank}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _refuse_other_base(parts: RunParts, stored: Mapping[str, Any], checkpoint: Path) -> None:
    """A checkpoint holds no base, so the one of the settings must be the one that its adapters were trained on."""
    then, now = stored.get("base_hash"), parts.card.get("base_hash")
    if then != now:
        raise CheckpointError(
            f"'{checkpoint}' was trained on the base model {then}, but '{parts.config.base}' is {now} now; bring that "
            "model back, or start a new run."
        )


def _take_rows(parts: RunParts, optimization: dict[str, Any]) -> dict[str, ClassRows]:
    """Class rows by owner, with their optimiser state, which is taken out of ``optimization``."""
    owners = parts.mode.row_owners()
    rows = {name: {key: one.detach() for key, one in owner.row_tensors().items()} for name, owner in owners.items()}
    names = {parameter: name for name, owner in owners.items() for parameter in owner.parameters()}
    for number, optimizer in enumerate(parts.optim.optimizers):
        states = dict(optimization["optimizers"][number])
        sharded = [
            (parameter, bool(group.get("sharded"))) for group in optimizer.param_groups for parameter in group["params"]
        ]
        for index, (parameter, is_row) in enumerate(sharded):
            if not is_row or index not in states:
                continue
            # What has an entry for each row lies with the rows: another number of processes can share it out anew.
            rowwise = {k: v for k, v in states[index].items() if is_rowwise(v, parameter)}
            rows[names[parameter]] |= {f"{OF_OPTIMIZER}{number}.{index}.{key}": value for key, value in rowwise.items()}
            states[index] = {key: value for key, value in states[index].items() if key not in rowwise}
        optimization["optimizers"][number] = states
    return {name: ClassRows(*owner.row_range, rows[name]) for name, owner in owners.items()}


def _put_rows(optimization: dict[str, Any], rows: Mapping[str, StoredRows], optim: Optimization) -> None:
    """Put the optimiser state of this process's class rows back where `_take_rows` took it from."""
    for name, stored in rows.items():
        if name.startswith(OF_OPTIMIZER):
            place = name.removeprefix(OF_OPTIMIZER).split(".")
            number, index, key = int(place[0]), int(place[1]), place[2]
            target = _own_state(optim, number, index).get(key)
            # Into the tensor that is there: it may lie in a file, and a second one would not fit into memory.
            if not isinstance(target, Tensor) or (target.shape, target.dtype) != (stored.shape, stored.dtype):
                target = stored.empty()
            stored.copy_into(target)
            optimization["optimizers"][number].setdefault(index, {})[key] = target


def _own_state(optim: Optimization, number: int, index: int) -> Mapping[str, Any]:
    """What an optimiser remembers of a parameter by now; nothing if there is no such one."""
    optimizers = optim.optimizers[number : number + 1]
    parameters = [one for optimizer in optimizers for group in optimizer.param_groups for one in group["params"]]
    return optimizers[0].state.get(parameters[index], {}) if index < len(parameters) else {}
