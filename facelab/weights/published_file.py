"""State dicts as others publish them: files in PyTorch's or safetensors' format, on disk or on the Hugging Face hub."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.serialization import safe_globals

from facelab.errors import CheckpointError, ConfigError, first_line
from facelab.weights.state_fit import named
from facelab.weights.tensor_files import read_safetensors, read_tree
from facelab.weights.torch_limits import check_tensor_sizes

HUB = "hf://"
INNER = (  # keys under which training programs keep the network, one in the other perhaps
    *("state_dict", "state_dict_backbone", "model_state_dict", "params"),
    *("model", "backbone", "network", "net", "features", "module", "_orig_mod"),
)
DEEPEST = 8

IGNORED = (  # what training programs save beside the network and nothing here reads
    "argparse.Namespace",
    "pathlib.PosixPath",
    "pathlib._local.PosixPath",
    "numpy.dtype",
    "numpy.ndarray",
    *(f"{core}.multiarray.{name}" for core in ("numpy.core", "numpy._core") for name in ("scalar", "_reconstruct")),
    *(
        f"{lightning}.callbacks.{name}"
        for lightning in ("pytorch_lightning", "lightning.pytorch")
        for name in (
            "early_stopping.EarlyStopping",
            "lr_monitor.LearningRateMonitor",
            "model_checkpoint.ModelCheckpoint",
            "progress.ProgressBar",
        )
    ),
)
AS_MAPPING = (
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
)


FLOAT8 = frozenset((torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz))
USABLE = FLOAT8 | {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool, torch.uint8, torch.int8}
USABLE |= {torch.int16, torch.int32, torch.int64}
MAX_DIMENSIONS = 8


class _Ignored:
    """Stands in for a class that a file names: takes whatever the file gives it, keeps nothing, does nothing."""

    def __new__(cls, *_: object) -> "_Ignored":
        return super().__new__(cls)

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


STAND_INS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    *((_Ignored, name) for name in IGNORED),
    *((dict, name) for name in AS_MAPPING),
]


def read_state(source: str) -> dict[str, Tensor]:
    """Tensors of a published file by their names in it.

    What a training program keeps beside the state dict (class rows, optimiser, settings) is left out.

    Args:
        source: A ``.safetensors`` file or one of ``torch.save``, or ``hf://OWNER/REPOSITORY/FILE``; a path there
            without an ending means ``model.pt`` in that folder.

    Raises:
        CheckpointError: If the file is missing, damaged, cannot be fetched, holds no tensors, or holds some without
            (finite) values. Nothing but tensors and plain values is ever unpickled; objects of `IGNORED`, which
            Lightning and others save, are passed over.
        ConfigError: If the address is incomplete, or huggingface_hub is not installed.
    """
    path = fetch(source) if source.startswith(HUB) else Path(source)
    with safe_globals(STAND_INS):
        tree: Mapping[str, Any] = read_safetensors(path) if path.suffix == ".safetensors" else read_tree(path)
    keys = ", ".join(f"'{key}'" for key in list(tree)[:6])
    for _ in range(DEEPEST):
        tree = next((tree[key] for key in INNER if isinstance(tree.get(key), Mapping)), tree)
    state = {name: tensor for name, tensor in tree.items() if isinstance(name, str) and isinstance(tensor, Tensor)}
    if not state:
        raise CheckpointError(f"'{source}' holds no tensors by name; its entries are {keys or 'none'}.")
    _check_forms(state, source)
    check_tensor_sizes(path, (tensor.numel() * tensor.element_size() for tensor in state.values()))
    # After the sizes were checked, since these grow to four times theirs.
    state = {name: tensor.float() if tensor.dtype in FLOAT8 else tensor for name, tensor in state.items()}
    _check_values(state, source)
    return state


def _check_forms(state: Mapping[str, Tensor], source: str) -> None:
    """Refuse tensors that no network can take its weights from."""
    odd = {name: form for name, tensor in state.items() if (form := _odd_form(tensor))}
    if odd:
        kinds = ", ".join(sorted(set(odd.values())))
        raise CheckpointError(f"'{source}' holds tensors that no network can use: {named(kinds, list(odd))}.")


def _odd_form(tensor: Tensor) -> str:
    if tensor.is_nested:
        return "nested"
    if tensor.layout is not torch.strided or tensor.is_meta:
        return "sparse or without values"
    if tensor.is_quantized:
        return "quantised"
    if tensor.ndim > MAX_DIMENSIONS:
        return f"of {tensor.ndim} dimensions"
    return "" if tensor.dtype in USABLE else f"of type {str(tensor.dtype).removeprefix('torch.')}"


def _check_values(state: Mapping[str, Tensor], source: str) -> None:
    """Refuse values that would load and give a network without embeddings."""
    broken = [name for name, tensor in state.items() if not bool(tensor.isfinite().all())]
    if broken:
        found = named("with NaN or infinity", broken)
        raise CheckpointError(f"'{source}' holds tensors that no network can use: {found}.")


def fetch(address: str) -> Path:
    """A file of the Hugging Face hub, from its cache where it is there already.

    Raises:
        CheckpointError: If it cannot be fetched.
        ConfigError: If the address is incomplete, or huggingface_hub is not installed.
    """
    owner, _, rest = address.removeprefix(HUB).partition("/")
    repository, _, name = rest.partition("/")
    if not (owner and repository and name):
        raise ConfigError(f"'{address}' is not {HUB}OWNER/REPOSITORY/FILE.")
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise ConfigError(f"'{address}' needs huggingface_hub: pip install 'facelab[hub]'.") from None
    file = name if Path(name).suffix else f"{name}/model.pt"
    try:
        return Path(hf_hub_download(f"{owner}/{repository}", file))
    except (OSError, ValueError) as error:
        reason = first_line(error).rstrip(".")
        raise CheckpointError(
            f"'{address}' cannot be fetched ({reason}); download the file elsewhere and give its path."
        ) from None
