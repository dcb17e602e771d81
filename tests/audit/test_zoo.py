"""The audit names every planted fault, by kind and line, and nothing else."""

import pytest

from compiled_loss.audit import KINDS, audit
from tests.audit import zoo_clean, zoo_faulty
from tests.audit.zoo import faults_in, faults_of

MARKED = faults_of(zoo_faulty)


def found_by(exhibit):
    report = audit(exhibit.function, exhibit.batches(), **({"backend": "aot_eager"} | exhibit.options))
    assert not report.incomplete, str(report)
    return report, {(x.kind, x.place.line if x.place else None) for x in report.findings}


@pytest.mark.parametrize("name", zoo_faulty.FAULTY)
def test_every_planted_fault_is_named_by_kind_and_line(name, capsys):
    report, found = found_by(zoo_faulty.FAULTY[name])
    expected = faults_in(zoo_faulty, name, MARKED)
    assert expected, "no fault is marked"
    assert found == expected, str(report)
    assert all(x.place.file == zoo_faulty.__file__ and x.advice for x in report.findings)


@pytest.mark.parametrize("name", zoo_clean.CLEAN)
def test_clean_functions_have_no_finding(name):
    report, _ = found_by(zoo_clean.CLEAN[name])
    assert report.ok, str(report)
    assert not report.findings


def test_the_zoo_shows_every_kind_at_least_twice():
    for kind in KINDS:
        assert sum(kind in kinds for kinds in MARKED.values()) >= 2, kind
