"""Files of tensors, ours and others': safetensors and ``torch.save``; nothing in them is ever run."""

import pickle
import re
import struct
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from facelab.errors import CheckpointError, first_line
from facelab.outside.file import require_regular
from facelab.weights.torch_limits import check_limits

Tree = dict[str, Any]

UNKNOWN_NAME = re.compile(r"GLOBAL ([\w.]{1,200})")  # in the reason that torch gives
UNREADABLE = (  # what torch's reader ends with where bytes are wrong
    *(OSError, RuntimeError, EOFError, ValueError, LookupError),
    *(TypeError, AttributeError, AssertionError, struct.error, OverflowError, MemoryError),
)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file.

    Raises:
        CheckpointError: If it is missing or not a safetensors file.
    """
    try:
        require_regular(path)
        return load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"'{path}' does not exist.") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"'{path}' is not a safetensors file: {first_line(error)}.") from None


def read_tree(path: Path, *, lazily: bool = False) -> Tree:
    """A tree of tensors and plain values; nothing else is ever unpickled, so a hostile file runs nothing.

    Args:
        path: A file of ``torch.save``.
        lazily: Read the numbers of a tensor only where they are used.

    Raises:
        CheckpointError: If the file is missing, damaged or holds anything else.
    """
    try:
        # weights_only keeps torch from running what the file names, but not from making as much as it describes.
        check_limits(path)
        tree = torch.load(path, map_location="cpu", weights_only=True, mmap=lazily)
    except FileNotFoundError:
        raise CheckpointError(f"'{path}' does not exist.") from None
    except IsADirectoryError:
        raise CheckpointError(f"'{path}' is a folder; name a file in it.") from None
    except pickle.UnpicklingError as error:
        asked = UNKNOWN_NAME.search(str(error))
        reason = f"it asks for '{asked[1]}'" if asked else "it is damaged"
        raise CheckpointError(
            f"'{path}' is refused: it may hold only tensors and plain values, but {reason}; nothing of it was run."
        ) from None
    except UNREADABLE as error:
        reason = "it is no file of torch.save" if isinstance(error, (EOFError, LookupError)) else first_line(error)
        raise CheckpointError(f"'{path}' is not a readable checkpoint: {reason}.") from None
    if not isinstance(tree, dict):
        raise CheckpointError(f"'{path}' does not hold a mapping.")
    return tree
