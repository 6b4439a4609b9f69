"""``minircnn history`` as users call it."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from minircnn.cli import app
from minircnn.files import sha256, write_json
from minircnn.history import as_text, claims_as_text, gather, read_record, record, table
from minircnn.history.figures import fingerprint_of_record, fingerprint_of_weights
from minircnn.history.report import END, START, section
from tests.history.conftest import stored_fingerprint


def call(*arguments):
    result = CliRunner().invoke(app, ["history", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two pictures, without the papers' size and without trainings: the table, the claims and the files."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "README.md").write_text(f"# Mine\n\n{START}\n{END}\n", encoding="utf-8")
    options = ("--pictures", 2, "--no-scale", "--no-training", "--out", folder / "new", "--json", folder / "x.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record, "_LEAST_TRANSFER_PICTURES", 12)
        result = call(*options, "--readme", folder / "README.md")
    return folder, result


def test_two_pictures_give_a_table_claims_and_files(run):
    folder, result = run
    found = read_record(folder / "new" / "history.json")
    assert found["command"] == "minircnn history --pictures 2 --no-scale --no-training"
    assert (found["pictures"], found["pictures_of_split"]) == (2, 200)
    assert found["paper_scale"] is None and found["training"] is None
    assert (found["transfer"]["pictures"], found["transfer"]["training_pictures"]) == (12, 18)
    results = gather(found)
    assert as_text(table(found)) in result.stdout
    assert claims_as_text(results) in result.stdout
    assert "only the first 2 of the 200 test pictures" in result.stdout.replace("\n", " ")
    assert sorted(path.name for path in (folder / "new").iterdir()) == [
        *("history.json", "history.png", "history_pictures.png")
    ]
    assert stored_fingerprint(folder / "new" / "history.png") == fingerprint_of_record(found)
    assert stored_fingerprint(folder / "new" / "history_pictures.png") == fingerprint_of_weights()
    assert json.loads((folder / "x.json").read_text()) == found
    assert (folder / "README.md").read_text(encoding="utf-8") == f"# Mine\n\n{section(results)}\n"
    for name in ("x.json", "new/history.json", "new/history.png", "new/history_pictures.png", "README.md"):
        assert f"written to {folder / name}\n" in result.stdout
    assert not list(folder.rglob("*.part"))


def test_numbers_are_those_of_the_detectors(run, models, samples, toytown):
    """Accuracy of the two pictures, once more with ``detect``."""
    from minircnn.evaluation import evaluate

    found = read_record(run[0] / "new" / "history.json")
    two = samples[:2]
    detections = [models["faster_rcnn"].detect([image])[0] for image, _ in two]
    result = evaluate(detections, [target for _, target in two], classes=toytown.classes)
    assert found["detectors"]["faster_rcnn"]["box"] == {"ap": result.ap, "ap50": result.ap50, "ap75": result.ap75}
    assert found["detectors"]["mask_rcnn"]["mask"]["ap50"] > 0.3
    objects = sum(len(target["labels"]) for _, target in two)
    assert found["scenes"]["objects"] == objects / 2


def test_exit_status_says_whether_the_claims_hold(run, tmp_path):
    _, result = run
    wrong = [line[2:5].strip() for line in result.stdout.splitlines() if line.startswith("✗ S")]
    assert result.exit_code == (1 if wrong else 0)
    assert (result.stderr == f"Not borne out: {', '.join(wrong)}.\n") if wrong else not result.stderr


def test_a_record_is_reported_without_measuring(run, record, tmp_path, monkeypatch):
    monkeypatch.setattr("minircnn.history.make_record", None)
    write_json(tmp_path / "x.json", record)
    result = call("--read", tmp_path / "x.json")
    assert result.exit_code == 0, result.output
    assert as_text(table(record)) in result.stdout and "written" not in result.stdout
    record["detectors"]["rcnn"]["recall"] = 0.5
    write_json(tmp_path / "x.json", record)
    result = call("--read", tmp_path / "x.json", "--json", tmp_path / "y.json")
    assert (result.exit_code, result.stderr) == (1, "Not borne out: S3.\n")
    assert read_record(tmp_path / "y.json") == record, "files are written all the same"


def test_figures_of_other_weights_are_not_drawn(record, tmp_path):
    write_json(tmp_path / "x.json", record)
    result = call("--read", tmp_path / "x.json", "--out", tmp_path / "new")
    assert result.exit_code == 2
    assert "Error: the record was made with other weights than are there now: measure again" in result.stderr
    assert not (tmp_path / "new").exists()


def test_update_renews_what_comes_with_the_project(run, tmp_path, monkeypatch):
    """In a folder that looks like a clone."""
    results = tmp_path / "data" / "results" / "history.json"
    monkeypatch.setattr("minircnn.cli.history.PROJECT_FOLDER", tmp_path)
    (tmp_path / "docs").mkdir()
    results.parent.mkdir(parents=True)
    result = call("--read", run[0] / "new" / "history.json", "--update")
    assert result.exit_code == 2 and "--update: the package does not lie in a clone" in result.stderr
    (tmp_path / "README.md").write_text(f"{START}{END}", encoding="utf-8")
    assert call("--read", run[0] / "new" / "history.json", "--update").exit_code in (0, 1)
    found = read_record(results)
    assert found == read_record(run[0] / "new" / "history.json")
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == section(gather(found))
    assert stored_fingerprint(tmp_path / "docs" / "history.png") == fingerprint_of_record(found)
    assert sha256(tmp_path / "docs" / "history_pictures.png") == sha256(run[0] / "new" / "history_pictures.png")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--read", "x.json", "--pictures", 3], "--read x.json: nothing is measured; leave --pictures"),
        (["--read", "x.json", "--no-scale"], "--read x.json: nothing is measured"),
        (["--out", "file"], "--out file: this is a file; name a folder"),
        (["--out", "none/new"], "--out none/new: the folder none does not exist; make it first"),
        (["--json", "folder"], "--json folder: this is a folder; name a file in it"),
        (["--json", "none/x.json"], "--json none/x.json: the folder none does not exist"),
        (["--readme", "none.md"], "--readme none.md: there is no such file; name a README"),
    ],
)
def test_what_is_refused_before_any_work(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr("minircnn.history.make_record", None)
    result = call(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"Error: {message}" in result.stderr


def test_files_that_do_not_fit_are_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr("minircnn.history.make_record", None)
    (tmp_path / "x.md").write_text("no markers")
    result = call("--readme", tmp_path / "x.md")
    assert result.exit_code == 1 and "x.md: one line <!-- history -->" in result.stderr
    result = call("--read", tmp_path / "none.json")
    assert result.exit_code == 1 and "none.json: there is no such file" in result.stderr


def test_neither_help_nor_a_refusal_waits_for_pytorch(tmp_path):
    code = (
        "import sys; from typer.testing import CliRunner; from minircnn.cli import app\n"
        "assert '--update' in CliRunner().invoke(app, ['history', '--help']).output\n"
        "assert CliRunner().invoke(app, ['history', '--out', 'none/new']).exit_code == 2\n"
        "print([name for name in ('torch', 'numpy', 'matplotlib', 'PIL') if name in sys.modules])"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert process.stdout == "[]\n"


def test_more_pictures_than_there_are():
    result = call("--pictures", 201, "--no-scale")
    assert result.exit_code == 1
    assert result.stderr == "Error: pictures must be from 1 to 200, the size of the test split, but is 201\n"
    assert call("--pictures", 0).exit_code == 2


def test_ctrl_c_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt  # not a signal: a program in the background may have to ignore it

    monkeypatch.setattr("minircnn.history.record.figures_of", interrupted)
    result = call("--pictures", 1, "--no-scale", "--no-training", "--out", tmp_path / "new")
    assert (result.exit_code, result.stderr) == (130, "Stopped.\n")
    assert not (tmp_path / "new").exists()


def test_what_the_options_ask_for_is_measured(monkeypatch):
    """The papers' size and trainings are part of it unless they are left out."""
    asked = []

    def make_record(pictures, **options):
        asked.append((pictures, options["scale"] and options["scale"].size, options["training"], options["command"]))
        raise ValueError("enough")

    monkeypatch.setattr("minircnn.history.make_record", make_record)
    for options in ([], ["--no-scale"], ["--no-training", "--pictures", 7]):
        call(*options)
    assert asked == [
        (None, (600, 800), True, "minircnn history"),
        (None, None, True, "minircnn history --no-scale"),
        (7, (600, 800), False, "minircnn history --pictures 7 --no-training"),
    ]


def test_all_of_a_record_is_measured(monkeypatch):
    """Each part by the function that is tested for it, and with what it needs."""
    monkeypatch.setattr(
        record, "measure_at_scale", lambda scale, progress: {"scale": scale, "rounds": list(progress([1]))}
    )

    def costs(samples, proposals, classes, *, milliseconds, pictures, generations):
        assert len(samples) == len(proposals) == 16 and "masks" in samples[0][1] and pictures == 1000
        assert milliseconds["rcnn"]["all"] > 0
        return {one.key: {"all": 1.0} for one in generations}

    monkeypatch.setattr(record, "training_costs", costs)
    monkeypatch.setattr(record, "_LEAST_TRANSFER_PICTURES", 6)
    said = []

    def progress(things, what):
        said.append(what)
        return things

    found = record.make_record(1, scale="a scale", command="x", progress=progress)
    assert found["paper_scale"] == {"scale": "a scale", "rounds": [1]}
    assert found["training"] == {key: {"all": 1.0} for key in ("rcnn", "fast_rcnn", "faster_rcnn", "mask_rcnn")}
    assert said == ["four detectors", "accuracy", "trainings", "papers' size"]
    assert found["machine"]["threads"] == 1
