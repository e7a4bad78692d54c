from facelab.citation import Citation


def test_bibtex_and_short_form() -> None:
    citation = Citation("a2020b", "A Title", "One, Ann and Two, Bob", "CVPR", 2020, arxiv="2001.00001")
    assert citation.short() == "One et al., CVPR 2020"
    assert citation.bibtex() == (
        "@inproceedings{a2020b,\n  title = {{A Title}},\n  author = {One, Ann and Two, Bob},\n  booktitle = {CVPR},\n"
        "  year = {2020},\n  eprint = {2001.00001},\n  archivePrefix = {arXiv}\n}"
    )


def test_one_author_stands_alone() -> None:
    assert Citation("k", "T", "One, Ann", "TPAMI", 2021).short() == "One, TPAMI 2021"
