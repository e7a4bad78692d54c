"""Adapter-only files: a few megabytes that belong to one base model and refuse any other."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from facelab.adapter.base import ADAPTERS, AdaptedBackbone
from facelab.adapter.gate import GATES
from facelab.adapter.peft_format import read_peft
from facelab.backbone.base import Backbone
from facelab.errors import CheckpointError
from facelab.outside.file import require_regular
from facelab.outside.json import parse_json
from facelab.quality.card import ScorerCard
from facelab.weights.card_check import AdapterPart, check_part
from facelab.weights.model_folder import PEFT_FILES
from facelab.weights.state_fit import require_fit
from facelab.weights.state_hash import state_hash
from facelab.weights.whole_file import write_whole

FORMAT = "facelab adapter 1"


def save_adapter(
    path: Path,
    adapted: AdaptedBackbone,
    adapter: Mapping[str, Any],
    gate: Mapping[str, Any] | None = None,
    scorer: Mapping[str, Any] | None = None,
) -> None:
    """Write the adapters of a network, without its base.

    Args:
        path: The new ``.safetensors`` file.
        adapted: The network; BatchNorm statistics of its base must not have moved.
        adapter: The adapter as ``{name: {options}}``.
        gate: The gate as ``{name: {options}}``, where there is one.
        scorer: What the model's card says of the scorer that the gate was calibrated on.

    Raises:
        CheckpointError: If the base changed, so that adapters alone cannot bring the network back.
        DataError: If the file cannot be written.
    """
    adapted.require_unmoved_base()
    header = {"format": FORMAT, "base": adapted.base_hash, "adapter": adapter, "gate": gate, "scorer": scorer}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in adapted.own_state().items()}
    write_whole(path, save(tensors, {"facelab": json.dumps(header)}))


@dataclass(frozen=True)
class StoredAdapter:
    """What a file of adapters says of itself.

    Attributes:
        base: Hash of the base model.
        adapter: The adapter as ``{name: {options}}``.
        gate: The gate likewise, or None.
        scorer: What the card of the whole model says of the gate's scorer, or None.
    """

    base: str
    adapter: dict[str, Any]
    gate: dict[str, Any] | None
    scorer: dict[str, Any] | None


def load_adapter(path: Path, base: Backbone) -> tuple[AdaptedBackbone, StoredAdapter]:
    """Put stored adapters into their base, which is changed in place; gives the result and what the file says.

    Args:
        path: A file of `save_adapter`, or a folder of `facelab.adapter.peft_format.save_peft` or a file in it.
        base: The base model with its weights.

    Raises:
        CheckpointError: If the file is missing, damaged or of another kind, or made for another base.
        ConfigError: If the adapter or an option of it is unknown here.
    """
    if path.name in PEFT_FILES and path.with_name(PEFT_FILES[0]).is_file():
        path = path.parent
    stored, tensors = _read_peft(path) if path.is_dir() else _read(path)
    if isinstance(base, AdaptedBackbone):
        raise CheckpointError(f"'{path}' cannot be put into a model that has adapters already; name its base.")
    found = state_hash(base.state_dict())
    if stored.base != found:
        raise CheckpointError(
            f"the adapters in '{path}' belong to the base model {stored.base:.64}, but this one is {found}; load the "
            "base that they were trained on."
        )
    scorer = None if stored.scorer is None else ScorerCard.model_validate(stored.scorer["card"])
    adapted = with_adapters(base, stored.adapter, stored.gate, scorer)
    require_fit(adapted.own_state(), tensors, f"{path}", of="adapter")
    # As float32: nothing looks at eight bits directly, and what overflows there is not finite in the network either.
    if not all(bool(torch.isfinite(tensor.float()).all()) for tensor in tensors.values()):
        raise CheckpointError(f"'{path}' holds values that are not finite.")
    # Together with what the base brought, so that loading is strict.
    adapted.load_state_dict({**adapted.state_dict(), **tensors})
    return adapted, stored


def with_adapters(
    base: Backbone, adapter: Mapping[str, Any], gate: Mapping[str, Any] | None, scorer: ScorerCard | None
) -> AdaptedBackbone:
    """A backbone with new adapters, as a file describes them; it is changed in place.

    Args:
        base: The backbone.
        adapter: The adapter as ``{name: {options}}``.
        gate: The gate likewise, or None.
        scorer: Whose scores the gate takes.

    Raises:
        ConfigError: If the adapter or an option of it is unknown here, or does not fit the backbone.
    """
    ((name, options),) = adapter.items()
    built = None
    if gate is not None:
        ((gate_name, gate_options),) = gate.items()
        built = GATES.build(gate_name, gate_options)
        built.scorer = scorer
    return AdaptedBackbone(base, ADAPTERS.build(name, options), built)


def _read_peft(folder: Path) -> tuple[StoredAdapter, dict[str, Tensor]]:
    adapter, tensors, base = read_peft(folder)
    return StoredAdapter(base, adapter, None, None), tensors


def _read(path: Path) -> tuple[StoredAdapter, dict[str, Tensor]]:
    try:
        require_regular(path)
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("facelab", "null")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"'{path}' cannot be read as an adapter file ({error}).") from None
    header = parse_json(text, str(path), "an adapter file", not_finite=True, error=CheckpointError)
    if not isinstance(header, dict) or header.get("format") != FORMAT or not isinstance(header.get("base"), str):
        raise CheckpointError(f"'{path}' is not an adapter file of this facelab.")
    check_part(AdapterPart, header, f"the description in '{path}'")
    return StoredAdapter(header["base"], header["adapter"], header["gate"], header.get("scorer")), tensors
