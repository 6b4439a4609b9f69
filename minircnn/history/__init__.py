"""The history in numbers: all four detectors on the same pictures, and every claim of the story with its evidence.

* :mod:`stages <minircnn.history.stages>`: one picture through a detector, with a clock;
* :mod:`measure <minircnn.history.measure>`: all detectors on all pictures;
* :mod:`scale <minircnn.history.scale>`: the same at the papers' size, for time only;
* :mod:`training <minircnn.history.training>` and :mod:`transfer <minircnn.history.transfer>`: what the trainings cost,
  and what pre-trained features are worth;
* :mod:`record <minircnn.history.record>`: all of it, as the file ``data/results/history.json`` holds it;
* :mod:`evidence <minircnn.history.evidence>` and :mod:`claims <minircnn.history.claims>`: what it says about the story;
* :mod:`report <minircnn.history.report>` and :mod:`figures <minircnn.history.figures>`: tables and pictures.
"""

from minircnn.history.claims import CLAIMS, Claim
from minircnn.history.detectors import GENERATIONS, Generation, count_parameters, keep_from, load_all
from minircnn.history.evidence import gather
from minircnn.history.figures import draw_history, draw_pictures, views_of
from minircnn.history.measure import Figures, alignment_example, figures_of, scenes, trace_all
from minircnn.history.record import RESULTS, RecordError, make_record, read_record
from minircnn.history.report import (
    as_markdown,
    as_text,
    claims_as_text,
    claims_table,
    failing,
    notes,
    section,
    table,
    update_readme,
)
from minircnn.history.scale import PaperScale, measure_at_scale
from minircnn.history.stages import STAGES, Search, Trace, all_by_stages, by_stages, needs_proposals, search
from minircnn.history.training import training_costs
from minircnn.history.transfer import naming_accuracy

__all__ = [
    "CLAIMS",
    "GENERATIONS",
    "RESULTS",
    "STAGES",
    "Claim",
    "Figures",
    "Generation",
    "PaperScale",
    "RecordError",
    "Search",
    "Trace",
    "alignment_example",
    "all_by_stages",
    "as_markdown",
    "as_text",
    "by_stages",
    "claims_as_text",
    "claims_table",
    "count_parameters",
    "draw_history",
    "draw_pictures",
    "failing",
    "figures_of",
    "gather",
    "keep_from",
    "load_all",
    "make_record",
    "measure_at_scale",
    "naming_accuracy",
    "needs_proposals",
    "notes",
    "read_record",
    "scenes",
    "search",
    "section",
    "table",
    "trace_all",
    "training_costs",
    "update_readme",
    "views_of",
]
