"""The configurations that come with the package, found without importing what they configure."""

from pathlib import Path

from facelab import training_mode


def shipped_configs() -> dict[str, Path]:
    """Configurations of the package: ``conventional`` is conventional/train.yaml, others are ``mode/file``."""
    found = {}
    for path in sorted(Path(training_mode.__file__).parent.glob("*/*.yaml"), key=lambda path: path.with_suffix("")):
        found[path.parent.name if path.stem == "train" else f"{path.parent.name}/{path.stem}"] = path
    return found
