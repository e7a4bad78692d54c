"""Hostile and damaged pickles: nothing runs, nothing is reserved, every refusal is one sentence."""

import pickle
import pickletools
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facelab.errors import DataError
from facelab.test_protocol.protocols.bin_pack import PackImages
from facelab.weights.plain_pickle import read_plain_pickle


def stored(path: Path, content: Any, protocol: int = 4) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_reads_back(tmp_path: Path, protocol: int) -> None:
    array = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    answers = [True, False, np.bool_(True), 1]
    images, same = read_plain_pickle(stored(tmp_path / "a", ([b"one", array, array[0, 0], b""], answers), protocol))
    assert images[0] == b"one"
    np.testing.assert_array_equal(images[1], array)
    np.testing.assert_array_equal(images[2], array[0, 0])
    assert same == answers


def test_fortran_order_and_answers_as_an_array(tmp_path: Path) -> None:
    array = np.asfortranarray(np.arange(12, dtype=np.uint8).reshape(2, 2, 3))
    images, same = read_plain_pickle(stored(tmp_path / "a", ([array], np.array([True, False])), 2))
    np.testing.assert_array_equal(images[0], array)
    assert same.tolist() == [True, False]


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_dictionary_of_numbers(tmp_path: Path, protocol: int) -> None:
    content = {"low": [0.25, -1e-9, 3], "high": [1.5, 2.0], "one": True}
    assert read_plain_pickle(stored(tmp_path / "a", content, protocol)) == content


def python_2_pack(protocol: int) -> bytes:
    """([two images, an array], [True, False]) as cPickle of Python 2.7 wrote it."""
    image = bytes(range(256)) + b"it's \\ \n"
    escaped = "".join(chr(c) if 32 <= c < 127 and c not in b"'\\" else f"\\x{c:02x}" for c in image)
    if protocol == 0:
        array = (
            b"cnumpy.core.multiarray\n_reconstruct\np4\n(cnumpy\nndarray\np5\n(I0\ntS'b'\ntRp6\n(I1\n(I2\ntcnumpy\ndtype\n"
            b"p7\n(S'u1'\nI0\nI1\ntRp8\n(I3\nS'|'\np9\nNNNI-1\nI-1\nI0\ntbI00\nS'\\xff\\x00'\np10\ntb"
        )
        text = f"S'{escaped}'\np3\n".encode()
        return b"(lp1\n(lp2\n" + text + b"ag3\na" + array + b"aa(lp11\nI01\naI00\naa."
    string = b"T" + struct.pack("<i", len(image)) + image + b"q\x03"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x04(cnumpy\nndarray\nq\x05(K\x00tU\x01btRq\x06(K\x01(K\x02tcnumpy\ndtype\n"
        b"q\x07(U\x02u1K\x00K\x01tRq\x08(K\x03U\x01|q\x09NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tbI00\nU\x02\xff\x00tb"
    )
    head = b"" if protocol == 1 else b"\x80\x02"
    return head + b"]q\x01(]q\x02(" + string + b"h\x03" + array + b"e]q\x0b(I01\nI00\nee."


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_packs_of_python_2(tmp_path: Path, protocol: int) -> None:
    images, same = read_plain_pickle(stored(tmp_path / "a", python_2_pack(protocol)))
    assert images[0] == images[1] == bytes(range(256)) + b"it's \\ \n"
    assert images[2].tolist() == [255, 0]
    assert same == [True, False]


def test_what_python_2_wrote_is_what_python_reads(tmp_path: Path) -> None:
    """The file of the test above is none that only we can read."""
    for protocol in (0, 1, 2):
        images, same = pickle.loads(python_2_pack(protocol), encoding="bytes")
        assert images[0] == bytes(range(256)) + b"it's \\ \n"
        assert same == [True, False]


def test_one_image_in_several_places_is_allowed(tmp_path: Path) -> None:
    image, array = b"image" * 100, np.zeros((2, 2, 3), np.uint8)
    images, _ = read_plain_pickle(stored(tmp_path / "a", ([image, image, array, array], [True, False])))
    assert images[:2] == [image, image]


class RunsCode:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "ran"
    attack = RunsCode(subprocess.call, ["touch", str(marker)])
    with pytest.raises(DataError, match=r"a: refused, because it asks for '\w+\.call'.*nothing of it was run"):
        read_plain_pickle(stored(tmp_path / "a", ([attack], [True]), protocol))
    assert not marker.exists()


GLOBAL_NDARRAY = b"cnumpy\nndarray\n"
ATTACKS = {
    "calls an array class": (GLOBAL_NDARRAY + b"(I9999999999\ntR.", "refused, because it calls something"),
    "calls data": (b"N)R.", "refused, because it calls something"),
    "changes a class": (GLOBAL_NDARRAY + b"}b.", "refused, because it changes the state of something"),
    "changes a global": (GLOBAL_NDARRAY + b")b.", "refused, because it changes the state of something"),
    "changes a list": (b"])b.", "refused, because it changes the state of something"),
    "instance": (b"(cos\nsystem\no.", "asks for 'os.system'"),
    "instance by name": (b"(ios\nsystem\n.", "uses the pickle operation INST"),
    "new object": (b"\x80\x02cnumpy\nndarray\n)\x81.", "uses the pickle operation NEWOBJ"),
    "extension registry": (b"\x80\x02\x82\x01.", "uses the pickle operation EXT1"),
    "persistent id": (b"Pabc\n.", "uses the pickle operation PERSID"),
    "dotted name": (b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.__del__\x93.", "asks for 'numpy.ndarray.__del__'"),
    "name that is no text": (b"\x80\x04]]\x93.", "asks for"),
    "codec": (b"c_codecs\nencode\n(Vabc\nVrot13\ntR.", "it encodes something that is not text"),
    "object array": (b"cnumpy\ndtype\n(VO8\nI00\nI01\ntR.", "array of type 'O8', only uint8"),
    "float array": (b"cnumpy\ndtype\n(Vf8\nI00\nI01\ntR.", "array of type 'f8', only uint8"),
    "huge length": (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc.", "is not a readable pickle"),
    "huge bytearray": (b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b"abc.", "is not a readable pickle"),
    "unknown operation": (b"\xff.", "is not a readable pickle"),
    "sets in a list": (b"]I1\nI2\ns.", "set in something that is not a dictionary"),
    "key without value": (b"(Vk\nd.", "is not a readable pickle"),
    "key that has no hash": (b"}]I1\ns.", "other keys than texts"),
    "too little on the stack": (b"a.", "is not a readable pickle"),
    "no mark": (b"]e.", "is not a readable pickle"),
    "missing memo": (b"h\x07.", "is not a readable pickle"),
    "shared lists": (b"](](NNNe\x94h\x00h\x00e.", "puts one list into several places"),
    "shared tuple of tuples": (b"](N\x85\x85\x94h\x00h\x00e.", "puts one list into several places"),
    "shared long tuple": (b"]((NNNNNNNNNt\x94h\x00e.", "puts one list into several places"),
    "list in itself": (b"]\x94h\x00a.", "puts one list into several places"),
    "doubled list": (b"]]2e.", "puts one list into several places"),
    "deep tuples": (b")" + b"\x85" * 2_000_000 + b".", "nested more than 16 deep"),
    "deep lists": (b"]" * 100_000 + b"a" * 99_999 + b".", "nested more than 16 deep"),
    "deep dictionaries": (b"}Vk\n" * 20 + b"N" + b"s" * 20 + b".", "nested more than 16 deep"),
    "deep key": (b"})" + b"\x85" * 100_000 + b"Ns.", "nested more than 16 deep"),
    "keys that collide": (b"}K\x01Ns.", "other keys than texts"),
    "text encoded often": (
        b"](V" + b"a" * 1000 + b"\n\x94" + b"c_codecs\nencode\nh\x00\x85R" * 100 + b"e.",
        "encodes the same text again and again",
    ),
    "string without quotes": (b"Sabc\n.", "a string without its quotes"),
    "no end": (b"]]", "is not a readable pickle"),
    "two values": (b"]].", "is not a readable pickle"),
    "nothing": (b"", "is not a readable pickle"),
    "text": (b"hello, world", "is not a readable pickle"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attack(tmp_path: Path, name: str) -> None:
    content, message = ATTACKS[name]
    with pytest.raises(DataError, match=message):
        read_plain_pickle(stored(tmp_path / "a.bin", content))


def test_a_huge_memo_number_reserves_nothing(tmp_path: Path) -> None:
    """Python's own unpickler would reserve 32 GB here."""
    content = b"\x80\x02]r" + struct.pack("<I", 2**31 - 1) + b"."
    assert read_plain_pickle(stored(tmp_path / "a", content)) == []


def test_an_array_larger_than_its_content_is_refused(tmp_path: Path) -> None:
    good = pickle.dumps(np.zeros(200, np.uint8), protocol=2)
    (where,) = (at for op, argument, at in pickletools.genops(good) if op.name == "BININT1" and argument == 200)
    bad = good[:where] + b"J" + struct.pack("<i", 2**30) + good[where + 2 :]
    with pytest.raises(DataError, match="an array has the shape"):
        read_plain_pickle(stored(tmp_path / "a", bad))


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_cut_files_are_refused(tmp_path: Path, cut: int) -> None:
    whole = pickle.dumps(([b"x" * 20, np.arange(9, dtype=np.uint8)], [True]), protocol=2)
    with pytest.raises(DataError, match="/a: is not a readable pickle"):
        read_plain_pickle(stored(tmp_path / "a", whole[: -cut * len(whole) // 64]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([b"x"], "is not a verification pack"),
        ((b"x", [True]), "is not a verification pack"),
        (([b"x", "text"], [True]), "record 1: expected bytes or a uint8 array of an image, got str"),
        (([b"x", np.zeros((2, 2, 4), np.uint8)], [True]), "record 1: expected bytes or a uint8 array"),
        (([b"x", b"y", b"z"], [True]), "1 answers need 2 images, but there are 3"),
        (([b"x", b"y"], [5]), "the answers are not a list of bools"),
        (([b"x", b"y"], 1), "the answers are not a list of bools"),
        (([], []), "0 answers need 0 images"),
    ],
)
def test_pickles_that_are_no_packs(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        PackImages(stored(tmp_path / "pack.bin", content))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.bin: there is no such file"):
        PackImages(tmp_path / "none.bin")
