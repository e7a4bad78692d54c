"""Where a method comes from: shown by ``facelab list`` and printed as BibTeX by ``facelab cite``."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Citation:
    """One paper.

    Attributes:
        key: BibTeX key, for example ``deng2019arcface``.
        title: Title of the paper.
        authors: Authors in BibTeX form, joined by ``and``.
        venue: Conference, journal or ``arXiv preprint``.
        year: Year of publication.
        arxiv: arXiv number such as ``1801.07698``, or empty.
    """

    key: str
    title: str
    authors: str
    venue: str
    year: int
    arxiv: str = ""

    def short(self) -> str:
        """One-line form for tables: first author, venue and year."""
        first = self.authors.split(" and ")[0].split(",")[0]
        others = " et al." if " and " in self.authors else ""
        return f"{first}{others}, {self.venue} {self.year}"

    def bibtex(self) -> str:
        """The BibTeX entry."""
        fields = {"title": f"{{{self.title}}}", "author": self.authors, "booktitle": self.venue, "year": str(self.year)}
        if self.arxiv:
            fields |= {"eprint": self.arxiv, "archivePrefix": "arXiv"}
        body = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
        return f"@inproceedings{{{self.key},\n{body}\n}}"
