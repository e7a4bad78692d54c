"""State dicts as others publish them: files in PyTorch's or safetensors' format, on disk or on the Hugging Face hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from facelab.checkpoint import read_safetensors, read_tree
from facelab.errors import CheckpointError, ConfigError

HUB = "hf://"
INNER = ("state_dict", "state_dict_backbone")  # keys under which training programs keep the network
FRONTS = ("module.", "model.", "features.module.", "backbone.")  # DDP, AdaFace, MagFace, FaceX-Zoo


def read_state(source: str) -> dict[str, Tensor]:
    """Tensors of a published file by their names in the network.

    What a training program keeps beside the network (class rows, optimiser) is left out, and so are the words that it
    puts before every name.

    Args:
        source: A ``.safetensors`` file or one of ``torch.save``, or ``hf://OWNER/REPOSITORY/FILE``; a path there
            without an ending means ``model.pt`` in that folder.

    Raises:
        CheckpointError: If the file is missing, damaged, cannot be fetched or holds no tensors. Nothing but tensors and
            plain values is ever unpickled.
        ConfigError: If the address is incomplete, or huggingface_hub is not installed.
    """
    path = fetch(source) if source.startswith(HUB) else Path(source)
    tree: Mapping[str, Any] = read_safetensors(path) if path.suffix == ".safetensors" else read_tree(path)
    for key in INNER:
        if isinstance(tree.get(key), Mapping):
            tree = tree[key]
    state = {name: tensor for name, tensor in tree.items() if isinstance(tensor, Tensor)}
    if not state:
        raise CheckpointError(f"'{source}' holds no tensors by name.")
    return _without_front(state)


def _without_front(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for front in FRONTS:
        inner = {name.removeprefix(front): tensor for name, tensor in state.items() if name.startswith(front)}
        if inner:
            return _without_front(inner)
    return state


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
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise CheckpointError(
            f"'{address}' cannot be fetched ({reason}); download the file elsewhere and give its path."
        ) from None
