"""Which protocols ``facelab test`` runs: those of the command line, of a data root, or of the run itself."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from facelab.errors import ConfigError

if TYPE_CHECKING:
    from facelab.catalogue import Spec
    from facelab.model.face_model import FaceModel
    from facelab.quality.card import ScoreSource
    from facelab.test_protocol.base import Protocol

DATA_ROOT = "data_root"
EXAMPLES = "LFW.root=lfw112.tar LFW.pairs=pairs.txt, or data_root=FOLDER for all that lies there"


def open_protocols(
    words: Sequence[str], names: Sequence[str], models: Sequence["FaceModel"], console: Console
) -> list[tuple[str, "Protocol"]]:
    """The protocols to run, built.

    Args:
        words: ``LFW.root=…``, ``data_root=…``; without any, the settings of the first run in ``names`` count.
        names: What the command line calls the models.
        models: The models; where all take squares of one size, protocols that draw their images get it.
        console: Is told what a data root holds.

    Raises:
        ConfigError: If nothing is chosen, or an option is wrong.
        DataError: If data are missing.
    """
    from facelab.test_protocol.protocols.reduced import open_protocol

    specs, found = _of_words(words) if words else _of_run(names)
    if found:
        console.print(found, highlight=False)
    if not specs:
        raise ConfigError(f"name a protocol, for example {EXAMPLES}; see: facelab list protocols.")
    sizes = {side for model in models for side in model.input_spec.aligned}
    supplied = {"size": sizes.pop()} if len(sizes) == 1 else {}
    return [(name, open_protocol(spec, **supplied)) for name, spec in specs.items()]


def quality_tables(words: Sequence[str], protocols: Sequence[str], names: Sequence[str]) -> "dict[str, ScoreSource]":
    """Quality tables or scorers by the names of protocols.

    Args:
        words: ``TABLE`` for all protocols, or ``PROTOCOL=TABLE``; a scorer is written ``{Sharpness: {}}``.
        protocols: Names of the protocols.
        names: What the command line calls the models, if the protocols are those of the first run: then its tables
            count too, unless a word says otherwise.
    """
    from facelab.model.given_quality import parse_score_source

    def parsed(given: Any) -> "ScoreSource":
        spec: ScoreSource = parse_score_source(given, "--quality") if isinstance(given, str) else given
        return spec

    tables = {name: parsed(table) for name, table in _evaluation_of(names).get("quality", {}).items()}
    for word in words:
        name, named, table = ("", "", word) if word.startswith("{") else word.partition("=")
        tables |= {name: parsed(table)} if named else dict.fromkeys(protocols, parsed(table or word))
    return tables


def _of_words(words: Sequence[str]) -> tuple[Mapping[str, "Spec"], str]:
    from facelab.config import parse_overrides
    from facelab.test_protocol.lists.data_root import find_protocols

    tree = parse_overrides(words)
    root: Any = tree.pop(DATA_ROOT, None)
    if root is None:
        return {name: {name: options} for name, options in tree.items()}, ""
    found = find_protocols(Path(str(root)))
    return found.choose(found.named(tree)), found.describe()


def _of_run(names: Sequence[str]) -> tuple[Mapping[str, "Spec"], str]:
    from facelab.test_protocol.lists.data_root import chosen_protocols

    evaluation = _evaluation_of(names)
    root = evaluation.get(DATA_ROOT)
    return chosen_protocols(None if root is None else Path(root), evaluation.get("protocols", {}))


def _evaluation_of(names: Sequence[str]) -> dict[str, Any]:
    """The section ``evaluation`` of the first run's configuration; empty without a run."""
    from facelab.outside.yaml import read_yaml
    from facelab.run.tracking import CONFIG

    # A name may be that of a run or of one of its checkpoints, which lie two folders below.
    places = [place for name in names for place in (Path(name) / CONFIG, Path(name).parent.parent / CONFIG)]
    files = [path for path in places if path.is_file()]
    section: dict[str, Any] = read_yaml(files[0]).get("evaluation", {}) if files else {}
    return section
