"""The notebooks for Google Colab, where nothing of the project is installed and no file lies beside a notebook.

They are those of `minircnn course`, without outputs; a first cell fetches the project and installs what is missing,
and links lead to GitHub. The workflow of the site puts them on a branch of their own, so that the notebooks in the
project begin with their subject, and no repository's name stands in them.
"""

import argparse
import os
import re
from pathlib import Path

import nbformat

from minircnn.course.working_copy import make_working_copy
from minircnn.shipped import PROJECT_FOLDER

FOLDER = PROJECT_FOLDER / "build" / "colab"
BRANCH = "colab"
LINK = re.compile(r"\]\(([^):#]+)(#[^)]*)?\)")
# The folder's name is none that Python could import in place of the package inside it.
INSTALL = """\
# Run this cell first: it fetches the course and installs what is missing, which takes a minute or two.
import importlib.util
import subprocess
import sys
from pathlib import Path

if importlib.util.find_spec("minircnn") is None:
    project = Path("minircnn-course").resolve()
    if not project.exists():
        subprocess.run(["git", "clone", "--quiet", "--depth", "1", "{address}", project], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "-e", project, "anywidget"], check=True)
    sys.path.insert(0, str(project))  # an installation is otherwise seen after a restart only"""


def write_notebooks(folder: Path, repository: str) -> list[Path]:
    """Write the notebooks for a repository, "owner/name" on GitHub, into a folder that is empty or not there yet."""
    made, _ = make_working_copy(folder)
    for path in made:
        if path.suffix != ".ipynb":
            path.unlink()  # links lead to those of the project
            continue
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = with_addresses(cell.source, repository)
        install = nbformat.v4.new_code_cell(INSTALL.format(address=f"https://github.com/{repository}"))
        install.id = "install"
        notebook.cells.insert(0, install)
        path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    return [path for path in made if path.exists()]


def with_addresses(text: str, repository: str) -> str:
    """Links to notebooks open them in Colab, those to other files of the project show them on GitHub."""

    def address(found: re.Match[str]) -> str:
        path, part = found[1], found[2] or ""
        if path.endswith(".ipynb"):
            return f"]({colab(repository, path)}{part})"
        path = os.path.normpath(os.path.join("notebooks", path)).replace(os.sep, "/")  # noqa: PTH118 (of a link)
        return f"](https://github.com/{repository}/blob/main/{path}{part})"

    return LINK.sub(address, text)


def colab(repository: str, name: str) -> str:
    """Where a notebook opens in Colab."""
    return f"https://colab.research.google.com/github/{repository}/blob/{BRANCH}/{name}"


def main() -> None:
    """Write all of them."""
    parser = argparse.ArgumentParser(prog="python -m workshop.colab", description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="FOLDER", help="(default: %(default)s)")
    known = os.environ.get("GITHUB_REPOSITORY")
    parser.add_argument("--repository", default=known, required=not known, metavar="OWNER/NAME", help="on GitHub")
    options = parser.parse_args()
    print(f"{len(write_notebooks(options.out, options.repository))} notebooks in {options.out}")


if __name__ == "__main__":
    main()
