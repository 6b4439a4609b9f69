"""A file is there complete, or as it was before."""

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
