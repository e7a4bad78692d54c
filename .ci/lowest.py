"""Prints the lowest version that pyproject.toml allows of each dependency of the tests, as constraints for pip."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).resolve().parent.parent / "pyproject.toml").read_text())["project"]
# Lower releases of these two come with 5.5 GB of CUDA, whatever the machine.
AS_ALWAYS = {"torch", "torchvision"}


def requirements(extra: str) -> Iterator[str]:
    """What an extra installs, with the extras that it names itself."""
    for requirement in PROJECT["optional-dependencies"][extra]:
        if named := re.fullmatch(r"facelab\[(.+)\]", requirement):
            for other in named[1].split(","):
                yield from requirements(other)
        else:
            yield requirement


def lowest(requirement: str) -> tuple[str, str]:
    """Name and lower bound, such as ``("numpy", "1.26")``."""
    found = re.match(r"([\w-]+)>=([\w.]+)", requirement)
    if found is None:
        raise SystemExit(f"pyproject.toml: {requirement!r} says no lowest version; write it as '{requirement}>=...'")
    return found[1], found[2]


if __name__ == "__main__":
    for name, version in map(lowest, [*PROJECT["dependencies"], *requirements("dev")]):
        if name not in AS_ALWAYS:
            print(f"{name}=={version}")
