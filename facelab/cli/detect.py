"""Options of commands that find faces in photos."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from facelab.cli.names import complete_names
from facelab.cli.options import within

if TYPE_CHECKING:
    from facelab.catalogue import Spec
    from facelab.data.detection.base import Detector

DetectOption = Annotated[
    bool | None,
    typer.Option(
        "--detect/--no-detect",
        help="Find and align the face in images that have another size than the network takes; images of its size are "
        "aligned crops. The default, unless --resize is given.",
    ),
]
DetectorOption = Annotated[
    str, typer.Option(help="See: facelab list detectors.", autocompletion=complete_names("detectors"))
]
DetectorOptions = Annotated[
    list[str] | None, typer.Option("--option", metavar="KEY=VALUE", help="Option of the detector; may be repeated.")
]
SelectOption = Annotated[
    Literal["largest", "centre", "all"], typer.Option(help="Which face of a photo; all are numbered from the largest.")
]
MinSizeOption = Annotated[
    float, typer.Option(help="Least longer side of a face in pixels of the photo.", callback=within(1, 1 << 14))
]
MinScoreOption = Annotated[
    float | None, typer.Option(help="Least score of a face; by default the detector's.", callback=within(0, 1))
]


@dataclass(frozen=True)
class BuiltDetector:
    """A detector with what it was built from.

    Attributes:
        detector: The detector.
        name: Its registered name.
        options: All of its options.
    """

    detector: "Detector"
    name: str
    options: Mapping[str, Any]


def built_detector(name: str, option: list[str] | None, min_score: float | None) -> BuiltDetector:
    """The detector that a command line asks for.

    Raises:
        ConfigError: If there is none of that name, an option is wrong, or a package is missing.
    """
    from facelab.config import parse_overrides
    from facelab.data.detection.base import DETECTORS

    given = parse_overrides(option or [])
    if min_score is not None:
        given["min_score"] = min_score
    detector = DETECTORS.build(name, given)
    usual = {key: parameter.default for key, parameter in DETECTORS.options(name).items()}
    return BuiltDetector(detector, name, usual | DETECTORS.check(name, given))


def asked_detector(detect: bool | None, resize: bool, name: str, option: list[str] | None) -> "Spec | Literal[False]":
    """What `FaceModel.embed` takes for ``detect``; nothing is built before a photo needs it.

    Args:
        detect: As the command line has it; None is yes, unless images are to be resized.
        resize: Whether they are.
        name: The detector's.
        option: The detector's, ``key=value`` each.

    Raises:
        ConfigError: If there is no such detector or option.
    """
    from facelab.config import parse_overrides
    from facelab.data.detection.base import DETECTORS

    if detect is False or (detect is None and resize):
        return False
    given = parse_overrides(option or [])
    DETECTORS.check(name, given)
    return {name: given}
