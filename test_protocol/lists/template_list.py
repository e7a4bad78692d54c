"""Galleries and probe sets of own data: a text file with the image and the person on each line."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facelab.data.formats.text_list import is_header, separator_of, split_fields, text_lines, with_slashes
from facelab.errors import DataError
from facelab.test_protocol.metrics.metrics import Integers

TITLES = (
    frozenset(("path", "image", "img", "file", "filename", "file_name", "name")),
    frozenset(("person", "subject", "identity", "id", "label", "class", "subject_id", "person_id")),
    frozenset(("template", "template_id")),
)
"""What the columns of a first line that is a header may be called, in any case."""
FORM = "'path person' or 'path person template', separated by tabs, commas or blanks"


@dataclass(frozen=True)
class TemplateList:
    """Templates: each is one image of a person, or several that are compared as one.

    Attributes:
        path: The file.
        images: Image of each line, names below the image root, (L,).
        lines: Number of each line in the file, from 1, (L,).
        template: Number of each line's template, from 0, (L,).
        person: The person of each template, (T,).
    """

    path: Path
    images: tuple[str, ...]
    lines: Integers
    template: Integers
    person: tuple[str, ...]

    def __len__(self) -> int:
        """Number of templates, T."""
        return len(self.person)

    @property
    def first_line(self) -> Integers:
        """Row of the first line of each template, (T,)."""
        return np.unique(self.template, return_index=True)[1]


def read_template_list(path: Path) -> TemplateList:
    """A file with a line ``path person`` or ``path person template`` for each image.

    Fields are separated by tabs, else by commas, semicolons or blanks; the first line decides which, and may be a
    header. A field in double quotes may hold a separator. A person is any text. Without templates each line is one;
    with them, lines of one template name belong together wherever they stand.

    Raises:
        DataError: If the file is missing or empty, a line has another form, a template is of two people, or an image
            stands in a template twice; the message names file and line.
    """
    people: dict[str, tuple[int, str, int]] = {}  # template -> number, person, line
    seen: dict[tuple[str, str], int] = {}
    numbers: list[int] = []
    for line, image, person, name in _rows(path):
        template = name or image
        number, owner, first = people.setdefault(template, (len(people), person, line))
        if owner != person:
            raise DataError(
                f"{path}:{line}: template '{template}' is of '{person}' here and of '{owner}' in line {first}."
            )
        before = seen.setdefault((template, image), line)
        if before != line:
            raise DataError(f"{path}:{line}: the image '{image}' stands in line {before} already.")
        numbers.append(number)
    if not numbers:
        raise DataError(f"{path}: there are no images in it; expected lines of {FORM}.")
    images = tuple(image for _, image in seen)
    lines, template_of = (np.array(values, np.int64) for values in (list(seen.values()), numbers))
    return TemplateList(path, images, lines, template_of, tuple(person for _, person, _ in people.values()))


def _rows(path: Path) -> Iterator[tuple[int, str, str, str]]:
    """Line number, image, person and template (or an empty text) of each line."""
    lines = list(text_lines(path))
    if not lines:
        return
    first = lines[0][1]
    separator = separator_of(first)
    titles = split_fields(first, separator, f"{path}:{lines[0][0]}")
    columns = len(titles)
    for number, line in lines[1:] if columns > 1 and is_header(titles, TITLES) else lines:
        fields = split_fields(line, separator, f"{path}:{number}")
        if len(fields) != columns or columns not in (2, 3) or not all(fields):
            raise DataError(f"{path}:{number}: expected {FORM}, as many as in the first line; got '{line.strip()}'.")
        yield number, with_slashes(fields[0]), fields[1], fields[2] if columns == 3 else ""
