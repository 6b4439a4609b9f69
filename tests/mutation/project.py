"""A copy of the project in which bugs may be planted, and a process that runs its tests (driver.py)."""

import compileall
import json
import os
import py_compile
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


class Project:
    """A copy in a folder, and a process that runs tests of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("minircnn", "workshop", "tests"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        (folder / "data").symlink_to(ROOT / "data")  # trainings in small read some images
        # Bytecode that is checked by a hash: by time and size, a file that changes twice in a second seems the same.
        compileall.compile_dir(folder, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
        # What this very run of pytest, or of coverage, tells its own processes must not reach the other one.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV"))}
        self.process = subprocess.Popen(
            [sys.executable, str(folder / "tests" / "mutation" / "driver.py"), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**environment, "OMP_NUM_THREADS": "1"},
        )

    def run(self, tests: Iterable[str]) -> dict | None:
        """What driver.run_tests says of these tests, or None where it did not come to an end."""
        self.process.stdin.write(json.dumps(list(tests)) + "\n")
        self.process.stdin.flush()
        result = json.loads(self.process.stdout.readline())
        if result and result["package"]:
            assert Path(result["package"]) == self.folder / "minircnn" / "__init__.py", "another copy was tested"
        return result

    def output(self) -> str:
        """What pytest printed last."""
        return (self.folder / "output.txt").read_text(encoding="utf-8", errors="replace")

    def close(self) -> None:
        """Ends the process."""
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(60)
