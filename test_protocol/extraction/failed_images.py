"""Images that could not be read: what a report keeps of them, and the sentence that warns of them."""

from typing import Any

from facelab.data.base import ImageSet
from facelab.test_protocol.base import Embeddings, Report

KEY = "failed_images"
LISTED = 20  # in the report
NAMED = 3  # in the sentence
DONE = {"zero": "their embeddings are zeros", "skip": "they were left out"}


def failed_options(embeddings: Embeddings, images: ImageSet) -> dict[str, Any]:
    """The count and the first 20 places, for the options of a report; nothing if all could be read."""
    if not embeddings.failed:
        return {}
    first = [images.location(row) for row, _ in embeddings.failed[:LISTED]]
    return {KEY: {"count": len(embeddings.failed), "first": first}}


def failure_warning(report: Report) -> str | None:
    """One sentence on the images that could not be read, or None if all could."""
    found = report.options.get(KEY)
    if not found:
        return None
    listed = ", ".join(found["first"][:NAMED])
    more = ", …" if found["count"] > min(NAMED, len(found["first"])) else ""
    done = DONE.get(report.options.get("on_corrupt", ""), "see its options")
    return (
        f"{report.protocol}: {found['count']:,} of {report.options['images']:,} images could not be read, "
        f"{done}: {listed}{more}"
    )
