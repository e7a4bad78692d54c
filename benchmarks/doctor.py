"""How many planted errors does ``facelab data doctor`` find, and how many of its findings are planted?

LFW's people are split into two halves. The thresholds of `facelab.doctor` were chosen on one (``--half first --seed
1``); the other is reported. Into copies of a half, 5 % errors of each kind are planted, in three groups, as those of
one would hide those of another; one more copy has none, so that LFW's own errors are seen. Each copy writes one JSON
file; those that are there are not made again.

    python benchmarks/doctor.py --shared ../shared --out runs/doctor
    python benchmarks/doctor.py --whole          # what is found in all of LFW, without planting
"""

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from doctor_plants import GROUPS, halves, plant, write
from machine import machine
from rich.console import Console

from facelab.data.detection.base import DETECTORS
from facelab.data.sources.image_folder import ImageFolder
from facelab.doctor.crop_points import CropPoints
from facelab.doctor.examination import ExaminationOptions, examine
from facelab.doctor.findings import KINDS, Diagnosis, Finding
from facelab.iqa.base import SCORERS, PixelScorer
from facelab.model.face_model import load_backbone, pick_device

PAIRS = ("duplicate", "duplicate elsewhere")
SHOWN = 40  # of each kind, by name


def examination_options(shared: Path, cache: Path, device: str, detector: bool) -> ExaminationOptions:
    """With what the doctor looks: EdgeFace-XXS, Sharpness and YuNet."""
    where = pick_device(device)
    scorer = SCORERS.build("Sharpness", {})
    if not isinstance(scorer, PixelScorer):
        raise TypeError("Sharpness does not score pixels")
    network = load_backbone("EdgeFace-XXS", shared / "data" / "weights" / "edgeface_xxs.safetensors", device=device)
    points = CropPoints(DETECTORS.build("yunet", {})) if detector else None
    return ExaminationOptions(scorer=scorer, find_points=points, network=network.network, device=where, cache=cache)


def found_of(finding: Finding, diagnosis: Diagnosis) -> set[frozenset[str]]:
    """A finding in the form of the truth: images, pairs of images, or pairs of people."""
    name = diagnosis.source.name
    if finding.kind == "overlap":
        return {frozenset((name(row),)) for row in finding.suspects.tolist()}
    if finding.kind not in (*PAIRS, "two labels"):
        return {frozenset((name(row),)) for row in finding.rows.tolist()}
    pairs = [
        (name(row), name(other)) for row, other in zip(finding.rows.tolist(), finding.beside.tolist(), strict=True)
    ]
    if finding.kind == "two labels":
        return {frozenset(image.partition("/")[0] for image in pair) for pair in pairs}
    return {frozenset(pair) for pair in pairs}


def measured(diagnosis: Diagnosis, truth: dict[str, list[list[str]]]) -> dict[str, dict[str, Any]]:
    """Planted, found, and both, of each kind; and the first that were found but not planted."""
    result = {}
    for finding in diagnosis.findings:
        planted = {frozenset(names) for names in truth.get(finding.kind, [])}
        found = found_of(finding, diagnosis)
        result[finding.kind] = {
            "planted": len(planted),
            "found": len(found),
            "both": len(planted & found),
            "others": [sorted(names) for names in sorted(found - planted, key=sorted)][:SHOWN],
            "missed": [sorted(names) for names in sorted(planted - found, key=sorted)][:SHOWN],
        }
    return result


def run(name: str, half: str, seed: int, share: float, shared: Path, out: Path, device: str) -> None:
    """Plant the errors of a group, examine the copy, and write what was found."""
    first, second = halves(source := ImageFolder(shared / "data" / "faces" / "lfw112.tar"))
    folder = out / f"{half}-{name}-{seed}"
    if not (folder / "truth.json").is_file():
        write(plant(source, first if half == "first" else second, name, share, seed), folder)
    truth = json.loads((folder / "truth.json").read_text())
    options = examination_options(shared, out / "cache", device, detector=name in ("nothing", "pixels"))
    if (folder / "test.tar").is_file():
        options = ExaminationOptions(**{**vars(options), "against": {"test": ImageFolder(folder / "test.tar")}})
    start = time.perf_counter()
    diagnosis = examine(ImageFolder(folder / "train.tar"), options)
    figures = {
        "group": name,
        "half": half,
        "seed": seed,
        "share": share,
        "seconds": time.perf_counter() - start,
        "images": len(diagnosis.source),
        "facts": dict(diagnosis.facts),
        "machine": machine() | {"device": device},
        "kinds": measured(diagnosis, truth),
    }
    write_figures(out / f"{half}-{name}-{seed}.json", figures)


def whole(shared: Path, out: Path, device: str) -> None:
    """What is found in all of LFW."""
    diagnosis = examine(
        ImageFolder(shared / "data" / "faces" / "lfw112.tar"),
        examination_options(shared, out / "cache", device, detector=True),
    )
    write_figures(out / "whole.json", {"facts": dict(diagnosis.facts), "kinds": measured(diagnosis, {})})


def write_figures(path: Path, figures: dict[str, Any]) -> None:
    """Write a JSON file, which is there whole or not at all."""
    partial = path.with_suffix(".unfinished")
    partial.write_text(json.dumps(figures, indent=1))
    partial.rename(path)


def table(runs: Iterable[dict[str, Any]]) -> str:
    """Precision and recall of each kind, summed over seeds, as Markdown."""
    sums: dict[str, dict[str, int]] = {}
    clean: dict[str, int] = {}
    for one in runs:
        for kind, figures in one["kinds"].items():
            if one["group"] == "nothing":
                clean[kind] = figures["found"]
            elif kind in GROUPS[one["group"]]:
                total = sums.setdefault(kind, dict.fromkeys(("planted", "found", "both"), 0))
                for key in total:
                    total[key] += figures[key]
    lines = ["| kind | planted | found | precision | recall | without planting |", "|---|--:|--:|--:|--:|--:|"]
    for kind in KINDS:
        if kind in sums:
            one = sums[kind]
            precision, recall = one["both"] / max(1, one["found"]), one["both"] / max(1, one["planted"])
            lines.append(
                f"| {KINDS[kind].title.lower()} | {one['planted']:,} | {one['found']:,} | {100 * precision:.1f} | "
                f"{100 * recall:.1f} | {clean.get(kind, '')} |"
            )
    return "\n".join(lines) + "\n"


def main(
    shared: Annotated[Path, typer.Option(help="Folder with data/faces and data/weights.")] = Path("../shared"),
    out: Annotated[Path, typer.Option(help="Folder for copies, results and embeddings.")] = Path("runs/doctor"),
    half: Annotated[Literal["first", "second"], typer.Option(help="People; thresholds are of the first.")] = "second",
    seed: Annotated[list[int], typer.Option(help="May be repeated.")] = [2],  # noqa: B006
    group: Annotated[list[str], typer.Option(help="May be repeated.")] = list(GROUPS),  # noqa: B006
    share: Annotated[float, typer.Option(min=0.001, max=0.15, help="Of the images, for each kind.")] = 0.05,
    all_of_it: Annotated[bool, typer.Option("--whole", help="Examine all of LFW as it is, and nothing else.")] = False,
    device: str = "auto",
    threads: Annotated[int, typer.Option(min=0, help="0 for all.")] = 0,
) -> None:
    """Plant, examine, and print the table."""
    if threads:
        torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    if all_of_it:
        whole(shared, out, device)
        return
    for one in seed:
        for name in group:
            if not (out / f"{half}-{name}-{one}.json").is_file():
                run(name, half, one, share, shared, out, device)
    runs = [json.loads(path.read_text()) for path in sorted(out.glob(f"{half}-*.json"))]
    Console(soft_wrap=True, highlight=False).print(table(runs), markup=False)
    (out / f"table-{half}.md").write_text(table(runs))


if __name__ == "__main__":
    typer.run(main)
