"""The doctor's page: one HTML file without network or scripts, with the images of each finding."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facelab.doctor.findings import KINDS, NOBODY, Diagnosis, Finding
from facelab.test_protocol.base import Picture
from facelab.test_protocol.report import page as report_page
from facelab.test_protocol.report.mistake_pictures import small_jpeg
from facelab.test_protocol.report.page import short_location
from facelab.version import __version__

HERE = Path(__file__).parent
BARS = 40
BAR_AREA, BAR_HEIGHT = 640, 120


@dataclass(frozen=True)
class _Card:
    """An image, what it is compared with, and its score."""

    pictures: tuple[Picture, ...]
    score: str


@dataclass(frozen=True)
class _Bar:
    x: float
    width: float
    height: float
    suspect: bool
    label: str


@dataclass(frozen=True)
class _Section:
    """What the page shows of one finding."""

    title: str
    meaning: str
    note: str
    score: str
    count: str
    suspects: str
    left_out: str
    fate: str
    is_paired: bool
    cards: Sequence[_Card]
    reasons: Sequence[str]
    more: str
    bars: Sequence[_Bar] = ()
    low: str = ""
    high: str = ""

    @property
    def is_shown(self) -> bool:
        """Whether there is more to show than that nothing was found."""
        return bool(self.cards or self.reasons or self.bars or self.more or self.note)


def render_page(title: str, diagnosis: Diagnosis, kinds: frozenset[str], shown: int) -> str:
    """The page as HTML; every text from outside is escaped, and no script may run.

    Args:
        title: What the set is called.
        diagnosis: What was found.
        kinds: Which kinds are left out.
        shown: Images (or pairs) of each finding at most.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"uri": _uri, "short": short_location}
    styles = (Path(report_page.__file__).with_name("page.css"), HERE / "page.css")
    kept = int(diagnosis.kept(kinds).sum())
    return environment.from_string((HERE / "page.html").read_text(encoding="utf-8")).render(
        title=title,
        version=__version__,
        images=f"{len(diagnosis.source):,}",
        kept=f"{kept:,}",
        dropped=f"{len(diagnosis.source) - kept:,}",
        facts=diagnosis.facts,
        notes=diagnosis.notes,
        sections=[_section(finding, diagnosis, kinds, shown) for finding in diagnosis.findings],
        style=Markup("".join(path.read_text(encoding="utf-8") for path in styles)),
    )


def _section(finding: Finding, diagnosis: Diagnosis, kinds: frozenset[str], shown: int) -> _Section:
    kind = KINDS[finding.kind]
    title = kind.title if finding.beside_in is None else f"{kind.title}: {finding.beside_in[0]}"
    bars, low, high = _bars(finding, diagnosis)
    more = len(finding.rows) - shown
    return _Section(
        title,
        kind.meaning,
        finding.note,
        kind.score,
        f"{len(finding.rows):,}",
        f"{len(finding.suspects):,}",
        "yes" if finding.kind in kinds else "no",
        _fate(finding, kinds),
        bool((finding.beside != NOBODY).any()),
        [] if finding.reasons else [_card(finding, place, diagnosis) for place in range(min(shown, len(finding.rows)))],
        finding.reasons[:shown],
        f"{more:,}" if more > 0 else "",
        bars,
        low,
        high,
    )


def _fate(finding: Finding, kinds: frozenset[str]) -> str:
    """What becomes of the suspects."""
    if not len(finding.suspects):
        return ""
    return f"{len(finding.suspects):,} {'are left out of' if finding.kind in kinds else 'suspects stay in'} keep.txt."


def _card(finding: Finding, place: int, diagnosis: Diagnosis) -> _Card:
    source, row, beside = diagnosis.source, int(finding.rows[place]), int(finding.beside[place])
    images = source if finding.beside_in is None else finding.beside_in[1]
    pictures = [Picture(source.name(row), small_jpeg(source, row))]
    if beside != NOBODY:
        pictures.append(Picture(images.name(beside), small_jpeg(images, beside)))
    score = float(finding.score[place])
    return _Card(tuple(pictures), f"{score:.3g}" if np.isfinite(score) else "")


def _bars(finding: Finding, diagnosis: Diagnosis) -> tuple[list[_Bar], str, str]:
    """The histogram of quality; bars up to the mildest suspect are marked."""
    if finding.kind != "quality" or diagnosis.quality is None or diagnosis.scorer is None:
        return [], "", ""
    values = diagnosis.quality[np.isfinite(diagnosis.quality)]
    if not len(values):
        return [], "", ""
    counts, edges = np.histogram(values, BARS)
    sign = 1 if diagnosis.scorer.higher_is_better else -1
    limit = finding.score[-1] * sign if len(finding.rows) else -np.inf
    width = BAR_AREA / BARS
    bars = [
        _Bar(
            round(place * width, 2),
            round(width - 1, 2),
            round(BAR_HEIGHT * count / counts.max(), 2),
            bool(sign * (edges[place] + edges[place + 1]) / 2 <= limit),
            f"{edges[place]:.3g} to {edges[place + 1]:.3g}: {count:,} images",
        )
        for place, count in enumerate(counts.tolist())
    ]
    return bars, f"{edges[0]:.3g}", f"{edges[-1]:.3g}"


def _uri(picture: Picture) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(picture.jpeg).decode()}"
