"""Run notebooks and store their outputs, for those who read them without running anything.

Of an explorable the still is stored and not the reference to a widget, which no viewer could find.
"""

import argparse
import json
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from minircnn.files import write_atomically
from minircnn.shipped import PROJECT_FOLDER

FOLDER = PROJECT_FOLDER / "notebooks"
WIDGET = "application/vnd.jupyter.widget-view+json"


def execute(path: Path) -> None:
    """Run a notebook, and write it back once it has run to its end."""
    notebook = nbformat.read(path, as_version=4)
    options = {"timeout": 900, "record_timing": False, "store_widget_state": False, "coalesce_streams": True}
    NotebookClient(notebook, resources={"metadata": {"path": str(path.parent)}}, **options).execute()
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET, None)
    nbformat.validate(notebook)
    text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    write_atomically(path, text.encode())


def main() -> None:
    """Run all notebooks, or those whose numbers are given."""
    parser = argparse.ArgumentParser(prog="python -m workshop.notebooks", description=__doc__)
    parser.add_argument("numbers", nargs="*", help="such as 05 09")
    numbers = parser.parse_args().numbers
    for path in sorted(FOLDER.glob("[0-9][0-9]_*.ipynb")):
        if not numbers or path.name[:2] in numbers:
            print(path.name, flush=True)
            execute(path)


if __name__ == "__main__":
    main()
