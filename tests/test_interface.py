"""What users rely on stays: the names that notebooks and README import, the commands and their options."""

import importlib
import json

import pytest

from tests import interface

RECORD = json.loads(interface.FILE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", RECORD["names"])
def test_names_can_be_imported(name):
    module, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(module), attribute) or importlib.import_module(name)


def test_commands_have_their_options():
    now = interface.commands()
    lost = {words: sorted(set(opts) - set(now.get(words, []))) for words, opts in RECORD["commands"].items()}
    assert not {words: opts for words, opts in lost.items() if opts or words not in now}


def test_the_record_is_complete():
    """Whoever adds a name to a notebook, or an option to a command, adds it here: python -m tests.interface."""
    assert set(interface.imported_names()) <= set(RECORD["names"])
    now = interface.commands()
    assert {words: set(opts) for words, opts in now.items()} == {
        words: set(RECORD["commands"].get(words, [])) for words in now
    }
