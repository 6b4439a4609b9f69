"""Pages as a browser would read them: what is escaped, what is refused, and how pictures get their size."""

import io
import re

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image

from minircnn.cli.page import Panel, Section, panel_png, picture_page
from minircnn.plotting import show_image
from tests.plotting.conftest import Reader


def png(width, height):
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "png")
    return buffer.getvalue()


def test_a_page_escapes_all_that_it_is_given():
    """Everywhere the same difficult text; a browser has to read it back as it was, and code only where it is meant."""
    text = "</h1><script>\"x\"='y'&amp;&#39; $title ${content} $ é\u202f日"
    panel = Panel(text, png(7, 1), text, text, {text: text})
    page = picture_page(
        text, [text, "say `make <x>` & `y`"], [Section(text, [text], [[panel]], [text])], generator=text
    )
    reader = Reader(page)
    assert not reader.problems and not reader.all("script")
    assert set(reader.texts("title", "h1", "h2", "h3", "li", "dt", "dd")) == {text}
    assert reader.all("img")[0]["alt"] == text
    assert (reader.all("img")[0]["width"], reader.all("img")[0]["height"]) == ("4", "1"), "never 0"
    assert reader.texts("code") == ["make <x>", "y"]
    assert reader.texts("p") == [text, "say make <x> & y", text, text]
    assert [meta["content"] for meta in reader.all("meta") if meta.get("name") == "generator"] == [text]


def test_a_page_refuses_pictures_without_a_description_and_other_files():
    for panel, message in [
        (Panel("x", png(2, 2), "  "), "x: alt is empty"),
        (Panel("x", b"GIF89a" + bytes(40), "y"), "x: its picture is no PNG"),
        (Panel("x", png(2, 2)[:20], "y"), "x: its picture is no PNG"),
    ]:
        with pytest.raises(ValueError, match=message):
            picture_page("t", [], [Section("s", [], [[panel]])], generator="g")


def test_the_first_row_has_the_paragraphs_beside_it_and_a_section_without_rows_has_them_below_its_heading():
    one, other = Panel("A", png(2, 2), "a"), Panel("B", png(2, 2), "b")
    page = picture_page(
        "t", [], [Section("s", ["words"], [[one], [other, one]]), Section("u", ["more"])], generator="g"
    )
    reader = Reader(page)
    assert not reader.problems
    wanted = ["row", "beside", "row"]
    assert [element["class"] for element in reader.all("div")] == wanted
    assert [element["text"].split() for element in reader.all("div")] == [["A", "words"], ["words"], ["B", "A"]]
    assert [element["text"].split() for element in reader.all("section")] == [
        ["s", "A", "words", "B", "A"],
        ["u", "more"],
    ]


def test_a_panels_picture_has_two_dots_for_each_pixel_whatever_the_readers_settings_are():
    with matplotlib.rc_context({"savefig.bbox": "tight"}):
        picture = panel_png(show_image(torch.rand(3, 20, 30), width=1.5))
    assert not plt.get_fignums()
    with Image.open(io.BytesIO(picture)) as file:
        assert file.size == (300, 200) and np.asarray(file.convert("L")).std() > 10
    (image,) = Reader(picture_page("t", [], [Section("s", [], [[Panel("x", picture, "y")]])], generator="g")).all("img")
    assert (image["width"], image["height"]) == ("150", "100")


@pytest.fixture
def page():
    return picture_page("t", [], [], generator="g")


def test_colours_can_be_read_in_light_and_in_dark(page):
    """Web Content Accessibility Guidelines 2.1: a contrast of at least 4.5 between text and what lies below it."""

    def luminance(colour):
        digits = "".join(2 * digit for digit in colour) if len(colour) == 3 else colour
        values = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    blocks = re.findall(r":root \{(.*?)\}", page)
    schemes = [dict(re.findall(r"--(\w+): #(\w+)", block)) for block in blocks]
    assert len(schemes) == 2 and page.index("prefers-color-scheme: dark") < page.index(blocks[1])
    assert luminance(schemes[0]["paper"]) > 0.8 > 0.1 > luminance(schemes[1]["paper"])
    for scheme in schemes:
        for text in ("ink", "quiet"):
            for below in ("paper", "card"):
                low, high = sorted([luminance(scheme[text]), luminance(scheme[below])])
                assert (high + 0.05) / (low + 0.05) >= 4.5
