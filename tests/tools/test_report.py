import json

import pytest

from engine.errors import VisavisError
from tools import report


def test_percentiles_interpolate_and_skip_what_is_not_a_number():
    values = [*range(101), float("nan"), float("inf")]
    assert report.percentiles(values) == {"p50": 50.0, "p95": 95.0, "p99": 99.0}
    assert report.percentiles([1.0, 2.0], (50,)) == {"p50": 1.5}
    assert report.percentiles([]) == {"p50": None, "p95": None, "p99": None}


def test_a_report_is_written_into_a_new_folder(tmp_path):
    report.write_json(tmp_path / "new" / "f.json", {"fps": 1.5, "none": None})
    assert json.loads((tmp_path / "new" / "f.json").read_text()) == {"fps": 1.5, "none": None}
    with pytest.raises(VisavisError, match="is a folder"):
        report.write_json(tmp_path / "new", {})


def test_a_table_is_markdown_with_a_dash_for_unknowns():
    text = report.format_table(["a", "b"], [["x", 1.23456], ["longer", None]])
    assert text.splitlines() == ["| a      | b     |", "|--------|-------|", "| x      | 1.235 |", "| longer | -     |"]


def test_the_machine_is_named():
    machine = report.describe_machine()
    assert machine["cpu"] and 1 <= machine["usable_cores"] <= machine["cores"]


@pytest.mark.parametrize("text", ["0", "-3"])
def test_counts_and_durations_must_be_positive(text):
    for kind in (report.positive_int, report.positive_seconds):
        with pytest.raises(Exception, match="is not a positive"):
            kind(text)
