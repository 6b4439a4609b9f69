"""The tables of the data card, counted from the annotation files."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minircnn.datasets.toytown import CLASSES
from minircnn.files import write_atomically
from workshop.pages import as_markdown, with_section
from workshop.toytown.build import SPLITS
from workshop.toytown.layout import MIN_VISIBLE_SHARE
from workshop.toytown.photographs import PHOTOGRAPHS

MARKER = "tables: written by `python -m workshop.toytown --card`"


def card_tables(folder: Path) -> str:
    """The tables in Markdown, for the set in `folder`."""
    splits = [json.loads((folder / f"instances_{name}.json").read_text(encoding="utf-8")) for name in SPLITS]
    objects = [annotation for content in splits for annotation in content["annotations"]]
    of_class = {name: [a for a in objects if a["category_id"] == label] for label, name in enumerate(CLASSES) if label}
    names = sorted({image["background"] for content in splits for image in content["images"]})
    shown = [Counter(image["background"] for image in content["images"]) for content in splits]
    hidden = ["class", "whole", "75–99% visible", "50–75%", f"{MIN_VISIBLE_SHARE:.0%}"[:-1] + "–50%"]
    photographs = []
    for name, p in PHOTOGRAPHS.items():
        used = ", ".join(split for split, part in SPLITS.items() if name in part.photographs)
        photographs.append([name, f"{p.title} (`{p.file}`)", p.source, p.license, used])
    tables = {
        "**How many**": _table(["class", *SPLITS, "together"], _counts(splits)),
        "**How large**: the visible part, in pixels, all splits": _table(
            ["class", "width (min / median / max)", "height", "area", "width : height (10% / median / 90%)"],
            [[name, *_sizes(some)] for name, some in of_class.items()],
        ),
        "**How much can be seen** of an object, counted with its part outside the image": _table(
            [*hidden, "touches the image's edge"],
            [[name, *_visible(some)] for name, some in (of_class | {"all": objects}).items()],
        ),
        "**Backgrounds** (images)": _table(
            ["background", *SPLITS], [[name, *(counts[name] for counts in shown)] for name in names]
        ),
        "**Photographs**, all from inside scikit-image's wheel, licenses as its documentation states them": _table(
            ["photograph", "shows", "source", "license", "used in"], photographs, right=False
        ),
    }
    return "\n\n".join(f"{title}\n\n{table}" for title, table in tables.items())


def write_card(folder: Path, card: Path) -> None:
    """Replace the tables of the data card; for errors see :func:`workshop.pages.section_of`."""
    write_atomically(card, with_section(card, MARKER, [card_tables(folder)]).encode())


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]], right: bool = True) -> str:
    return as_markdown([header, *([str(cell) for cell in row] for row in rows)], right)


def _counts(splits: list[dict[str, Any]]) -> list[list[Any]]:
    of_class = [Counter(a["category_id"] for a in content["annotations"]) for content in splits]
    of_number = [Counter(Counter(a["image_id"] for a in content["annotations"]).values()) for content in splits]
    rows = [[f"{label} {name}", *(counts[label] for counts in of_class)] for label, name in enumerate(CLASSES) if label]
    rows += [[what, *(len(c[key]) for c in splits)] for what, key in (("objects", "annotations"), ("images", "images"))]
    for number in range(1, 7):
        rows.append([f"images with {number} object{'s' * (number > 1)}", *(counts[number] for counts in of_number)])
    return [[*row, sum(row[1:])] for row in rows]


def _sizes(objects: list[dict[str, Any]]) -> list[str]:
    width, height = np.array([a["bbox"][2:] for a in objects]).T
    values = (width, height, np.array([a["area"] for a in objects]))
    aspect = np.quantile(width / height, [0.1, 0.5, 0.9])
    ranges = [f"{v.min():.0f} / {np.median(v):.0f} / {v.max():.0f}" for v in values]
    return [*ranges, " / ".join(f"{v:.2f}" for v in aspect)]


def _visible(objects: list[dict[str, Any]]) -> list[str]:
    share = np.array([a["area"] / a["full_area"] for a in objects])
    x, y, width, height = np.array([a["bbox"] for a in objects]).T
    rows, columns = np.array([a["segmentation"]["size"] for a in objects]).T
    edge = (x <= 0) | (y <= 0) | (x + width >= columns) | (y + height >= rows)
    parts = [share > 0.99, (share <= 0.99) & (share > 0.75), (share <= 0.75) & (share > 0.5), share <= 0.5, edge]
    return [f"{np.mean(part):.0%}" for part in parts]
