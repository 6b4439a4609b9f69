"""``python -m workshop.history`` as it is called, and whether README and figures belong to the project's record."""

import io
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from PIL import Image

from minircnn.course.claims import gather
from minircnn.course.record import as_text, read_record, table
from minircnn.files import write_json
from workshop.history import __main__ as command
from workshop.history import measure
from workshop.history.__main__ import details, summary
from workshop.pages import section, section_of

ROOT = Path(__file__).parents[2]


def stored_fingerprint(png):
    """What the text in a file of a PNG says; None if there is none."""
    with Image.open(png) as image:
        return image.info.get("minircnn")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One image, without the papers' size and without trainings: what was printed, and the files."""
    folder, status, out = tmp_path_factory.mktemp("run"), 0, io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out):
        patch.setattr(measure, "LEAST_TRANSFER_IMAGES", 8)
        patch.setattr(measure, "MAX_PROPOSALS", 40)
        try:
            command.main(["--images", "1", "--no-scale", "--no-training", "--out", str(folder / "new")])
        except SystemExit as end:
            status = end.code
    return folder / "new", out.getvalue(), status


def test_an_image_gives_a_table_claims_and_files(run):
    folder, printed, status = run
    found = read_record(folder / "history.json")
    assert found["command"] == "python -m workshop.history --images 1 --no-scale --no-training"
    assert (found["images"], found["images_of_split"], found["machine"]["threads"]) == (1, 200, 1)
    assert found["paper_scale"] is None and found["training"] is None
    assert (found["transfer"]["images"], found["transfer"]["training_images"]) == (8, 12)
    assert as_text(table(found)) in printed and "only the first 1 of the 200 test images" in printed
    assert sorted(path.name for path in folder.iterdir()) == ["history.json", "history.png", "history_images.png"]
    assert stored_fingerprint(folder / "history.png") == command.fingerprint_of_record(found)
    assert stored_fingerprint(folder / "history_images.png") == command.fingerprint_of_weights()
    with Image.open(folder / "history.png") as image:
        assert image.size[0] == 900
    wrong = [line[2:5].strip() for line in printed.splitlines() if line.startswith("✗ S")]
    assert status == (f"Not borne out: {', '.join(wrong)}." if wrong else 0)


def test_a_record_is_reported_without_measuring(record, results, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "make_record", None)
    write_json(tmp_path / "x.json", record)
    command.main(["--read", str(tmp_path / "x.json")])
    printed = capsys.readouterr().out
    assert as_text(table(record)) in printed and "written" not in printed
    assert command.claims_as_text(results) in printed
    record["detectors"]["rcnn"]["recall"] = 0.5
    write_json(tmp_path / "x.json", record)
    with pytest.raises(SystemExit, match=r"^Not borne out: S3\.$"):
        command.main(["--read", str(tmp_path / "x.json")])
    with pytest.raises(SystemExit, match=r"^Error: the record was made with other weights than are there now"):
        command.main(["--read", str(tmp_path / "x.json"), "--out", str(tmp_path / "new")])


def test_update_renews_what_comes_with_the_project(run, tmp_path, monkeypatch):
    """In a folder that looks like a clone, with everything outside of the pages' markers as it was."""
    monkeypatch.setattr(command, "PROJECT_FOLDER", tmp_path)
    pages = {"README": tmp_path / "README.md", "PAGE": tmp_path / "docs" / "history.md"}
    for name, page in pages.items():
        monkeypatch.setattr(command, name, page)
        page.parent.mkdir(exist_ok=True)
        page.write_text(f"before ü\n\n{section('history', ['old'])}\n\nafter\n", encoding="utf-8")
    monkeypatch.setattr(command, "draw_scene", lambda: b"scene")
    try:
        command.main(["--read", str(run[0] / "history.json"), "--update"])
    except SystemExit as end:
        assert end.code == run[2]
    found = read_record(tmp_path / "data" / "results" / "history.json")
    assert found == read_record(run[0] / "history.json")
    for page, part in zip(pages.values(), (summary, details), strict=True):
        assert page.read_text(encoding="utf-8") == f"before ü\n\n{section('history', part(gather(found)))}\n\nafter\n"
    assert stored_fingerprint(tmp_path / "docs" / "history.png") == command.fingerprint_of_record(found)
    assert (tmp_path / "docs" / "history_images.png").read_bytes() == b"scene"


def test_pages_figures_and_card_of_the_project_belong_to_its_record():
    """After new weights or results: make history ARGS=--update."""
    record = read_record()
    for page, part in ((ROOT / "README.md", summary), (ROOT / "docs" / "history.md", details)):
        wanted = section("history", part(gather(record)))
        assert section_of(page, "history") == wanted, f"{page.name}: edited by hand? run make history ARGS=--update"
    assert stored_fingerprint(ROOT / "docs" / "history.png") == command.fingerprint_of_record(record)
    assert stored_fingerprint(ROOT / "docs" / "history_images.png") == command.fingerprint_of_weights(record)
    assert "| `results/history` |" in (ROOT / "data" / "README.md").read_text(encoding="utf-8")
