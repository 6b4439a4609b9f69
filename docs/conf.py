"""Sphinx's settings for the site; ``python -m workshop.site`` gathers its pages and builds it."""

from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert

project = "minircnn"
author = "The minircnn contributors"
copyright = author
html_title = "minircnn"
html_theme = "sphinx_book_theme"
html_show_sphinx = False
html_copy_source = False
html_static_path = ["static"]
html_css_files = ["site.css"]
html_favicon = "static/icon.svg"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton"]
exclude_patterns = ["conf.py"]

nb_execution_mode = "off"  # notebooks as they are stored
nb_render_markdown_format = "myst"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "html_image"]
myst_heading_anchors = 4
html_context = {"default_mode": "auto"}
html_theme_options = {"use_download_button": False, "show_toc_level": 2, "show_navbar_depth": 1}

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signature has them
autodoc_default_options = {"members": True, "exclude-members": "forward"}
napoleon_custom_sections = ["Paper vs code"]
viewcode_line_numbers = True
viewcode_follow_imported_members = False


def _as_mathml(writer, node, inline):  # noqa: ANN001, ANN202 - what Sphinx hands over
    """Mathematics that every browser draws on its own: no script, no network."""
    formula = convert(node.astext(), display="inline" if inline else "block")
    writer.body.append(formula if inline else f'<div class="formula">{formula}</div>')
    raise nodes.SkipNode


def _name_toggles(app, error):  # noqa: ANN001, ANN202
    """Give the theme's toggles of the table of contents a name that is read aloud."""
    for path in () if error else Path(app.outdir).rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("<summary><span", '<summary aria-label="its pages"><span'), encoding="utf-8")


def setup(app):  # noqa: ANN001, ANN201
    """Have formulas written as MathML."""
    app.add_html_math_renderer(
        "mathml",
        (lambda self, node: _as_mathml(self, node, True), None),
        (lambda self, node: _as_mathml(self, node, False), None),
    )
    app.config.html_math_renderer = "mathml"
    app.connect("build-finished", _name_toggles)
