"""Tar and zip archives: what is sound is read, what is damaged or hostile is refused with its place."""

import gzip
import io
import pickle
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from facelab.data.formats.open_files import open_files
from facelab.data.formats.tar import TarFiles
from facelab.data.sources.image_folder import ImageFolder
from facelab.data.sources.open_source import open_source
from facelab.errors import CorruptImage, DataError

FILES = {f"{who}/{n}.png": f"{who} {n}".encode() * 100 for who in ("ann", "ben", "cid") for n in range(3)}


def tar_of(path: Path, files: dict[str, bytes] = FILES, mode: str = "w", form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, mode, format=form) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def zip_of(path: Path, files: dict[str, bytes] = FILES, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def packed(kind: str, folder: Path) -> Path:
    makers: dict[str, Callable[[], Path]] = {
        "pax": lambda: tar_of(folder / "a.tar"),
        "gnu": lambda: tar_of(folder / "a.tar", form=tarfile.GNU_FORMAT),
        "ustar": lambda: tar_of(folder / "a.tar", form=tarfile.USTAR_FORMAT),
        "gz": lambda: tar_of(folder / "a.tar.gz", mode="w:gz"),
        "tgz": lambda: tar_of(folder / "a.TGZ", mode="w:gz"),
        "stored": lambda: zip_of(folder / "a.zip", compression=zipfile.ZIP_STORED),
        "deflated": lambda: zip_of(folder / "a.zip"),
    }
    return makers[kind]()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FACELAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


KINDS = ("pax", "gnu", "ustar", "gz", "tgz", "stored", "deflated")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_files(kind: str, tmp_path: Path) -> None:
    files = open_files(packed(kind, tmp_path))
    assert list(files.names()) == sorted(FILES)
    copy = pickle.loads(pickle.dumps(files))
    for name, content in FILES.items():
        assert files.size(name) == len(content)
        assert copy.read(name) == content
    assert files.size("ann/9.png") is None
    with pytest.raises(CorruptImage, match=r"ann/9\.png: there is no such image in the archive"):
        files.read("ann/9.png")


@pytest.mark.parametrize("kind", ["pax", "gz", "deflated"])
def test_archives_are_sources(kind: str, tmp_path: Path) -> None:
    path = packed(kind, tmp_path)
    source = open_source(path)
    assert isinstance(source, ImageFolder)
    assert source.people == ("ann", "ben", "cid")
    assert source.location(0) == f"{path}/ann/0.png"


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_and_foreign_names(form: int, tmp_path: Path) -> None:
    files = {"n" * 90 + f"/{'é' * 90}.png": b"1", "b/ü.png": b"2"}
    found = open_files(tar_of(tmp_path / "a.tar", files, form=form))
    assert {name: found.read(name) for name in found.names()} == files


@pytest.mark.parametrize("block", range(0, 27, 3))
def test_no_block_of_a_tar_is_lost_in_silence(block: int, tmp_path: Path) -> None:
    """A header whose bytes change, or that becomes zeros, is a refusal with its offset; content is the image's own."""
    path = tar_of(tmp_path / "a.tar", form=tarfile.USTAR_FORMAT)
    whole = path.read_bytes()
    headers = [at for at in range(0, len(whole), 512) if whole[at + 257 : at + 262] == b"ustar"]
    assert len(headers) == 9
    at = headers[block // 3]
    for spoilt in (b"\0" * 512, b"X" + whole[at + 1 : at + 512], whole[at : at + 124] + b"\xff" * 12):
        path.write_bytes(whole[:at] + spoilt + whole[at + len(spoilt) :])
        with pytest.raises(DataError, match=rf"a\.tar: is (damaged|not an uncompressed tar archive): at byte {at} "):
            open_files(path)


def test_a_tar_must_have_its_end(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar")
    whole = path.read_bytes()
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512
    for size in range(0, end + 1024, 512):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"breaks off before its end|is cut off: '"):
            open_files(path)
    path.write_bytes(whole[: end + 1024])
    assert len(list(open_files(path).names())) == 9


@pytest.mark.parametrize(
    ("form", "checksum"),
    [(b"%011o\0", b"%06o\0 "), (b"%11o ", b"%6o \0"), (b"%o\0", b"%07o\0"), (b"%11o\0", b" %o \0"), (None, b"%07o\0")],
)
def test_numbers_as_every_program_writes_them(form: bytes | None, checksum: bytes, tmp_path: Path) -> None:
    """Octal with zeros or blanks in front, and NULs or blanks behind; in binary where the first bit is set."""
    path = tar_of(tmp_path / "a.tar", form=tarfile.USTAR_FORMAT)
    whole = bytearray(path.read_bytes())
    for at in range(0, len(whole), 512):
        if whole[at + 257 : at + 262] == b"ustar":
            size = int(whole[at + 124 : at + 135], 8)
            field = b"\x80" + size.to_bytes(11, "big") if form is None else (form % size).ljust(12, b"\0")
            whole[at + 124 : at + 136], whole[at + 148 : at + 156] = field, b" " * 8
            whole[at + 148 : at + 156] = (checksum % sum(whole[at : at + 512])).ljust(8, b"\0")
    path.write_bytes(whole)
    files = open_files(path)
    assert {name: files.read(name) for name in files.names()} == FILES


def test_joined_archives_are_refused(tmp_path: Path) -> None:
    one = tar_of(tmp_path / "a.tar").read_bytes()
    (tmp_path / "b.tar").write_bytes(one + one)
    with pytest.raises(DataError, match="more follows; two archives are joined by `tar -A`"):
        open_files(tmp_path / "b.tar")


def header(name: bytes, size: bytes, kind: bytes = b"0") -> bytes:
    block = bytearray(512)
    block[: len(name)], block[124 : 124 + len(size)], block[156:157], block[257:263] = name, size, kind, b"ustar\0"
    block[148:156] = b"%06o\0 " % (sum(block) + 8 * 32)
    return bytes(block)


def number(value: int) -> bytes:
    return (b"\x80" if value >= 0 else b"\xff") + value.to_bytes(11, "big", signed=True)


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (header(b"a/1.png", number(-512)), "at byte 512 there is no sound header"),
        (header(b"a/1.png", number(2**62)), "is cut off: 'a/1.png' should end at byte"),
        (header(b"x", number(2**62), b"L"), "a name or record of 4,611,686,018,427,387,904 bytes is no name"),
        (header(b"x", number(-1), b"L"), "at byte 512 there is no sound header"),
        (header(b"x", number(2**40), b"x"), "is no name"),
        (header(b"x", number(2**40), b"g"), "is no name"),
        (header(b"x", b"00000000020\0", b"x") + b"99 path=a\n".ljust(512, b"\0"), "no sound pax record"),
        (header(b"x", b"00000000020\0", b"x") + b"16 size=-000500\n".ljust(512, b"\0"), "size of a file is no number"),
        (header(b"a/1.png", b"9999999999\0\0"), "there is no sound header"),
    ],
)
def test_hostile_tars_are_refused(member: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(header(b"a/", b"0\0", b"5") + member + header(b"a/2.png", b"0\0") + bytes(1024))
    with pytest.raises(DataError, match=rf"a\.tar: .*{reason}"):
        TarFiles(path)


def test_pax_records_are_of_the_next_file_alone(tmp_path: Path) -> None:
    record = header(b"x", b"00000000020\0", b"x") + b"16 path=a/9.png\n".ljust(512, b"\0")
    path = tmp_path / "a.tar"
    path.write_bytes(record + header(b"a/1.png", b"0\0") + header(b"a/2.png", b"0\0") + bytes(1024))
    assert list(TarFiles(path).names()) == ["a/2.png", "a/9.png"]


def test_sparse_files_are_left_out_and_what_follows_is_found(tmp_path: Path) -> None:
    sparse = bytearray(header(b"a/s.png", b"00000001000\0", b"S"))
    sparse[482] = 1
    sparse[148:156] = b"%06o\0 " % (sum(sparse) - sum(sparse[148:156]) + 8 * 32)
    more, last = bytearray(512), bytes(512)
    more[504] = 1
    path = tmp_path / "a.tar"
    content = bytes(sparse) + bytes(more) + last + b"d" * 512 + header(b"a/1.png", b"1\0") + b"x".ljust(512, b"\0")
    path.write_bytes(content + bytes(1024))
    files = TarFiles(path)
    assert list(files.names()) == ["a/1.png"]
    assert "1 left out, a sparse file (first: 'a/s.png')" in files.skipped[0]


def test_what_is_no_image_of_a_zip_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/", b"")
        archive.writestr("a/1.png", b"one")
        archive.writestr("../out.png", b"out")
        archive.writestr("a/2.png", b"two", zipfile.ZIP_LZMA)
        link = zipfile.ZipInfo("a/3.png")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    files = open_files(path)
    assert list(files.names()) == ["a/1.png"]
    assert sorted(sentence.split("out, ")[1].split(" (")[0] for sentence in files.skipped) == [
        "a file that is compressed otherwise than by deflate",
        "a link",
        "a name that leads out of the archive",
    ]


def test_names_of_windows_and_dos(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"ann#1.png": b"1", "j_.png": b"2"})
    data = path.read_bytes().replace(b"ann#1.png", b"ann\\1.png").replace(b"j_.png", b"j\x82.png")
    at = data.index(b"PK\1\2")
    (tmp_path / "b.zip").write_bytes(data[: at + 5] + b"\0" + data[at + 6 :])
    assert list(open_files(tmp_path / "b.zip").names()) == ["ann/1.png", "jé.png"]


def changed(data: bytes, field: int, value: bytes) -> bytes:
    at = data.index(b"PK\1\2") + field
    return data[:at] + value + data[at + len(value) :]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda data: data[:-30], "no end of a directory"),
        (lambda data: b"", "no end of a directory"),
        (lambda data: data[100:], "does not lie in it"),
        (lambda data: changed(data, 0, b"XX"), "its directory is damaged at byte"),
        (lambda data: changed(data, 42, struct.pack("<I", 1 << 30)), "does not lie inside it"),
        (lambda data: changed(data, 20, struct.pack("<I", 1 << 30)), "does not lie inside it"),
        (lambda data: data[:-14] + b"\xfe\xff\xfe\xff" + data[-10:], "does not lie in it"),
        (lambda data: data[:-10] + b"\xff" * 8 + data[-2:], "is not a zip archive, or is damaged"),
    ],
)
def test_damaged_zips_are_refused(spoil: Callable[[bytes], bytes], reason: str, tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip")
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(DataError, match=rf"a\.zip: is not a zip archive, or is damaged \(.*{reason}|{reason}"):
        open_files(path)


def test_an_encrypted_file_of_a_zip_is_left_out(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"a/1.png": b"one", "a/2.png": b"two"})
    path.write_bytes(changed(path.read_bytes(), 8, struct.pack("<H", 1)))
    files = open_files(path)
    assert list(files.names()) == ["a/2.png"]
    assert "an encrypted file" in files.skipped[0]


def test_a_stored_file_of_a_zip_has_one_size(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"a/1.png": b"one"}, zipfile.ZIP_STORED)
    path.write_bytes(changed(path.read_bytes(), 24, struct.pack("<I", 2)))
    with pytest.raises(DataError, match=r"'a/1\.png' does not lie inside it"):
        open_files(path)


def test_deflated_data_must_come_to_its_end(tmp_path: Path) -> None:
    compress = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    unfinished = compress.compress(b"one") + compress.flush(zlib.Z_SYNC_FLUSH)
    path = zip_of(tmp_path / "a.zip", {"a/1.png": unfinished}, zipfile.ZIP_STORED)
    data = changed(changed(path.read_bytes(), 10, struct.pack("<H", 8)), 24, struct.pack("<I", 3))
    path.write_bytes(data[:8] + struct.pack("<H", 8) + data[10:])
    with pytest.raises(CorruptImage, match="does not unpack to the 3 bytes"):
        open_files(path).read("a/1.png")


def test_bombs_and_damage_inside_a_zip_are_corrupt_images(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"a/1.png": bytes(1 << 20)})
    data = path.read_bytes()
    path.write_bytes(changed(data, 24, struct.pack("<I", 1000)))
    with pytest.raises(CorruptImage, match="does not unpack to the 1000 bytes"):
        open_files(path).read("a/1.png")
    path.write_bytes(changed(data, 24, struct.pack("<I", 1 << 31)))
    with pytest.raises(CorruptImage, match="has 2,147,483,648 bytes, more than"):
        open_files(path).read("a/1.png")
    path.write_bytes(data[:40] + b"\xff\xff\xff" + data[43:])
    with pytest.raises(CorruptImage, match="cannot be unpacked|does not unpack"):
        open_files(path).read("a/1.png")
    path.write_bytes(b"XX" + data[2:])
    with pytest.raises(CorruptImage, match="no file begins at byte 0"):
        open_files(path).read("a/1.png")


def test_zip_behind_a_program_and_with_64_bits(tmp_path: Path) -> None:
    data = zip_of(tmp_path / "a.zip").read_bytes()
    (tmp_path / "b.zip").write_bytes(b"#!program" + data)
    assert open_files(tmp_path / "b.zip").read("ann/0.png") == FILES["ann/0.png"]
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive, archive.open("a/1.png", "w", force_zip64=True) as file:
        file.write(b"one")
    assert open_files(tmp_path / "c.zip").read("a/1.png") == b"one"


def test_a_compressed_tar_is_unpacked_once(tmp_path: Path, cache: Path) -> None:
    path = tar_of(tmp_path / "a.tar.gz", mode="w:gz")
    open_files(path)
    (unpacked,) = cache.iterdir()
    before = unpacked.stat().st_mtime_ns
    open_files(path)
    assert unpacked.stat().st_mtime_ns == before
    tar_of(path, {"a/1.png": b"other"}, mode="w:gz")
    assert list(open_files(path).names()) == ["a/1.png"]


def test_damaged_and_exploding_compressed_tars_leave_nothing(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tar_of(tmp_path / "a.tar.gz", mode="w:gz")
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-6] ^= 1
    for spoilt in (whole[:-20], bytes(flipped), b"no gzip", gzip.compress(b"no tar" * 1000)):
        path.write_bytes(spoilt)
        with pytest.raises(DataError, match=r"a\.tar\.gz: is not (a gzip file|an uncompressed tar)"):
            open_files(path)
    monkeypatch.setattr("facelab.data.formats.unpacked_tar.ROOM", 1 << 20)
    header = tar_of(tmp_path / "a.tar").read_bytes()[:512]
    parts = [gzip.compress(header + bytes(1 << 23)), gzip.compress(header) + gzip.compress(bytes(1 << 23) + b"end")]
    for bomb in (*parts, parts[0] + gzip.compress(b"")):
        path.write_bytes(bomb)
        with pytest.raises(DataError, match=r"a\.tar\.gz: unpacks to more than 1,\d+,\d+ bytes"):
            open_files(path)
    assert list(cache.iterdir()) == []


def test_nothing_is_written_of_a_compressed_tar_that_says_it_is_too_large(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError

    path = tar_of(tmp_path / "a.tar.gz", mode="w:gz")
    monkeypatch.setattr("facelab.data.formats.unpacked_tar.written_files", never)
    header = tar_of(tmp_path / "a.tar").read_bytes()[:512]
    path.write_bytes(gzip.compress(header + bytes(1 << 27)))
    with pytest.raises(DataError, match=r"a\.tar\.gz: unpacks to more than 6\d,\d+,\d+ bytes"):
        open_files(path)
