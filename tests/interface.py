"""What users rely on: the names that notebooks and README import, and the commands with their options.

``python -m tests.interface`` in the project's folder writes the record anew; a name that goes from it goes on purpose.
"""

import ast
import json
import re
from pathlib import Path

import nbformat
from typer.main import get_command

from minircnn.cli import app

ROOT = Path(__file__).parent.parent
FILE = Path(__file__).with_name("interface.json")


def imported_names():
    """``module.name`` for every name of the package that a notebook or the page on own data imports."""
    sources = [
        cell.source
        for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "code"
    ]
    sources += re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "own_data.md").read_text(encoding="utf-8"), re.DOTALL
    )
    names = set()
    for source in sources:
        lines = [line for line in source.splitlines() if not line.lstrip().startswith(("%", "!"))]
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "minircnn":
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names if alias.name.split(".")[0] == "minircnn"}
    return sorted(names)


def commands():
    """The arguments and options of each command, by its words: ``{"train rcnn": ["--out", …], …}``."""
    found = {}

    def walk(command, words):
        if hasattr(command, "commands"):
            for name, inner in command.commands.items():
                walk(inner, [*words, name])
        else:
            opts = [opt for one in command.params for opt in (*one.opts, *one.secondary_opts)]
            found[" ".join(words)] = sorted(opts)

    walk(get_command(app), [])
    return found


if __name__ == "__main__":
    record = {"names": imported_names(), "commands": commands()}
    FILE.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
