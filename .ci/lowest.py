"""Prints the lowest version that pyproject.toml allows of each dependency of the tests, as constraints for pip.

With ``--torch`` those of torch and torchvision too: 5.5 GB to install, so by hand; docs/testing.md says how.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).resolve().parent.parent / "pyproject.toml").read_text())["project"]
WITH_CUDA = {"torch", "torchvision"}  # 5.5 GB of it, whatever the machine


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
    as_pip_chooses = WITH_CUDA if sys.argv[1:] != ["--torch"] else set()
    for name, version in map(lowest, [*PROJECT["dependencies"], *requirements("dev")]):
        if name not in as_pip_chooses:
            print(f"{name}=={version}")
