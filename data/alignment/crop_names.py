"""What the crops of photos are called: as the photos, without their endings."""

import posixpath
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from facelab.errors import DataError


def crop_names(names: Iterable[str], out: Path) -> dict[str, str]:
    """Name of each photo's crop without the ending of its format: the photo's own without its ending.

    Photos that differ in their endings alone keep them: ``IMG.jpg`` beside ``IMG.png`` gives ``IMG.jpg`` and
    ``IMG.png``, whose crops are ``IMG.jpg.png`` and ``IMG.png.png``. The names follow from the set of photos, in
    whatever order.

    Args:
        names: Names of the photos.
        out: Folder of the crops, for messages.

    Raises:
        DataError: If two photos would give one crop even so.
    """
    photos = dict.fromkeys(names)
    shared = Counter(posixpath.splitext(name)[0] for name in photos)
    owner: dict[str, str] = {}
    for name in photos:
        stem = posixpath.splitext(name)[0]
        target = name if shared[stem] > 1 else stem
        if owner.setdefault(target, name) != name:
            raise DataError(f"'{owner[target]}' and '{name}' would both become {out / target}; rename one of them.")
    return {name: target for target, name in owner.items()}
