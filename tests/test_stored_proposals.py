"""The proposals of a data set: those of selective search, found once."""

import pytest
import torch

import minircnn.selective_search as ss
from minircnn.cache import Cache


def some_pictures():
    random = torch.Generator().manual_seed(0)
    return [
        (torch.rand(3, 8, 6 + i, generator=random).repeat_interleave(5, 1).repeat_interleave(5, 2), None)
        for i in range(4)
    ]


@pytest.mark.parametrize("workers", [1, 2])
def test_stored_proposals_are_those_of_selective_search(tmp_path, workers):
    samples = some_pictures()
    found = ss.stored_proposals(samples, cache=Cache(tmp_path), workers=workers)
    assert len(found) == len(samples)
    for (image, _), boxes in zip(samples, found, strict=True):
        assert torch.equal(boxes, ss.selective_search(image))


def test_stored_proposals_are_found_once_and_never_stale(tmp_path, monkeypatch):
    samples, cache, calls = some_pictures(), Cache(tmp_path), []
    original = ss.selective_search
    monkeypatch.setattr(ss, "selective_search", lambda image, **options: calls.append(1) or original(image, **options))
    first = ss.stored_proposals(samples, cache=cache)
    again = ss.stored_proposals(samples, cache=cache, max_proposals=3)
    assert len(calls) == 4
    assert all(torch.equal(a[:3], b) for a, b in zip(first, again, strict=True))
    ss.stored_proposals([(samples[0][0] * 0.5, None), *samples[1:]], cache=cache)
    assert len(calls) == 5  # another picture
    ss.stored_proposals(samples, cache=cache, strategies=ss.SINGLE)
    assert len(calls) == 9  # another strategy
    assert ss.stored_proposals([], cache=cache) == []
