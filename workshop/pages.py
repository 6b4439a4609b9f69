"""Tables that programs write into pages, between two markers."""

from collections.abc import Sequence
from pathlib import Path


def as_markdown(rows: Sequence[Sequence[str]], right: bool = True) -> str:
    r"""A table for Markdown; the first row is its head. With ``right`` all columns but the first are for numbers.

    >>> print(as_markdown([["", "A"], ["a | b", "1"]]))
    | | A |
    | --- | --: |
    | a \| b | 1 |
    """
    head, *others = [[cell.strip().replace("|", "\\|") for cell in row] for row in rows]
    marks = ["---", *["--:" if right else "---"] * (len(head) - 1)]
    return "\n".join(
        "|" + "|".join(f" {cell} " if cell else " " for cell in row) + "|" for row in [head, marks, *others]
    )


def section(name: str, parts: Sequence[str]) -> str:
    """Paragraphs between their markers ``<!-- name -->`` and ``<!-- /name -->``."""
    return "\n\n".join([f"<!-- {name} -->", *parts, f"<!-- /{name} -->"])


def section_of(page: Path, name: str) -> str:
    """What stands in a page, markers included.

    Raises:
        ValueError: the markers are not there, each once and in order.
    """
    text, (start, end) = page.read_text(encoding="utf-8"), section(name, []).split("\n\n")
    if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
        raise ValueError(f"{page}: one line {start} and below it one line {end} are needed, between which tables go")
    return text[text.index(start) : text.index(end) + len(end)]


def with_section(page: Path, name: str, parts: Sequence[str]) -> str:
    """The text of a page with other paragraphs between its markers; see :func:`section_of`."""
    return page.read_text(encoding="utf-8").replace(section_of(page, name), section(name, parts))
