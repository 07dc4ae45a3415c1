"""The tar format of shards: same bytes, readable by other programs, refuses damaged files."""

import io
import tarfile
from pathlib import Path

import pytest

from laion_etl.io.tarshard import RECORD, TarError, finish, read_members, write_member

MEMBERS = [("00000.jpg", b"\xff\xd8" + bytes(700)), ("00000.txt", "ё".encode()), ("00000.json", b"")]


def make_tar(members: list[tuple[str, bytes]] = MEMBERS) -> bytes:
    file = io.BytesIO()
    for name, data in members:
        write_member(file, name, data)
    finish(file)
    return file.getvalue()


def test_what_is_written_is_read_back_in_order() -> None:
    assert list(read_members(io.BytesIO(make_tar()))) == MEMBERS


def test_the_standard_library_reads_our_tar() -> None:
    with tarfile.open(fileobj=io.BytesIO(make_tar())) as archive:
        found = archive.getmembers()
        assert [(m.name, m.size, m.mtime, m.uid, m.gid, m.mode) for m in found] == [
            (name, len(data), 0, 0, 0, 0o644) for name, data in MEMBERS
        ]
        first = archive.extractfile(found[0])
        assert first is not None
        assert first.read() == MEMBERS[0][1]


def test_we_read_the_tar_of_the_standard_library() -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in MEMBERS:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    file.seek(0)
    assert list(read_members(file)) == MEMBERS


def test_the_archive_is_a_whole_number_of_records_and_always_the_same() -> None:
    assert len(make_tar()) % RECORD == 0
    assert make_tar() == make_tar()
    assert len(make_tar([])) == RECORD
    assert list(read_members(io.BytesIO(make_tar([])))) == []


@pytest.mark.parametrize("cut", [0, 100, 512, 900, 1300])
def test_a_cut_off_archive_is_an_error_not_an_end(cut: int) -> None:
    with pytest.raises(TarError, match="cut off"):
        list(read_members(io.BytesIO(make_tar()[:cut])))


def test_a_flipped_bit_in_a_header_is_found() -> None:
    data = bytearray(make_tar())
    data[1] ^= 1
    with pytest.raises(TarError, match="offset 0 is damaged"):
        list(read_members(io.BytesIO(data)))


def test_a_member_over_the_limit_is_refused_before_it_is_read() -> None:
    class NoLargeReads(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            assert size is not None
            assert size <= 512
            return super().read(size)

    with pytest.raises(TarError, match="more than 600"):
        list(read_members(NoLargeReads(make_tar()), max_member_bytes=600))


def test_a_link_in_the_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "link.tar"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        entry = tarfile.TarInfo("00000.jpg")
        entry.type = tarfile.SYMTYPE
        entry.linkname = "/etc/passwd"
        archive.addfile(entry)
    with path.open("rb") as file, pytest.raises(TarError, match="is not a regular file"):
        list(read_members(file))


@pytest.mark.parametrize("name", ["", "x" * 101, "ключ.txt"])
def test_a_name_that_does_not_fit_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"name|ascii"):
        write_member(io.BytesIO(), name, b"")
