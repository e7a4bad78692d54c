"""The JPEG files that both programs of a benchmark read."""

from itertools import islice
from pathlib import Path

from facelab.data.sources.image_folder import ImageFolder
from facelab.data.synthetic.export import write_image_folder
from facelab.data.synthetic.source import SyntheticFaces
from facelab.errors import DataError

PER_PERSON = 2


def write_photos(root: Path, count: int, size: int, tar: Path | None) -> tuple[list[Path], list[int]]:
    """Write ``root/photos/person/image.jpg``.

    Args:
        root: An empty folder.
        count: Number of images.
        size: Height and width of drawn faces, in pixels.
        tar: An archive to take the images from, as they are; None draws faces.

    Returns:
        The files, sorted, and the class of each.

    Raises:
        DataError: If the archive has too few images.
    """
    folder = root / "photos"
    if tar is None:
        faces = SyntheticFaces(-(-count // PER_PERSON), PER_PERSON, size, cache=root / "cache")
        write_image_folder(folder, faces)
    else:
        _unpack(tar, folder, count)
    photos = ImageFolder(folder)
    paths = [folder / photos.name(row) for row in range(len(photos))]
    for path in paths[count:]:
        path.unlink()
    return paths[:count], photos.labels[:count].tolist()


def _unpack(tar: Path, folder: Path, count: int) -> None:
    source = ImageFolder(tar, min_images=2)
    if len(source) < count:
        raise DataError(f"{tar}: has {len(source)} images of people with 2 or more; {count} are asked for.")
    for row in islice(range(len(source)), count):
        path = folder / source.people[source.labels[row]].replace("/", "_") / Path(source.name(row)).name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.encoded(row))
