"""What users rely on stays: the names that notebooks and README import, the commands and their options."""

import importlib
import json

from tests import interface

RECORD = json.loads(interface.FILE.read_text(encoding="utf-8"))


def test_names_can_be_imported():
    for name in RECORD["names"]:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute) or importlib.import_module(name)


def test_commands_and_their_options_stay_and_the_record_is_complete():
    """Whoever adds a name to a notebook, or an option to a command, adds it here: python -m tests.interface."""
    assert set(interface.imported_names()) <= set(RECORD["names"])
    now, before = (
        {words: set(opts) for words, opts in one.items()} for one in (interface.commands(), RECORD["commands"])
    )
    assert now == before
