"""Archives from a server of our own and from the disk: whole or not at all, and nothing outside of the folder."""

import hashlib
import http.server
import inspect
import io
import re
import tarfile
import threading
import zipfile

import pytest
import torchvision.datasets.voc

from minircnn.datasets import DatasetError, PennFudanDataset
from minircnn.datasets.downloads import SOURCES, Archive, Source, download, fetch, unpack
from tests.datasets.conftest import three_people, write_people

FILES = {"PennFudanPed/PNGImages/a.png": b"picture", "PennFudanPed/PedMasks/a_mask.png": b"mask"}
PEOPLE = Source((), folder="PennFudanPed", root="PennFudanPed", most_bytes=10_000)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIRCNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "downloads"


@pytest.fixture
def server():
    """Offers what is put into ``files``; counts how often it is asked."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            content, stated = files.get(self.path, (None, 0))
            self.send_response(200 if content is not None else 404)
            self.send_header("Content-Length", str(stated))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_):
            pass

    files, asked = {}, []
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as one:
        thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{one.server_port}", files, asked
        finally:
            one.shutdown()
            thread.join()


def as_tar(files, mode="w"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = 0o4777
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def as_zip(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def offered(server, name, content, *, md5=None, stated=None):
    """An archive of the server, with its right checksum if none is given."""
    url, files, _ = server
    files[f"/{name}"] = (content, len(content) if stated is None else stated)
    return Archive(f"{url}/{name}", "1 kB", md5 or hashlib.md5(content).hexdigest())


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --------------------------------------------------------------------------------------------------------- checksums


def test_checksums_and_addresses_are_torchvisions():
    known = torchvision.datasets.voc.DATASET_YEAR_DICT
    ours = [(archive.url, archive.md5, archive.file_name) for archive in SOURCES["voc"].archives]
    assert ours == [(known[key]["url"], known[key]["md5"], known[key]["filename"]) for key in ("2007", "2007-test")]
    assert SOURCES["voc"].root == known["2007"]["base_dir"].replace("\\", "/")
    source = inspect.getsource(torchvision.datasets.voc)
    stated = [archive.md5 for one in SOURCES.values() for archive in one.archives if archive.md5]
    assert len(stated) == 2
    assert all(re.fullmatch("[0-9a-f]{32}", md5) and md5 in source for md5 in stated)


# --------------------------------------------------------------------------------------------------------- fetching


def test_two_archives_become_one_folder(tmp_path, server):
    """As VOC's training and test pictures, which lie side by side."""
    train = {"VOCdevkit/VOC2007/JPEGImages/1.jpg": b"1", "VOCdevkit/VOC2007/ImageSets/Main/train.txt": b"1\n"}
    test = {"VOCdevkit/VOC2007/JPEGImages/2.jpg": b"22", "VOCdevkit/VOC2007/ImageSets/Main/test.txt": b"2\n"}
    archives = (offered(server, "a.tar", as_tar(train)), offered(server, "b.tar", as_tar(test)))
    source = Source(archives, folder="VOCdevkit", root="VOCdevkit/VOC2007", most_bytes=100)
    steps = []
    root = fetch(source, tmp_path / "new" / "place", lambda name, count: steps.append((name, count)))
    assert root == tmp_path / "new" / "place" / "VOCdevkit" / "VOC2007"
    assert contents(tmp_path / "new" / "place") == train | test
    assert steps == [("a.tar", len(as_tar(train))), ("b.tar", len(as_tar(test)))]
    fetch(source, tmp_path / "second")
    assert server[2] == ["/a.tar", "/b.tar"], "the second time they come from the cache"
    with pytest.raises(DatasetError, match="VOCdevkit: is there already; remove it"):
        fetch(source, tmp_path / "second")


def test_damaged_archive_in_the_cache_is_fetched_again(server, cache):
    archive = offered(server, "a.tar", as_tar(FILES))
    cache.mkdir(parents=True)
    (cache / "a.tar").write_bytes(b"half of it")
    assert download(archive).read_bytes() == as_tar(FILES)
    assert server[2] == ["/a.tar"]


@pytest.mark.parametrize("how", ["other file", "cut off", "not there", "no server", "no protocol"])
def test_what_is_not_the_published_file_is_not_kept(tmp_path, server, cache, how):
    content = as_tar(FILES)
    archive = offered(server, "a.tar", content)
    if how == "cut off":
        offered(server, "a.tar", content[:-99], stated=len(content))
    if how == "other file":
        archive = offered(server, "a.tar", content, md5="0" * 32)
    if how == "not there":
        server[1].clear()
    if how == "no server":
        archive = Archive("http://127.0.0.1:9/a.tar", "1 kB", archive.md5)
    if how == "no protocol":
        archive = Archive("nonsense://a.tar", "1 kB", archive.md5)
    source = Source((archive,), folder="PennFudanPed", root="PennFudanPed", most_bytes=10_000)
    words = r"MD5 [0-9a-f]{32} instead of" if how in ("other file", "cut off") else "could not fetch"
    with pytest.raises(DatasetError, match=words) as error:
        fetch(source, tmp_path / "place")
    assert archive.url in str(error.value)
    assert str(cache / "a.tar") in str(error.value), "where to put it by hand"
    assert not contents(cache)
    assert not (tmp_path / "place").exists()


def test_without_a_checksum_nothing_is_fetched(server):
    archive = Archive(f"{server[0]}/a.zip", "1 kB")
    with pytest.raises(DatasetError, match="no checksum of it is known"):
        download(archive)
    assert server[2] == []


# --------------------------------------------------------------------------------------------------------- unpacking


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.xz", "zip"])
def test_kinds_of_archives(tmp_path, kind):
    made = as_zip(FILES) if kind == "zip" else as_tar(FILES, {"tar": "w", "tar.gz": "w:gz", "tar.xz": "w:xz"}[kind])
    (tmp_path / f"x.{kind}").write_bytes(made)
    root = unpack(PEOPLE, [tmp_path / f"x.{kind}"], tmp_path / "place")
    assert root == tmp_path / "place" / "PennFudanPed"
    assert contents(tmp_path / "place") == FILES
    assert all(path.stat().st_mode & 0o7111 == 0 for path in root.rglob("*.png")), "nothing can be run"


def test_archives_that_begin_below_their_folder(tmp_path):
    """That of the nuclei holds the pictures' folders, without stage1_train around them."""
    (tmp_path / "x.zip").write_bytes(as_zip({"ab/images/ab.png": b"1", "ab/masks/c.png": b"2"}))
    root = unpack(SOURCES["nuclei"], [tmp_path / "x.zip"], tmp_path / "place")
    assert root == tmp_path / "place" / "stage1_train"
    assert sorted(contents(root)) == ["ab/images/ab.png", "ab/masks/c.png"]


def test_a_real_folder_goes_through_an_archive(tmp_path):
    inner = write_people(tmp_path / "PennFudanPed", {"a ü": three_people()})
    files = {f"PennFudanPed/{name}": content for name, content in contents(inner).items()}
    (tmp_path / "x.zip").write_bytes(as_zip(files))
    data = PennFudanDataset(unpack(SOURCES["pennfudan"], [tmp_path / "x.zip"], tmp_path / "place"))
    assert data[0][1]["area"].tolist() == [9, 16, 1]


def link(kind):
    entry = tarfile.TarInfo("PennFudanPed/link")
    entry.type, entry.linkname = kind, "../../secret"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(entry)
        extra = tarfile.TarInfo("PennFudanPed/link/x")
        archive.addfile(extra, io.BytesIO(b""))
    return buffer.getvalue()


def flipped(content):
    changed = bytearray(content)
    changed[60] ^= 255
    return bytes(changed)


BAD = {
    "zip slip": (as_zip({**FILES, "../out.txt": b"x"}), "would be written outside of the folder"),
    "zip slip deep": (as_zip({**FILES, "PennFudanPed/../../out.txt": b"x"}), "would be written outside"),
    "tar slip": (as_tar({**FILES, "../out.txt": b"x"}), "would be written outside"),
    "absolute": (as_tar({**FILES, "/tmp/out.txt": b"x"}), "would be written outside"),
    "drive": (as_zip({**FILES, "C:/out.txt": b"x"}), "would be written outside"),
    "backslash": (as_tar({**FILES, "..\\out.txt": b"x"}), "would be written outside"),
    "soft link": (link(tarfile.SYMTYPE), "is a link or a device"),
    "hard link": (link(tarfile.LNKTYPE), "is a link or a device"),
    "device": (link(tarfile.CHRTYPE), "is a link or a device"),
    "bomb": (as_zip({**FILES, "PennFudanPed/zeros": bytes(200_000)}), "unpacks to more than such a data set has"),
    "tar bomb": (as_tar({"PennFudanPed/zeros": bytes(200_000)}, "w:gz"), "unpacks to more than"),
    "no archive": (b"<html>404</html>", "damaged, or cannot be written"),
    "empty": (b"", "damaged, or cannot be written"),
    "cut zip": (as_zip(FILES)[:-30], "damaged, or cannot be written"),
    "cut tar": (as_tar(FILES)[:600], "damaged, or cannot be written"),
    "cut tar.gz": (as_tar(FILES, "w:gz")[:-20], "damaged, or cannot be written"),
    "flipped zip": (flipped(as_zip(FILES)), "damaged, or cannot be written"),
    "another": (as_zip({"VOCdevkit/x": b"1"}), "no folder PennFudanPed in it; is it another archive"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_archives_leave_nothing_behind(tmp_path, name):
    content, words = BAD[name]
    outer = tmp_path / "outer"
    (outer / "place").mkdir(parents=True)
    (tmp_path / "x.archive").write_bytes(content)
    source = Source((), folder="PennFudanPed", root="PennFudanPed/PNGImages", most_bytes=10_000)
    if name == "another":
        words = "no folder PennFudanPed/PNGImages in it; is it another archive"
    with pytest.raises(DatasetError, match=words) as error:
        unpack(source, [tmp_path / "x.archive"], outer / "place")
    assert str(tmp_path / "x.archive") in str(error.value)
    assert [path.name for path in outer.rglob("*")] == ["place"]
    assert not (tmp_path / "out.txt").exists()


def test_a_file_that_is_called_as_a_published_one_has_to_be_it(tmp_path):
    (tmp_path / "VOCtest_06-Nov-2007.tar").write_bytes(as_tar({"VOCdevkit/VOC2007/x": b"1"}))
    with pytest.raises(
        DatasetError, match=r"VOCtest_06-Nov-2007\.tar: MD5 .* instead of b6e924de25625d8de591ea690078ad9f"
    ):
        unpack(SOURCES["voc"], [tmp_path / "VOCtest_06-Nov-2007.tar"], tmp_path / "place")
    (tmp_path / "VOCtest_06-Nov-2007.tar").rename(tmp_path / "mine.tar")
    assert (unpack(SOURCES["voc"], [tmp_path / "mine.tar"], tmp_path / "place") / "x").read_bytes() == b"1"


def test_most_bytes_counts_all_archives_together(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.tar").write_bytes(as_tar({f"PennFudanPed/{name}": bytes(6_000)}))
    assert unpack(PEOPLE, [tmp_path / "a.tar"], tmp_path / "one").is_dir()
    with pytest.raises(DatasetError, match=r"b\.tar: unpacks to more"):
        unpack(PEOPLE, [tmp_path / "a.tar", tmp_path / "b.tar"], tmp_path / "two")


def test_interrupted_while_unpacking(tmp_path, monkeypatch):
    (tmp_path / "x.tar").write_bytes(as_tar(FILES))

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("minircnn.datasets.downloads._inside", interrupt)
    with pytest.raises(KeyboardInterrupt):
        unpack(PEOPLE, [tmp_path / "x.tar"], tmp_path / "place")
    assert list((tmp_path / "place").iterdir()) == []


def test_missing_archive(tmp_path):
    with pytest.raises(DatasetError, match=r"x\.zip: there is no such archive; check the path"):
        unpack(PEOPLE, [tmp_path / "x.zip"], tmp_path / "place")
