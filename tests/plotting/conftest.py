"""All images are drawn without a screen, and pages are read by a program that knows nothing of what wrote them."""

from html.parser import HTMLParser

import matplotlib
import pytest
from matplotlib import pyplot as plt

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def close_figures():
    """Each test leaves no figure and no changed setting behind."""
    settings = dict(matplotlib.rcParams)
    yield
    plt.close("all")
    assert dict(matplotlib.rcParams) == settings


VOID = {"meta", "img", "br", "hr", "link", "input"}


class Reader(HTMLParser):
    """A page as a tree reader sees it: the text of each element, in order, and every attribute."""

    def __init__(self, page):
        super().__init__()
        self.open, self.elements, self.problems = [], [], []
        self.feed(page)
        self.close()
        self.problems += [f"{tag} is not closed" for tag, _ in self.open]

    def handle_starttag(self, tag, attributes):
        element = {"tag": tag, "text": "", **dict(attributes)}
        if len({name for name, _ in attributes}) < len(attributes):
            self.problems.append(f"{tag} has an attribute twice")
        self.elements.append(element)
        if tag not in VOID:
            self.open.append((tag, element))

    def handle_endtag(self, tag):
        if not self.open or self.open[-1][0] != tag:
            self.problems.append(f"</{tag}> closes nothing")
        else:
            self.open.pop()

    def handle_data(self, data):
        for _, element in self.open:
            element["text"] += data

    def all(self, *tags):
        return [element for element in self.elements if element["tag"] in tags]

    def texts(self, *tags):
        return [element["text"] for element in self.all(*tags)]
