"""A file is there complete, or as it was before."""

import subprocess
import sys
from pathlib import Path

import pytest

from minircnn.files import write_atomically


def test_makes_folders_and_replaces(tmp_path):
    file = tmp_path / "a b" / "ü.json"
    for content in (b"first", b"second", b""):
        write_atomically(file, content)
        assert file.read_bytes() == content
    assert list(file.parent.iterdir()) == [file]


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "x.bin"
    write_atomically(file, b"old")
    whole = Path.write_bytes

    def half(path, content):
        whole(path, content[: len(content) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(file, b"newer")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_second_writer_in_the_middle_of_the_first(tmp_path, monkeypatch):
    """The worst moment: one has written half when the other begins and ends."""
    file = tmp_path / "x.bin"
    whole = Path.write_bytes
    seen = []

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
    assert file.read_bytes() == b"first!"
    assert list(tmp_path.iterdir()) == [file]


WRITER = """
import sys
from pathlib import Path
from minircnn.files import write_atomically
file, stop = Path(sys.argv[1]), Path(sys.argv[2])
while not stop.exists():
    write_atomically(file, sys.argv[3].encode() * 300_000)
"""


def test_two_processes_at_once(tmp_path):
    file, stop = tmp_path / "x.bin", tmp_path / "stop"
    write_atomically(file, b"A" * 300_000)
    start = [sys.executable, "-c", WRITER, str(file), str(stop)]
    writers = [subprocess.Popen([*start, letter]) for letter in "AB"]
    seen, changes = b"A", 0
    try:
        while changes < 50 and all(writer.poll() is None for writer in writers):
            content = file.read_bytes()
            assert content in (b"A" * 300_000, b"B" * 300_000)
            changes += content[:1] != seen
            seen = content[:1]
    finally:
        stop.touch()
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert sorted(tmp_path.iterdir()) == [stop, file]


def test_waits_while_another_program_has_the_file_open(tmp_path, monkeypatch):
    """As Windows reports it."""
    file = tmp_path / "x.bin"
    write_atomically(file, b"old")
    rename, refusals = Path.replace, [PermissionError("in use")] * 2

    def refuses_twice(path, target):
        if refusals:
            raise refusals.pop()
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", refuses_twice)
    write_atomically(file, b"new")
    assert file.read_bytes() == b"new"
    refusals += [PermissionError("in use")] * 99
    with pytest.raises(PermissionError, match="in use"):
        write_atomically(file, b"newest")
    assert file.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [file]
