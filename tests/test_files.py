"""A file is there complete, or as it was before."""

import errno
import os
import sys
import threading
from pathlib import Path

import pytest

from minircnn.files import write_atomically
from minircnn.training import Log


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    """Written into a folder that was not there, and replaced twice before."""
    file, whole = tmp_path / "a b" / "ü.json", Path.write_bytes
    for content in (b"first", b"", b"old"):
        write_atomically(file, content)
        assert file.read_bytes() == content

    def half(path, content):
        whole(path, content[: len(content) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(file, b"newer")
    assert file.read_bytes() == b"old" and list(file.parent.iterdir()) == [file]


def test_a_second_writer_in_the_middle_of_the_first(tmp_path, monkeypatch):
    """The worst moment: one has written half when the other begins and ends."""
    file, whole, seen = tmp_path / "x.bin", Path.write_bytes, []

    def interleaved(path, content):
        with path.open("wb") as stream:
            stream.write(content[:3])
            stream.flush()
            monkeypatch.setattr(Path, "write_bytes", whole)
            write_atomically(file, b"second")
            stream.write(content[3:])
        seen.append(file.read_bytes())

    monkeypatch.setattr(Path, "write_bytes", interleaved)
    write_atomically(file, b"first!")
    assert seen == [b"second"], "what the second wrote stays whole while the first goes on"
    assert file.read_bytes() == b"first!" and list(tmp_path.iterdir()) == [file]


def test_waits_while_another_program_has_the_file_open(tmp_path, monkeypatch):
    """As Windows reports it."""
    file, rename, refusals = tmp_path / "x.bin", Path.replace, [PermissionError("in use")] * 2

    def refuses(path, target):
        if refusals:
            raise refusals.pop()
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", refuses)
    write_atomically(file, b"new")
    refusals += [PermissionError("in use")] * 99
    with pytest.raises(PermissionError, match="in use"):
        write_atomically(file, b"newest")
    assert file.read_bytes() == b"new" and list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_one_and_its_target_is_written(tmp_path, there):
    target, first, second = tmp_path / "far" / "target.json", tmp_path / "first", tmp_path / "second"
    target.parent.mkdir()
    if there:
        target.write_bytes(b"old")
    first.symlink_to("far/target.json")
    second.symlink_to("first")
    write_atomically(second, b"new")
    assert first.is_symlink() and second.is_symlink() and not target.is_symlink()
    assert target.read_bytes() == b"new"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.skipif(os.name == "nt", reason="needs named pipes and devices")
def test_pipes_and_devices_are_written_into(tmp_path):
    pipe, heard = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: heard.append(pipe.read_bytes()))
    reader.start()
    write_atomically(pipe, b"content")
    reader.join(timeout=60)
    assert heard == [b"content"] and pipe.is_fifo() and list(tmp_path.iterdir()) == [pipe]
    read, write = os.pipe()
    write_atomically(Path(f"/dev/fd/{write}"), b"as bash names >(command)")
    assert os.read(read, 100) == b"as bash names >(command)"
    os.close(read)
    os.close(write)
    (tmp_path / "null").symlink_to(os.devnull)
    write_atomically(tmp_path / "null", b"gone")
    assert Path(os.devnull).is_char_device()


@pytest.mark.parametrize("name", ["n" * 255, "ü" * 127 + "n"])
def test_names_as_long_as_a_file_system_takes(tmp_path, name):
    write_atomically(tmp_path / name, b"content")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(name, b"content")]
    with pytest.raises(OSError) as caught:
        write_atomically(tmp_path / f"{name}n", b"content")
    assert caught.value.errno == errno.ENAMETOOLONG and caught.value.filename == str(tmp_path / f"{name}n")


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_a_full_disk_names_the_file():
    for write in (
        lambda path: write_atomically(path, b"x"),
        lambda path: Log(path).write({"iteration": 1}, {}),
    ):
        with pytest.raises(OSError) as caught:
            write(Path("/dev/full"))
        assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "/dev/full")
