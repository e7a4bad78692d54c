"""Prints the lowest version that pyproject.toml allows of each dependency, in the form of pip's constraints."""

import re
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).resolve().parent.parent / "pyproject.toml").read_text())["project"]
# Lower releases of these two come with 5.5 GB of CUDA, whatever the machine.
AS_ALWAYS = {"torch", "torchvision"}


def lowest(requirement: str) -> tuple[str, str]:
    """Name and lower bound, such as ``("numpy", "1.26")``."""
    found = re.match(r"([\w-]+)>=([\w.]+)", requirement)
    if found is None:
        raise SystemExit(f"pyproject.toml: {requirement!r} says no lowest version; write it as '{requirement}>=...'")
    return found[1], found[2]


if __name__ == "__main__":
    extras = PROJECT["optional-dependencies"].values()
    for requirement in [*PROJECT["dependencies"], *(one for extra in extras for one in extra)]:
        if not requirement.startswith("facelab["):
            name, version = lowest(requirement)
            if name not in AS_ALWAYS:
                print(f"{name}=={version}")
