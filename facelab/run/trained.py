"""What a mode may take from other trained models: network, class rows, embeddings of the training images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facelab import distributed
from facelab.backbone.base import BACKBONES, Backbone
from facelab.catalogue import Spec, build, resolve
from facelab.data.base import Source
from facelab.data.sources.resized import ResizedImages
from facelab.errors import CheckpointError, ConfigError
from facelab.head.rows.row_optimizers import caught_up
from facelab.model.face_model import load_backbone, load_model
from facelab.model.stored_model import find_checkpoint
from facelab.run.settings import RunConfig
from facelab.run.training_set import KEY, describe
from facelab.test_protocol.extraction.embed import embed
from facelab.threads import worker_count
from facelab.weights.class_rows import FIRST_OWNER, OF_OPTIMIZER, StoredRows, count_rows, open_rows
from facelab.weights.snapshot import TRAINING
from facelab.weights.tensor_files import read_tree

if TYPE_CHECKING:
    from facelab.progress import OnStage


def load_network(of: Path | Spec, device: torch.device) -> Backbone:
    """A trained network in evaluation mode.

    Args:
        of: Folder of a run, of a checkpoint or of a model, or a file of a model; or a backbone whose options have
            ``weights``.
        device: Where it goes.

    Raises:
        FacelabError: If it cannot be loaded.
    """
    if not isinstance(of, dict):
        return load_model(str(of), device=device).network
    name, options = resolve(BACKBONES, of)
    if "weights" not in options:
        raise ConfigError(
            f"the backbone '{next(iter(of))}' is to be loaded, but has no weights; name their file: "
            f"{{{next(iter(of))}: {{weights: FILE}}}}, or give the folder of a run or a model."
        )
    if "weights" in BACKBONES.parameters(name):  # read by the network itself
        return build(BACKBONES, of).to(device).eval()
    weights = Path(str(options.pop("weights")))
    return load_backbone({name: options}, weights, device=device).network


def class_rows_of(of: Path | Spec, source: Source, device: torch.device) -> Tensor:
    """Class rows of a run that was trained on the people of ``source``: those of this process, (C_own, D), fp32.

    Raises:
        CheckpointError: If it is no run, or does not have one row for each class.
        ConfigError: If it was trained on other people, whose rows would be taken for those of ours.
    """
    if isinstance(of, dict):
        raise ConfigError(
            f"the class rows of '{next(iter(of))}' are needed, but a file of weights has none; name the folder of a "
            "run on the same people, or choose losses that need none."
        )
    checkpoint = find_checkpoint(of)
    if not (checkpoint / TRAINING).is_file() or FIRST_OWNER not in count_rows(checkpoint):
        raise CheckpointError(
            f"'{of}' has no class rows, only a network; name the folder of a run on the same people, or choose losses "
            "that need none."
        )
    training = read_tree(checkpoint / TRAINING, lazily=True)
    if training.get(KEY) != describe(source):
        raise ConfigError(
            f"'{of}' was trained on other people or images than those of data.source, so its class rows mean other "
            "classes; train it on the same source, or choose losses that need no class rows."
        )
    start, stop = distributed.class_range(source.num_classes, distributed.rank(), distributed.world_size())
    counted = count_rows(checkpoint)[FIRST_OWNER]
    rows = {} if counted != source.num_classes else open_rows(checkpoint, start, stop)
    # A queue or a pool has rows too, but they are no classes.
    if "weight" not in rows or len(rows["weight"].shape) != 2:
        raise CheckpointError(
            f"'{of}' does not have one row for each class, as FullSoftmax has them; choose a run without sub-centres, "
            "queue or pool, or losses that need no class rows."
        )
    return _read_caught_up(rows, training["optimization"]["optimizers"]).to(device, torch.float32)


def _read_caught_up(rows: Mapping[str, StoredRows], optimizers: Sequence[Mapping[int, Mapping[str, Any]]]) -> Tensor:
    """The rows ``weight``, with all that those have missed that rest until they are sampled (`RowSGD`)."""
    weight = rows["weight"].read()
    for name in rows:
        of = name.removesuffix(".clock")
        if of == name or rows[f"{of}.momentum_buffer"].shape != weight.shape:  # a bias has a clock too
            continue
        number, index = map(int, of.removeprefix(OF_OPTIMIZER).split("."))
        momentum, clock = rows[f"{of}.momentum_buffer"].read(), rows[name].read()
        return caught_up(weight, momentum, clock, optimizers[number][index]["maps"])[0]
    return weight


def embed_source(
    network: Backbone, source: Source, folder: Path, config: RunConfig, show: "OnStage | None" = None
) -> NDArray[np.float32]:
    """Embeddings of every image of ``source`` as it lies on disk, (N, D), kept like those of protocols.

    Args:
        network: On its device.
        source: The training images.
        folder: Where they are kept, by hashes of network, images and preprocessing.
        config: The settings of the run.
        show: Told how much is done, and of how much.

    Raises:
        FacelabError: If an image cannot be read, or what is kept is damaged.
    """
    # A teacher of larger images sees them before they are made small for its student.
    stored = source.images if isinstance(source, ResizedImages) else source
    resized = config.data.resize or network.input_spec.aligned != config.data.height_width
    embeddings = embed(
        network,
        stored,
        device=next(network.parameters()).device,
        batch_size=config.evaluation.batch_size,
        channels_last=config.training.channels_last,
        resize=resized,
        any_photo=resized and (config.data.any_photo or not config.data.resize),
        workers=worker_count(config.data.workers),
        cache=folder,
        on_corrupt="error" if config.data.on_corrupt == "error" else "zero",
        progress=None if show is None else lambda done, total: show("embedding the training images", done, total),
    )
    return embeddings.values
