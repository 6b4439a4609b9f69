"""Weights on disk: what goes in comes out, what is damaged is named, and no file runs code."""

import argparse
import hashlib
import json
import pickle
import tracemalloc
import warnings
import zipfile
from http.client import IncompleteRead
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from minircnn.files import sha256
from minircnn.weights import (
    WeightsError,
    cache_folder,
    download,
    halve,
    load_into,
    load_weights,
    read_tensors,
    save,
    save_weights,
)


def tensors():
    """Every kind that a network may hold, the number without a dimension and the empty one among them."""
    random = torch.Generator().manual_seed(0)
    return {
        "conv.weight": torch.randn(4, 3, 2, 2, generator=random),
        "turned": torch.randn(3, 5, generator=random).T,  # not contiguous
        "bn.num_batches_tracked": torch.tensor(7),
        "scale": torch.tensor(0.1),
        "none": torch.zeros(0, 4),
        "flags": torch.tensor([True, False]),
    }


def same(found, wanted):
    return found.keys() == wanted.keys() and all(
        torch.equal(found[name], wanted[name]) and found[name].dtype == wanted[name].dtype for name in wanted
    )


def write(path):
    """A file of each kind that holds a (3,) and b (2, 2)."""
    wanted = {"a": torch.tensor([1.5, -2.0, 3.0]), "b": torch.arange(4.0).view(2, 2)}
    if path.suffix == ".safetensors":
        path.write_bytes(safetensors.torch.save(wanted))
    elif path.suffix == ".npz":
        np.savez_compressed(path, **{name: value.numpy() for name, value in wanted.items()})
    else:
        torch.save(wanted, path)
    return wanted


def test_round_trip(tmp_path):
    path = tmp_path / "new folder é" / "a.b mit Leerzeichen und ü 重み.safetensors"
    about = {"what": "a test", "numbers": [1, 2.5, None], "ü": {"nested": True}}
    save_weights(path, tensors(), about)
    found, told = load_weights(str(path))
    assert same(found, tensors())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert told == about | {"sha256": digest}
    record = path.with_suffix(".json")
    assert json.loads(record.read_text(encoding="utf-8")) == told
    assert sorted(path.parent.iterdir()) == sorted([path, record])
    assert sha256(path) == digest


def test_halves_come_back_in_single_precision(tmp_path):
    values = torch.linspace(-3, 3, 1000)
    given = nn.Module()
    given.w = nn.Parameter(values)
    given.register_buffer("count", torch.tensor([70000]))
    given.register_buffer("variance", torch.tensor([1e-9]))  # less than 16 bits hold
    save_weights(tmp_path / "w.safetensors", halve(given), {})
    found, _ = load_weights(tmp_path / "w.safetensors")
    assert found["w"].dtype == torch.float32 and found["count"].tolist() == [70000]
    assert found["w"].tolist() == values.numpy().astype(np.float16).astype(np.float32).tolist()
    assert ((found["w"] - values).abs() <= values.abs() / 1000).all()
    assert given.w.dtype == torch.float32 and torch.equal(found["variance"], given.variance)
    assert (tmp_path / "w.safetensors").stat().st_size < 1000 * 2 + 300


def test_what_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"w\.pth: weights are written as \.safetensors"):
        save_weights(tmp_path / "w.pth", tensors(), {})
    with pytest.raises(TypeError):
        save_weights(tmp_path / "w.safetensors", tensors(), {"not JSON": object()})
    with pytest.raises(TypeError, match=r"model must be one of RCNN, .*MaskRCNN, but is Linear"):
        save(nn.Linear(1, 1), tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


def test_files_that_do_not_belong_together_are_named(tmp_path):
    path, record = tmp_path / "w.safetensors", tmp_path / "w.json"
    save_weights(path, {"a": torch.ones(10)}, {})
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert read_tensors(path)["a"][:9].tolist() == [1.0] * 9  # still a file in order
    with pytest.raises(WeightsError, match=r"w\.safetensors: not the file that w\.json describes"):
        load_weights(path)
    record.unlink()
    with pytest.raises(FileNotFoundError, match=r"w\.json: not found; it belongs to w\.safetensors"):
        load_weights(path)


@pytest.mark.parametrize(
    "content", ["[]", "{}", "", '{"sha256": ', "\xff", "[" * 200_000, '{"sha256": ' + "9" * 5000 + "}"], ids=range(7)
)
def test_damaged_json_is_named(tmp_path, content):
    path = tmp_path / "w.safetensors"
    save_weights(path, tensors(), {})
    path.with_suffix(".json").write_bytes(content.encode("latin-1"))
    with pytest.raises(WeightsError, match=r"w\.json: damaged .*again"):
        load_weights(path)


@pytest.mark.parametrize("ending", [".safetensors", ".npz", ".pth", ".pt"])
def test_reads_every_kind(tmp_path, ending):
    path, folder = tmp_path / f"w{ending}", tmp_path / f"folder{ending}"
    folder.mkdir()
    for missing in (path, folder):
        with pytest.raises(FileNotFoundError, match="there is no such file of weights; check the path"):
            read_tensors(missing)
    wanted = write(path)
    assert same(read_tensors(path), wanted) and same(read_tensors(str(path)), wanted)
    with pytest.raises(WeightsError, match=r"weights end in \.safetensors, \.npz, \.pth or \.pt"):
        read_tensors(tmp_path / f"w{ending.upper()}")


def test_floats_become_single_and_integers_stay(tmp_path):
    np.savez(tmp_path / "w.npz", half=np.float16([1.5]), double=np.float64([0.1]), whole=np.int32([3]))
    wanted = {"half": torch.tensor([1.5]), "double": torch.tensor([0.1]), "whole": torch.tensor([3], dtype=torch.int32)}
    assert same(read_tensors(tmp_path / "w.npz"), wanted)


class Mischief:
    """Unpickling it makes a file."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("kind", ["zip", "old", "npz"])
def test_code_in_a_file_is_refused_and_does_not_run(tmp_path, kind):
    """Nor that of a pickle under another name."""
    trace, path = tmp_path / "trace", tmp_path / ("w.npz" if kind == "npz" else "w.pth")
    for other in (tmp_path / "w.npz", tmp_path / "w.safetensors"):
        other.write_bytes(pickle.dumps(Mischief(trace)))
        with pytest.raises(WeightsError, match="damaged, or "):
            read_tensors(other)
    if kind == "npz":
        np.savez(path, a=np.array([Mischief(trace)], dtype=object))
    else:
        torch.save({"a": torch.zeros(3), "b": Mischief(trace)}, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(WeightsError, match=r"allow_pickle=False|more than tensors, which is not read"):
        read_tensors(path)
    assert not trace.exists()
    dict(np.load(path, allow_pickle=True)) if kind == "npz" else torch.load(path, weights_only=False)
    assert trace.exists(), "the file would have done it"


@pytest.mark.parametrize(
    "content",
    [torch.zeros(3), [torch.zeros(3)], {"model": {"a": 3}}, {0: torch.zeros(3)}, None],
    ids=repr,
)
def test_what_is_no_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"w\.pth: no tensors by name; save a state dict: torch\.save"):
        read_tensors(tmp_path / "w.pth")


@pytest.mark.parametrize("name, prefix", [("model", ""), ("state_dict", "module."), ("model_state_dict", "")])
def test_what_training_scripts_save(tmp_path, name, prefix):
    """Such as torchvision's, which keep their options beside the model; with DataParallel names begin differently."""
    state = {f"{prefix}{key}": value for key, value in tensors().items()}
    about = {"epoch": 3, "args": argparse.Namespace(lr=0.02, device="cpu"), "optimizer": {"state": {}, "lr": [0.1]}}
    torch.save({**about, name: state}, tmp_path / "w.pth")
    assert same(read_tensors(tmp_path / "w.pth"), tensors())


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(1).expand(10**6, 10**6),
        lambda: torch.zeros(1).half().as_strided((10**9, 10**3), (0, 0)),
        lambda: torch.zeros(10**6, 10**6, device="meta"),
        lambda: torch.sparse_coo_tensor(torch.zeros(2, 1).long(), torch.ones(1), (10**6, 10**6)),
        lambda: torch.zeros(5, 5).to_sparse_csr(),
        lambda: torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8),
    ],
    ids=["expanded", "strided", "meta", "sparse", "CSR", "quantized"],
)
def test_tensors_whose_numbers_are_not_in_the_file_are_refused(tmp_path, make):
    """What stands beside the weights, in no matter how many lists, is not looked at."""
    lists = ["a"]
    for _ in range(30):
        lists = [lists] * 10
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, about what it calls experimental; reading has to be silent
        torch.save({"model": {"module.a": torch.zeros(1), "b": make()}, "more": lists}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"w\.pth: b is sparse, quantized, nested or without numbers of its own"):
        read_tensors(tmp_path / "w.pth")


@pytest.mark.parametrize("ending", [".npz", ".pth"])
def test_a_file_that_unpacks_to_far_more_than_it_is_is_refused(tmp_path, ending):
    """80 MB of zeros in 0.1 MB; nothing of that is unpacked."""
    write(tmp_path / f"w{ending}")
    with zipfile.ZipFile(tmp_path / f"w{ending}") as archive:
        parts = {part.filename: archive.read(part) for part in archive.infolist()}
    with zipfile.ZipFile(tmp_path / f"w{ending}", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
        archive.writestr("more", bytes(8 * 10**7))
    tracemalloc.start()
    with pytest.raises(WeightsError, match=r"it claims 80,\d+,\d+ bytes of numbers, but the file has"):
        read_tensors(tmp_path / f"w{ending}")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10**7


def test_what_is_not_finite_in_the_file_is_not_written_over_a_good_one(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": torch.ones(3)}, {"what": "good"})
    before = path.read_bytes()
    for value in (torch.nan, torch.inf, 1e5):  # the last is beyond the range of half precision
        with pytest.raises(WeightsError, match=r"w\.safetensors: not written: a holds nan or infinity; what was there"):
            save_weights(path, {"a": torch.tensor([1.0, value]).half()}, {"what": "bad"})
    assert path.read_bytes() == before and load_weights(path)[1]["what"] == "good"


def network():
    torch.manual_seed(0)
    return nn.ModuleDict({"backbone": nn.Conv2d(1, 2, 3), "bn": nn.BatchNorm1d(2), "head": nn.Linear(4, 2)})


def other_weights():
    return {name: torch.full_like(value, 5) for name, value in network().state_dict().items()}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"head.bias": None}, r"my\.file: weights for another network: head\.bias is missing$"),
        ({"a\x1b[2J\nError: b\u202e": torch.zeros(1)}, r"network: a\?\[2J\?Error: b\? is not in the network$"),
        (
            {"head.bias": torch.zeros(3), "head.weight": None, "x": torch.zeros(1)},
            r"head\.bias has shape \(3,\), .* needs \(2,\); head\.weight is missing; x is not in the network$",
        ),
        (dict.fromkeys(other_weights()), r"backbone\.bias is missing; .* and 6 more$"),
    ],
)
def test_load_into_takes_all_or_nothing(change, message):
    module, before = network(), network().state_dict()
    given = {name: value for name, value in (other_weights() | change).items() if value is not None}
    with pytest.raises(WeightsError, match=message):
        load_into(module, given, "my.file")
    assert same(module.state_dict(), before)


def test_load_into_a_part_or_all():
    module, before, given = network(), network().state_dict(), other_weights()
    del given["head.bias"]
    load_into(module, given | {"tail": torch.zeros(1)}, "w", only="backbone.")
    for name, value in module.state_dict().items():
        assert torch.equal(value, given[name] if name.startswith("backbone.") else before[name]), name
    with pytest.raises(WeightsError, match=r"another network: backbone\.x is not in the network$"):
        load_into(module, other_weights() | {"backbone.x": torch.zeros(1)}, "w", only="backbone.")
    load_into(module, other_weights(), "w.npz")
    assert same(module.state_dict(), other_weights())


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache ä"
    monkeypatch.setenv("MINIRCNN_CACHE", str(folder))
    return folder


def test_cache_folder_is_the_users_choice(cache, monkeypatch, tmp_path):
    assert cache_folder() == cache
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setenv("MINIRCNN_CACHE", "")
    assert cache_folder() == tmp_path / ".cache" / "minircnn"


@pytest.fixture
def published(tmp_path):
    """A file that some server might offer: its address, and how its checksum begins."""
    file = tmp_path / "published.pth"
    file.write_bytes(b"weights" * 1000)
    return file, file.as_uri(), hashlib.sha256(file.read_bytes()).hexdigest()[:8]


def test_download_once(cache, published):
    file, url, digest = published
    place = download(url, digest, "7 kB")
    assert place == cache / "downloads" / "published.pth" and list(place.parent.iterdir()) == [place]
    place.write_bytes(file.read_bytes()[:-1])
    assert download(url, digest, "7 kB").read_bytes() == file.read_bytes(), "what is damaged is fetched again"
    file.unlink()  # whoever asks again will not find it there
    assert download(url, digest, "7 kB") == place


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/x.pth", "file:///no/such/x.pth", "nonsense://a/x.pth", "another checksum", "breaks off"]
)
def test_what_cannot_be_fetched_leaves_nothing_behind_and_says_what_to_do(cache, published, monkeypatch, url):
    def break_off(*args, **options):
        raise IncompleteRead(b"half")

    if url == "breaks off":
        monkeypatch.setattr("torch.hub.download_url_to_file", break_off)
    url = url if ":" in url else published[1]
    place = cache / "downloads" / url.rsplit("/", 1)[1]
    with pytest.raises(WeightsError) as caught:
        download(url, "0" * 8, "7 kB")
    message = str(caught.value)
    assert message.startswith(f"could not fetch {url} (")
    assert f"fetch this file (7 kB) on another machine and put it at {place}, or give its path" in message
    assert not list(place.parent.iterdir())
    place.parent.rmdir()
    place.parent.write_text("a file where the folder should be")
    with pytest.raises(WeightsError, match=r"could not fetch .*or give its path"):
        download(published[1], published[2], "7 kB")
