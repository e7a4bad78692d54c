"""CALFW: LFW's people at other ages."""

from pathlib import Path
from typing import ClassVar

from facelab.citation import Citation
from facelab.test_protocol.base import PROTOCOLS
from facelab.test_protocol.lists.pairs import PairList
from facelab.test_protocol.protocols.cplfw import read_cplfw
from facelab.test_protocol.protocols.listed_pairs import ListedPairs, person_stem


def read_calfw(path: Path) -> PairList:
    """CALFW's ``pairs_CALFW.txt``: as CPLFW, with any label but 0 (there: the fold, from 1) for same pairs.

    Raises:
        DataError: If the file is missing, or a line has no label; the message names file and line.
    """
    return read_cplfw(path)


@PROTOCOLS.register("CALFW")
class CALFW(ListedPairs):
    """Cross-Age LFW: ``pairs_CALFW.txt`` and images ``Name_0001.jpg``."""

    title = "CALFW"
    read_pairs = staticmethod(read_calfw)
    person_of = staticmethod(person_stem)
    citation: ClassVar[Citation | None] = Citation(
        key="zheng2017calfw",
        title="Cross-Age LFW: A Database for Studying Cross-Age Face Recognition in Unconstrained Environments",
        authors="Zheng, Tianyue and Deng, Weihong and Hu, Jiani",
        venue="arXiv:1708.08197",
        year=2017,
    )
