"""Tables by hand, and the README against the record that comes with the project."""

import re
from pathlib import Path

import pytest

from minircnn.files import write_json
from minircnn.history import (
    CLAIMS,
    GENERATIONS,
    RESULTS,
    RecordError,
    as_text,
    claims_as_text,
    claims_table,
    gather,
    notes,
    read_record,
    section,
    table,
    update_readme,
)
from minircnn.history.report import END, START, as_markdown, insert

ROOT = Path(__file__).parents[2]


def cells(record, name, **options):
    (row,) = [row for row in table(record, **options) if row[0] == name]
    return row[1:]


def between_markers(text):
    return text[text.index(START) : text.index(END) + len(END)]


class TestTable:
    def test_cells_by_hand(self, record):
        assert table(record)[0] == ["", "R-CNN (2014)", "Fast R-CNN (2015)", "Faster R-CNN (2016)", "Mask R-CNN (2017)"]
        assert cells(record, "AP50 of boxes, %") == ["78.0", "79.0", "85.0", "87.0"]
        assert cells(record, "AP75 of boxes, %") == ["50.0", "40.0", "57.0", "67.0"]
        assert cells(record, "AP of masks, %") == ["–", "–", "–", "51.0"]
        assert cells(record, "proposals a picture") == ["286", "286", "60", "100"]
        assert cells(record, "objects that they cover at IoU 0.5, %") == ["96.0"] * 4
        assert cells(record, "passes of the convolutions a picture") == ["286", "1", "1", "1"]
        assert cells(record, "milliseconds a picture") == ["441", "146", "20", "30"]
        assert cells(record, "seconds a picture of 600 × 800") == ["66", "3.76", "0.69", "1.28"]
        assert cells(record, "trainings, one behind the other") == ["3", "1", "1", "1"]
        assert cells(record, "training, minutes of a core, estimated") == ["≥ 20", "32", "50", "75"]
        assert cells(record, "learned numbers") == ["1,976,261", "1,871,299", "2,026,623", "2,228,102"]
        assert cells(record, "file of weights, MB") == ["4.2"] * 4

    def test_stages_stand_below_their_sum_twice(self, record):
        names = [row[0] for row in table(record)]
        stages = ["  proposals", "  features", "  heads", "  selection", "  masks"]
        for name in ("milliseconds a picture", "seconds a picture of 600 × 800"):
            assert names[names.index(name) + 1 :][:5] == stages
        rows = [row[1:] for row in table(record) if row[0] in ("  masks", "  heads")]
        assert rows[:2] == [["20", "12", "4.0", "5.0"], ["–", "–", "–", "9.5"]]
        assert rows[2:] == [["5.00", "2.50", "0.40", "0.40"], ["–", "–", "–", "0.60"]]
        assert [row for row in table(record) if row[0] == "  selection"][1][1:] == ["0.010", "0.010", "0.005", "0.005"]
        assert not any(row[0].startswith(" ") for row in table(record, stages=False))

    def test_what_was_not_measured_is_not_there(self, record):
        record["paper_scale"] = record["training"] = None
        names = [row[0] for row in table(record)]
        assert not any("600" in name or "minutes" in name for name in names)
        assert len(notes(record)) == 2


class TestNotes:
    def test_a_partial_run_says_so(self, record):
        assert notes(record)[0].startswith("Measured on all 200 test pictures of Toy Town")
        record["pictures"] = 20
        assert notes(record)[0].startswith("Measured on only the first 20 of the 200 test pictures of Toy Town")

    def test_what_is_multiplied_and_filled_up(self, record):
        last = notes(record)[-1]
        assert "Selective search finds 1631 proposals there, and random boxes make them 2,000;" in last
        assert "R-CNN is timed on 100 of them, and the time behind the search is multiplied by 20." in last
        assert "makes 300; 88 detections get a mask." in last
        record["paper_scale"]["found"] = 2000
        assert "Selective search gives 2,000 proposals;" in notes(record)[-1]

    def test_trainings_are_estimates(self, record):
        assert any("Trainings were not timed when they ran" in note for note in notes(record))


class TestText:
    def test_columns_stand_one_below_the_other(self, record):
        lines = as_text(table(record)).splitlines()
        assert len({len(line) for line in lines}) == 1
        assert all(line == line.rstrip() for line in lines)
        assert [line.rindex("  ") for line in lines if line.startswith(("AP of masks", "proposals"))]

    def test_claims_have_a_sign_their_notebooks_and_their_evidence(self, results):
        lines = claims_as_text(results).splitlines()
        assert len(lines) == 2 * len(CLAIMS)
        assert lines[0] == f"✓ S1  {CLAIMS[0].text} [00]"
        assert lines[1] == f"      {CLAIMS[0].evidence(results)}"
        assert lines[18].startswith("~ S10 ")
        results["history"]["detectors"]["rcnn"]["recall"] = 0.5
        assert claims_as_text(results).splitlines()[4].startswith("✗ S3  ")

    def test_rows_of_claims(self, results):
        rows = claims_table(results)
        assert rows[0] == ["", "claim", "notebooks", "measured", "holds"]
        assert rows[7] == ["S7", CLAIMS[6].text, "04, 06, 11", CLAIMS[6].evidence(results), "yes"]

    def test_markdown(self):
        assert as_markdown([["", "A"], ["  b", "1|2"]], right=False) == "| | A |\n| --- | --- |\n| b | 1\\|2 |"
        assert as_markdown([["x", "A"], ["b", "1"]]).splitlines()[1] == "| --- | --: |"


class TestREADME:
    def test_only_what_stands_between_the_markers_changes(self, results, tmp_path):
        path = tmp_path / "README.md"
        path.write_text(f"before ü\n\n{START}\nold\n{END}\n\nafter\n", encoding="utf-8")
        update_readme(path, results)
        assert path.read_text(encoding="utf-8") == f"before ü\n\n{section(results)}\n\nafter\n"
        update_readme(path, results)
        assert path.read_text(encoding="utf-8").count("# ") == 0 and path.read_text(encoding="utf-8").count(START) == 1
        assert [file.name for file in tmp_path.iterdir()] == ["README.md"]

    @pytest.mark.parametrize("text", ["", START, END, f"{END}{START}", f"{START}{START}{END}", f"{START}{END}{END}"])
    def test_markers_that_are_missing_or_double(self, text, results, tmp_path):
        with pytest.raises(
            ValueError, match=r"^x.md: one line <!-- history --> and below it one line <!-- /history -->"
        ):
            insert(text, "", "x.md")
        path = tmp_path / "README.md"
        path.write_text(text)
        with pytest.raises(ValueError, match=r"README.md: one line"):
            update_readme(path, results)
        assert path.read_text() == text
        with pytest.raises(FileNotFoundError, match=r"none.md: there is no such file; name a README"):
            update_readme(tmp_path / "none.md", results)

    def test_every_row_and_claim_is_in_the_section(self, results):
        text = section(results)
        assert text.startswith(START) and text.endswith(END)
        for row in table(results["history"], stages=False)[1:]:
            assert f"| {' | '.join(row)} |" in text
        for number, claim, notebooks, measured, verdict in claims_table(results)[1:]:
            assert f"| {number} | {claim} | {measured} | {notebooks} | {verdict} |" in text
        for note in notes(results["history"]):
            assert f"- {note}\n" in text
        assert "17 claims" in text
        assert set(re.findall(r"\((docs/.*?)\)", text)) == {"docs/history.png", "docs/history_pictures.png"}

    def test_the_projects_readme_is_written_by_the_program(self):
        """After new weights or results: minircnn history --update."""
        text = (ROOT / "README.md").read_text(encoding="utf-8")
        assert between_markers(text) == section(gather(read_record())), "edited by hand? run minircnn history --update"

    def test_the_data_card_lists_the_record(self):
        assert "| `results/history` |" in (ROOT / "data" / "README.md").read_text(encoding="utf-8")


class TestRecord:
    def test_what_is_written_is_read(self, record, tmp_path):
        write_json(tmp_path / "x.json", record)
        assert read_record(tmp_path / "x.json") == record
        record["detectors"]["rcnn"]["recall"] = float("nan")
        write_json(tmp_path / "x.json", record)
        assert read_record(tmp_path / "x.json")["detectors"]["rcnn"]["recall"] is None
        record["detectors"]["rcnn"]["recall"] = float("inf")
        with pytest.raises(ValueError, match="JSON compliant"):
            write_json(tmp_path / "y.json", record)
        assert [file.name for file in tmp_path.iterdir()] == ["x.json"]

    def test_what_is_no_record(self, record, tmp_path):
        with pytest.raises(
            FileNotFoundError, match=r"none.json: there is no such file; make it with `minircnn history"
        ):
            read_record(tmp_path / "none.json")
        path = tmp_path / "x.json"
        for text, reason in (("{", "damaged"), ("[1]", "'pictures' is missing"), ("{}", "no record of the history")):
            path.write_text(text)
            with pytest.raises(RecordError, match=rf"x.json: .*{reason}"):
                read_record(path)
        del record["detectors"]["fast_rcnn"]
        write_json(path, record)
        with pytest.raises(RecordError, match=r"'fast_rcnn' is missing"):
            read_record(path)

    def test_the_shipped_record_belongs_to_the_shipped_weights(self):
        """After new weights: minircnn history --update."""
        import json

        record = read_record(RESULTS)
        assert record["command"].startswith("minircnn history") and record["command"].endswith("--update")
        for one in GENERATIONS:
            about = json.loads(one.weights.with_suffix(".json").read_text(encoding="utf-8"))
            assert record["detectors"][one.key]["sha256"] == about["sha256"], f"{one.name} was trained anew"
