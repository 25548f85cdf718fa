"""What strangers' archives may do: nothing but unpack."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from code_room import PYTHON, STEPS, hello, tar_of, zip_of
from stoker.types import Limits, Network

MEBIBYTE = 1024 * 1024


class Unpacked(msgspec.Struct):
    """How the step ended, and what it left."""

    answer: dict
    tree: Path

    @property
    def message(self) -> str:
        assert not self.answer["ok"], self.answer
        assert self.answer["kind"] == "bad_code"
        return self.answer["message"]

    @property
    def names(self) -> list[str]:
        assert self.answer["ok"], self.answer
        return sorted(str(path.relative_to(self.tree)) for path in self.tree.rglob("*") if not path.is_dir())


@pytest.fixture
def unpack(bench, folder) -> Callable[..., object]:
    """Unpacks bytes as the workshop does."""

    async def run(package: bytes, max_members: int = 1000, max_bytes: int = 64 * MEBIBYTE) -> Unpacked:
        (folder / "package").write_bytes(package)
        event = {"step": "unpack", "max_members": max_members, "max_bytes": max_bytes}
        outcome = await bench.run(event, folder, Limits(timeout_s=50), Network.NONE)
        assert outcome.status == "ok", outcome
        return Unpacked(msgspec.json.decode(outcome.result), folder / "tree")

    return run


def tar(*members: tarfile.TarInfo | tuple[str, bytes], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for member in members:
            if isinstance(member, tuple):
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
            else:
                archive.addfile(member)
    return buffer.getvalue()


def entry(name: str, kind: bytes, target: str = "", **fields: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def zipped(name: str, content: bytes = b"x", mode: int = 0, **fields: object) -> bytes:
    """A zip of one member with whatever attributes."""
    return zip_with((name, content, mode), **fields)


def encrypted(package: bytes) -> bytes:
    """The same zip, saying of its member that it is encrypted."""
    changed = bytearray(package)
    changed[6] |= 1
    changed[changed.rindex(b"PK\x01\x02") + 8] |= 1
    return bytes(changed)


def zip_with(*members: tuple[str, bytes, int], **fields: object) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content, mode in members:
            info = zipfile.ZipInfo("placeholder")
            info.filename = name
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = mode << 16
            for field, value in fields.items():
                setattr(info, field, value)
            archive.writestr(info, content)
    return buffer.getvalue()


GOOD: dict[str, bytes] = {
    "zip": zip_of(hello("W1")),
    "tar.gz": tar_of(hello("W1")),
    "tar": tar_of(hello("W1"), "w"),
    "tar.gz with leading dots": tar_of({"./W1/main.py": "x", "./W1/config.json": "{}"}),
    "zip with a folder's entry": zip_of({"W1/": b"", "W1/main.py": "x", "W1/config.json": "{}"}),
    "zip listing a folder twice": zip_of({"W1/": b"", "W1//": b"", "W1/main.py": "", "W1/config.json": ""}),
}


@pytest.mark.parametrize("kind", GOOD)
async def test_zip_and_tar_are_told_by_their_content(unpack, kind):
    done = await unpack(GOOD[kind])
    assert done.names == ["W1/config.json", "W1/main.py"]
    assert done.answer["value"]["files"] == 2


async def test_modes_become_readable_for_all_and_never_setuid(unpack):
    infos = [entry(name, tarfile.REGTYPE, mode=mode) for name, mode in (("secret.py", 0), ("run.sh", 0o6700))]
    done = await unpack(tar(*infos, entry("closed", tarfile.DIRTYPE, mode=0o000)))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in done.tree.iterdir()}
    assert modes == {"secret.py": 0o644, "run.sh": 0o755, "closed": 0o755}


BAD: dict[str, tuple[bytes, str]] = {
    "a zip path upwards": (zipped("../x"), "'../x' leads out of the package"),
    "a zip path upwards inside": (zipped("W1/../../x"), "leads out of the package"),
    "an absolute zip path": (zipped("/etc/passwd"), "'/etc/passwd' is an absolute path"),
    "a tar path upwards": (tar(("../x", b"x")), "leads out of the package"),
    "an absolute tar path": (tar(("/x", b"x")), "is an absolute path"),
    "a newline": (zipped("a\nb"), "control character"),
    "an escape": (zipped("a\x1b[2Jb"), "control character"),
    "a backslash": (zipped("..\\x"), "backslash"),
    "a name of 4 KB": (zipped("a" * 4096), "longer than 1024 bytes"),
    "a part of 300 bytes": (zipped("a" * 300), "a part longer than 255 bytes"),
    "a part of 300 bytes in letters of two": (zipped("ä" * 150), "a part longer than 255 bytes"),
    "a hundred folders": (zipped("a/" * 100 + "x"), "deeper than 64"),
    "a name that is only a dot": (zipped("."), "twice"),
    "an empty name": (zipped(""), "twice"),
    "the same name twice": (zip_with(("a", b"1", 0), ("a", b"2", 0)), "'a' is in the archive twice"),
    "the same name in other words": (zip_with(("a", b"1", 0), ("./a", b"2", 0)), "twice"),
    "two names that look the same": (zip_with(("ﬁle", b"1", 0), ("file", b"2", 0)), "twice"),
    "a file where a folder is": (zip_with(("a/b", b"1", 0), ("a", b"2", 0)), "twice"),
    "a file below a file": (zip_with(("a", b"1", 0), ("a/b", b"2", 0)), "'a/b' lies below 'a', a file"),
    "a folder where a file is": (zip_with(("a", b"1", 0), ("a/", b"", 0)), "'a/' lies below 'a', a file"),
    "a zip link out": (zipped("l", b"/etc", stat.S_IFLNK | 0o777), "link to '/etc', outside the package"),
    "a zip link up": (zipped("a/l", b"../../x", stat.S_IFLNK | 0o777), "outside the package"),
    "a zip pipe": (zipped("p", b"", stat.S_IFIFO | 0o644), "a device, pipe or socket, which no package"),
    "a zip device": (zipped("d", b"", stat.S_IFCHR | 0o644), "a device, pipe or socket"),
    "a tar device": (tar(entry("d", tarfile.CHRTYPE, devmajor=1, devminor=3)), "a device or pipe"),
    "a tar block device": (tar(entry("d", tarfile.BLKTYPE, devmajor=8)), "a device or pipe"),
    "a tar pipe": (tar(entry("p", tarfile.FIFOTYPE)), "a device or pipe"),
    "a tar link out": (tar(("x", b""), entry("l", tarfile.SYMTYPE, "/etc/passwd")), "outside the package"),
    "a tar link up": (tar(("x", b""), entry("l", tarfile.SYMTYPE, "../x")), "outside the package"),
    "a link through another": (
        tar(("a/x", b""), entry("a/l", tarfile.SYMTYPE, ".."), entry("m", tarfile.SYMTYPE, "a/l/..")),
        "outside the package",
    ),
    "a link to the top itself": (tar(("x", b""), entry("l", tarfile.SYMTYPE, ".")), "outside the package"),
    "links in a ring": (
        tar(("x", b""), entry("a", tarfile.SYMTYPE, "b"), entry("b", tarfile.SYMTYPE, "a")),
        "outside the package",
    ),
    "a file through a link": (tar(entry("l", tarfile.SYMTYPE, "."), ("l/x", b"")), "lies below 'l', a link"),
    "a hard link out": (tar(entry("h", tarfile.LNKTYPE, "/etc/passwd")), "'/etc/passwd' is an absolute path"),
    "a hard link up": (tar(entry("h", tarfile.LNKTYPE, "../x")), "leads out of the package"),
    "a hard link to nothing": (tar(entry("h", tarfile.LNKTYPE, "x"), ("x", b"")), "no file before it"),
    "a hard link to a link": (
        tar(("x", b""), entry("l", tarfile.SYMTYPE, "x"), entry("h", tarfile.LNKTYPE, "l")),
        "no file before it",
    ),
    "no file": (zip_of({"W1/": b""}), "holds no file"),
    "no archive": (b"<html>404</html>", "neither a zip nor a tar.gz"),
    "one byte": (b"P", "neither a zip nor a tar.gz"),
    "half a zip": (zip_of(hello("W1"))[:-40], "broken"),
    "half a tar.gz": (tar_of({"x": os.urandom(100_000)})[:-40_000], "broken"),
    "a gzip of something else": (gzip.compress(b"hello" * 1000), "broken"),
    "an encrypted zip": (encrypted(zipped("x")), "password required"),
    "a compression nobody knows": (zipped("x").replace(b"\x08\x00", b"\x63\x00"), "broken"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
async def test_a_bad_archive_is_refused_with_member_and_reason(unpack, what):
    package, words = BAD[what]
    done = await unpack(package)
    assert words in done.message


async def test_a_zip_name_with_a_nul_is_refused_not_cut(unpack):
    package = zipped("main.pyZx").replace(b"main.pyZx", b"main.py\0x")
    assert "control character" in (await unpack(package)).message


async def test_links_that_stay_inside_are_made(unpack):
    package = tar(
        ("W1/node_modules/tool/cli.js", b"x"),
        entry("W1/node_modules/.bin/tool", tarfile.SYMTYPE, "../tool/cli.js"),
        entry("W1/latest", tarfile.SYMTYPE, "node_modules/tool"),
        entry("W1/copy.js", tarfile.LNKTYPE, "W1/node_modules/tool/cli.js"),
    )
    done = await unpack(package)
    assert (done.tree / "W1/node_modules/.bin/tool").read_bytes() == b"x"
    assert (done.tree / "W1/latest/cli.js").read_bytes() == b"x"
    assert (done.tree / "W1/copy.js").read_bytes() == b"x"


async def test_a_bomb_ends_at_the_ratio(unpack):
    done = await unpack(zipped("zeros", bytes(40 * MEBIBYTE)))
    assert "more than 200 times its size, at 'zeros'" in done.message


async def test_a_bomb_in_a_tar_ends_at_the_ratio(unpack):
    done = await unpack(tar(("zeros", bytes(40 * MEBIBYTE))))
    assert "more than 200 times its size" in done.message


async def test_many_members_end_at_the_size(unpack):
    noise = os.urandom(MEBIBYTE)
    done = await unpack(zip_with(*((f"f{n}", noise, 0) for n in range(6))), max_bytes=5 * MEBIBYTE)
    assert f"more than {5 * MEBIBYTE} bytes, at 'f5'" in done.message


async def test_a_size_that_the_header_denies_counts_all_the_same(unpack):
    package = bytearray(zipped("x", os.urandom(3 * MEBIBYTE)))
    at = package.rindex(b"PK\x01\x02")
    struct.pack_into("<I", package, at + 24, 10)
    assert "broken" in (await unpack(bytes(package), max_bytes=MEBIBYTE)).message


async def test_a_size_above_the_cap_is_refused_before_a_byte_of_it(unpack):
    info = tarfile.TarInfo("huge")
    info.size = 1 << 40
    done = await unpack(gzip.compress(info.tobuf()))
    assert "'huge' says it has 1099511627776 bytes" in done.message


async def test_a_negative_size_is_refused(unpack):
    block = bytearray(tarfile.TarInfo("x").tobuf())
    block[124:136] = b"\xff" * 12  # minus one, in base 256
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    done = await unpack(gzip.compress(bytes(block) + bytes(1024)))
    assert "bytes" in done.message or "broken" in done.message


async def test_too_many_members_are_refused(unpack):
    done = await unpack(zip_of({f"f{n}": b"" for n in range(1001)}))
    assert "more than 1000 files and folders" in done.message


async def test_folders_on_the_way_count_as_members(unpack):
    done = await unpack(zip_of({f"{n}/a/b/c/x": b"" for n in range(300)}))
    assert "more than 1000 files and folders" in done.message


def million_members() -> Iterator[bytes]:
    """A zip of a million empty files, without the standard library's patience for making one."""
    names = [b"%07d" % number for number in range(1_000_000)]
    yield from (
        struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 0, 0, 0, 33, 0, 0, 0, 7, 0) + name for name in names
    )
    for at, name in enumerate(names):
        fields = (20, 20, 0, 0, 0, 33, 0, 0, 0, 7, 0, 0, 0, 0, 0, at * 37)
        yield struct.pack("<4s6H3L5H2L", b"PK\x01\x02", *fields) + name
    size, start = 1_000_000 * 53, 1_000_000 * 37
    yield struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 10**6, 10**6, size, start)
    yield struct.pack("<4sLQL", b"PK\x06\x07", 0, size + start, 1)
    yield struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)


@pytest.mark.slow
async def test_a_million_members_are_refused_within_bounds(unpack):
    done = await unpack(b"".join(million_members()), max_members=20_000)
    assert "more memory to unpack" in done.message or "more than 20000 files" in done.message


async def test_a_tar_header_of_a_gigabyte_is_refused_within_bounds(unpack):
    """An extended header is read as a whole: its size is bounded by memory, not by trust."""
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 30
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [packer.compress(header.tobuf())] + [packer.compress(bytes(MEBIBYTE)) for _ in range(200)]
    done = await unpack(b"".join(parts) + packer.flush(), max_bytes=64 * MEBIBYTE)
    assert "more bytes than allowed" in done.message or "memory" in done.message


DAMAGED = """
import io, os, random, resource, shutil, sys, tarfile, tempfile, zipfile
sys.path.insert(0, sys.argv[1])
import unpacking

def damaged(data, random):
    data = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 3, 8))):
        at = random.randrange(len(data))
        match random.randrange(4):
            case 0: data[at] = random.randrange(256)
            case 1: data[at] ^= 1 << random.randrange(8)
            case 2: del data[at : at + random.randrange(1, 30)]
            case 3: data[at : at + 4] = random.choice((b"\\xff" * 4, bytes(4), b"\\x7f\\xff" * 2, b"../."))
        data = data or bytearray(b"x")
    return bytes(data)

seeds = [bytes.fromhex(line) for line in sys.stdin.read().split()]
random, ends, top = random.Random(11), {"whole": 0, "rejected": 0}, os.path.realpath(sys.argv[2])
for number in range(3000):
    shutil.rmtree(top)
    os.makedirs(tree := top + "/tree")
    with open(top + "/package", "wb") as package:
        package.write(damaged(random.choice(seeds), random))
    try:
        unpacking.unpack(top + "/package", tree, unpacking.Caps(100, 1 << 20))
        ends["whole"] += 1
    except unpacking.Rejected:
        ends["rejected"] += 1
    for place, folders, files in os.walk(tree):
        for name in folders + files:
            assert os.path.realpath(os.path.join(place, name)).startswith(tree + "/"), name
assert os.listdir(os.path.dirname(top)) == [os.path.basename(top)]
print(ends)
"""


def test_damaged_archives_are_refused_or_harmless(folder: Path):
    """Thousands of archives with bits turned, bytes lost, sizes and names made large: never another end."""
    links = tar(
        ("W1/a", b"x"), entry("W1/l", tarfile.SYMTYPE, "a"), entry("W1/h", tarfile.LNKTYPE, "W1/a"), mode="w"
    )
    seeds = [zip_of(hello("W1")), tar_of(hello("W1"), "w"), links, gzip.compress(links)]
    (folder / "top").mkdir()
    done = subprocess.run(
        [PYTHON, "-I", "-c", DAMAGED, STEPS, folder / "top"],
        input="\n".join(seed.hex() for seed in seeds),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "'whole': 0" not in done.stdout and "'rejected': 0" not in done.stdout
