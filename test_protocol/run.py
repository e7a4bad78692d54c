"""Several protocols on one network: what the command line and evaluation during training call."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from facelab.backbone.base import takes_quality
from facelab.cost.network_cost import network_cost
from facelab.distributed import is_main
from facelab.inputs import check_any_photo
from facelab.progress import OnProgress
from facelab.quality.table import QualityScores
from facelab.test_protocol.base import Protocol, Report
from facelab.test_protocol.extraction.embed import embed
from facelab.test_protocol.extraction.extraction_settings import ExtractionSettings, OnCorrupt
from facelab.test_protocol.extraction.failed_images import failed_options
from facelab.test_protocol.extraction.forward import Precision, input_spec_of, model_hash
from facelab.test_protocol.report.mistake_pictures import with_pictures

NamedProgress = Callable[[str, int, int], None]


def run_protocols(
    network: nn.Module,
    protocols: Sequence[tuple[str, Protocol]],
    *,
    device: torch.device | str = "cpu",
    precision: Precision = "fp32",
    batch_size: int = 64,
    cache: Path | None = None,
    channels_last: bool = True,
    resize: bool = False,
    any_photo: bool = False,
    workers: int = 0,
    on_corrupt: OnCorrupt = "error",
    quality: Mapping[str, QualityScores] | None = None,
    progress: NamedProgress | None = None,
) -> list[Report]:
    """Reports of ``network`` on each protocol, in order.

    Every process of a distributed run must call this; all of them get the same reports, but only the main process reads
    the pictures of mistakes.

    Args:
        network: A backbone, already on ``device``; its modes and the random generators are left as they were.
        protocols: Name for tables and protocol. The name replaces the protocol's own.
        device: Where the network runs.
        precision: ``fp32``, or autocast to ``bf16`` or ``fp16``.
        batch_size: Images in one forward pass.
        cache: Folder that keeps embeddings, or None.
        channels_last: Memory format of the images.
        resize: Whether images of another size than the network takes are resized; otherwise they are refused.
        any_photo: With ``resize``, whether those too that cannot be aligned faces by their shape and size.
        workers: Threads that read images; 0 for one per core.
        on_corrupt: What becomes of images that cannot be read: ``error``, ``zero`` or ``skip``; see `embed`. The
            reports count them and name the first.
        quality: Scores of a protocol's images by its name; see `facelab.test_protocol.extraction.quality.open_scores`.
        progress: Called with the protocol's name, the images done and all images of this process.

    Raises:
        FacelabError: As `embed` and the protocols' ``evaluate``.
    """
    check_any_photo(any_photo, resize)
    scores, model = quality or {}, model_hash(network)
    reports = []
    cost = network_cost(network, input_spec_of(network).size, with_quality=takes_quality(network))
    for name, protocol in protocols:
        how = ExtractionSettings(
            torch.device(device),
            batch_size,
            protocol.flip,
            precision,
            channels_last,
            resize,
            workers,
            on_corrupt,
            any_photo or (resize and protocol.crops),
        )
        embeddings = embed(
            network,
            protocol.images,
            **vars(how),
            cache=cache,
            quality=scores.get(name),
            progress=_named(progress, name),
        )
        report = protocol.evaluate(embeddings)
        options = {
            **report.options,
            **how.conditions(network, protocol.images),
            **({"quality": scores[name].options()} if name in scores else {}),
            **failed_options(embeddings, protocol.images),
            "model": model,
            "parameters": cost.parameters,
            "macs": cost.macs,
        }
        mistakes = with_pictures(report.mistakes, protocol.images, embeddings) if is_main() else report.mistakes
        reports.append(replace(report, protocol=name, options=options, mistakes=mistakes))
    return reports


def _named(progress: NamedProgress | None, name: str) -> OnProgress | None:
    return None if progress is None else lambda done, total: progress(name, done, total)
