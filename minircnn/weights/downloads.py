"""Weights that others have published: fetched once, checked, kept."""

import os
from http.client import HTTPException
from pathlib import Path

import torch

from minircnn.files import first_line, sha256
from minircnn.weights.tensors import WeightsError


def cache_folder() -> Path:
    """Where downloads and what takes long to compute are kept: ``MINIRCNN_CACHE``, or a folder of the user's.

    Everything in it can be deleted at any time, and is then fetched or computed again.

    Raises:
        FileNotFoundError: this user has no home directory, and ``MINIRCNN_CACHE`` names no other place.
    """
    chosen = os.environ.get("MINIRCNN_CACHE")
    try:
        return Path(chosen) if chosen else Path.home() / ".cache" / "minircnn"
    except RuntimeError as error:
        raise FileNotFoundError(f"no home directory ({error}); name a folder in MINIRCNN_CACHE") from error


def download(url: str, sha256_prefix: str, size: str) -> Path:
    """Fetches a file of weights once, with a progress bar, and keeps it in :func:`cache_folder`.

    Args:
        url: where it is published.
        sha256_prefix: how the file's checksum begins. What does not match is not kept.
        size: how large it is, for the message.

    Returns:
        Where it lies now.

    Raises:
        WeightsError: it could not be fetched (no network?), or is not what was published. Nothing is left behind.
    """
    target = cache_folder() / "downloads" / url.rsplit("/", 1)[-1]
    if target.is_file() and sha256(target).startswith(sha256_prefix):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(target), hash_prefix=sha256_prefix)
    except (OSError, HTTPException, RuntimeError, ValueError) as error:
        raise WeightsError(
            f"could not fetch {url} ({first_line(error)}). Without a network: fetch this file ({size}) on another "
            f"machine and put it at {target}, or give its path"
        ) from error
    return target
