"""The cache finds what it has and nothing that has become stale."""

import importlib.util
import math
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from minircnn.alexnet import SMALL, AlexNet
from minircnn.cache import Cache, code_fingerprint, fingerprint, module_fingerprint

FIXED = "ee5f5b9edc8107717837c3f597668f90"

FOUR = torch.tensor([1.0, 2.0, 3.0, 4.0])
# No two of these may share a name. Each stands beside another from which it differs in one respect.
PARTS = [
    *[("fc7", "fc71"), ("fc", "77", "1"), ("fc7 1",), ("fc\0007", "1")],  # words, cut elsewhere
    *[("fc7", 1), (1, "fc7"), ("fc7", "1"), ("fc7", 1.5), ("fc7", math.nextafter(1.5, 2))],
    *[("fc7", None), ("fc7", "null"), ()],
    *[(FOUR,), (FOUR.view(torch.int32),)],  # the same bytes
    *[(FOUR.double(),), (FOUR.double() + torch.tensor([0, 0, 0, 1e-15]),)],
    *[(FOUR.view(2, 2),), (FOUR.view(2, 2).T,), (FOUR[:2], FOUR[2:]), (FOUR[:1], FOUR[1:])],
    *[(torch.tensor(1.0),), (torch.tensor([1.0]),), (torch.zeros(0),), (torch.zeros(0, 4),)],
]


def test_what_differs_has_another_name():
    names = [fingerprint(*parts) for parts in PARTS]
    assert [PARTS[place] for place, name in enumerate(names) if name in names[:place]] == []
    assert all(len(name) == 32 and int(name, 16) >= 0 for name in names)


def test_what_is_equal_has_the_same_name():
    grid = torch.arange(24.0).reshape(2, 3, 4)
    wanted = fingerprint(grid, "a")
    assert fingerprint(grid.clone(), "a") == wanted
    assert fingerprint(grid.permute(2, 0, 1).contiguous().permute(1, 2, 0), "a") == wanted
    assert fingerprint(torch.cat([grid, grid])[:2], "a") == wanted
    assert fingerprint(grid.clone().requires_grad_(), "a") == wanted
    images = torch.rand(2, 3, 4, 5)
    assert fingerprint(images.to(memory_format=torch.channels_last)) == fingerprint(images)
    # Names hang on nothing that a program draws at random, or no run would find what another has stored.
    assert fingerprint("fc7", 1, 0.5, None, torch.arange(4), torch.tensor(2.5)) == FIXED
    with pytest.raises(TypeError, match="not JSON serializable"):
        fingerprint(object())


def network(**changes):
    torch.manual_seed(0)
    return AlexNet(replace(SMALL, **changes), 3)


def test_module_fingerprint_changes_with_one_number_or_setting():
    wanted = module_fingerprint(network())
    assert module_fingerprint(network()) == module_fingerprint(network().eval()) == wanted
    for changes in ({"mean": (0.4, 0.45, 0.45)}, {"blue_first": True}, {"dropout": 0.1}):
        assert module_fingerprint(network(**changes)) != wanted
    for name in ("backbone.conv3.weight", "fc8.bias"):
        changed = network()
        changed.state_dict()[name].view(-1)[-1] += 1e-6
        assert module_fingerprint(changed) != wanted, name
    swapped = network()  # the same weights, but elsewhere
    swapped.backbone.conv3, swapped.backbone.conv4 = swapped.backbone.conv4, swapped.backbone.conv3
    assert module_fingerprint(swapped) != wanted


def package(folder, **files):
    """A package of Python files that is loaded from a folder: its module object, new each time."""
    folder.mkdir(exist_ok=True)
    for name, content in {"__init__": "", **files}.items():
        path = folder / f"{name.replace('__in__', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(folder.name, folder / "__init__.py")
    return importlib.util.module_from_spec(spec)


def test_code_fingerprint_changes_with_every_file(tmp_path):
    base = {"one": "x = 1\n", "two": "y = 'ä'\n", "sub__in__three": "z = 3\n"}
    first = code_fingerprint(package(tmp_path / "first", **base))
    (tmp_path / "same").mkdir()
    (tmp_path / "same" / "notes.txt").write_text("no code")
    assert code_fingerprint(package(tmp_path / "same", **base)) == first, "where it lies does not matter"
    changes = [{"one": "x = 2\n"}, {"sub__in__three": "z = 3  # why\n"}, {"__init__": "import os\n"}, {"four": ""}]
    changes.append({"one": "", "two": "x = 1\ny = 'ä'\n"})  # a line that has moved
    names = [code_fingerprint(package(tmp_path / f"{n}", **{**base, **change})) for n, change in enumerate(changes)]
    assert len({first, *names}) == len(names) + 1
    assert code_fingerprint(package(tmp_path / "first", **{**base, "one": "x = 2\n"})) == names[0], "changed in place"


def test_code_fingerprint_of_one_file_and_versions(tmp_path, monkeypatch):
    def name(neighbor):
        package(tmp_path / "p", one="x = 1\n", two=neighbor)
        spec = importlib.util.spec_from_file_location("one", tmp_path / "p" / "one.py")
        return code_fingerprint(importlib.util.module_from_spec(spec))

    wanted = name("y = 1\n")
    assert name("y = 2\n") == wanted, "its neighbors do not count"
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "99" if name == "numpy" else version(name))
    assert name("y = 1\n") != wanted


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_the_same_parts_are_found_again_without_computing(tmp_path):
    result = {"boxes": torch.rand(3, 4, dtype=torch.float64), "turned": torch.rand(2, 3).T, "none": torch.zeros(0, 4)}
    result |= {"one": torch.tensor(3), "flags": torch.tensor([True, False]), "half": torch.tensor([0.1]).half()}
    compute = Mock(return_value=result)
    for cache in (Cache(tmp_path), Cache(str(tmp_path)), Cache(tmp_path)):
        for parts in PARTS[::3]:
            found = cache.get("features", tuple(torch.clone(p) if torch.is_tensor(p) else p for p in parts), compute)
            assert found.keys() == result.keys()
            for name, value in result.items():
                assert torch.equal(found[name], value) and found[name].dtype == value.dtype
    assert compute.call_count == len(files(tmp_path / "features")) == len(PARTS[::3])


def test_another_kind_or_folder_is_another_result(tmp_path, monkeypatch):
    for kind, number in (("a", 1), ("b", 2), ("a", 1)):
        found = Cache(tmp_path).get(kind, ("k",), lambda number=number: {"x": torch.tensor([number])})
        assert found["x"].tolist() == [number]
    monkeypatch.setenv("MINIRCNN_CACHE", str(tmp_path / "mine"))
    part = torch.ones(10**6, requires_grad=True)[:2]
    for _ in range(2):
        found = Cache().get("c", (), lambda: {"x": part * 1, "y": part.detach()})
        assert not found["x"].requires_grad and found["y"].tolist() == [1, 1]
    (path,) = files(tmp_path / "mine" / "results" / "c")
    assert path.stat().st_size < 10_000, "of a large tensor its part alone"


def test_what_fails_is_not_stored(tmp_path):
    def fails():
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        Cache(tmp_path).get("a", ("k",), fails)
    assert not files(tmp_path)


def test_without_a_place_for_it_results_are_computed_each_time(tmp_path, monkeypatch):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("MINIRCNN_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    (tmp_path / "file").touch()
    for cache, reason in ((Cache(), r"no home directory"), (Cache(tmp_path / "file"), f"{tmp_path}/file: ")):
        compute = Mock(return_value={"x": torch.arange(5.0)})
        with pytest.warns(UserWarning, match=f"computed again next time: {reason}"):
            for _ in range(2):
                assert cache.get("a", ("k",), compute)["x"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
        assert compute.call_count == 2
