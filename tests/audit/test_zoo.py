"""The audit names every planted fault, by kind and line, and nothing else."""

import pytest

from compiled_loss.audit import KINDS, audit
from tests.audit import zoo_clean, zoo_device, zoo_graphs, zoo_numbers
from tests.audit.zoo import faults_in, faults_of

ROOMS = {name: room for room in (zoo_graphs, zoo_device, zoo_numbers) for name in room.FAULTY}


def found_by(exhibit):
    report = audit(exhibit.function, exhibit.batches(), **({"backend": "aot_eager"} | exhibit.options))
    assert not report.incomplete, str(report)
    return report, {(x.kind, x.place.line if x.place else None) for x in report.findings}


@pytest.mark.parametrize("name", ROOMS)
def test_every_planted_fault_is_named_by_kind_and_line(name, capsys):
    room = ROOMS[name]
    report, found = found_by(room.FAULTY[name])
    expected = faults_in(room, name)
    assert expected, "no fault is marked"
    assert found == expected, str(report)
    assert all(x.place and x.place.file == room.__file__ and x.advice for x in report.findings)


@pytest.mark.parametrize("name", zoo_clean.CLEAN)
def test_clean_functions_have_no_finding(name):
    report, _ = found_by(zoo_clean.CLEAN[name])
    assert report.ok, str(report)
    assert not report.findings


def test_the_zoo_shows_every_kind_at_least_twice():
    for kind in KINDS:
        marked = [kinds for room in set(ROOMS.values()) for kinds in faults_of(room).values()]
        assert sum(kind in kinds for kinds in marked) >= 2, kind


def test_the_zoo_is_large_enough():
    assert len(ROOMS) >= 25
    assert len(zoo_clean.CLEAN) >= 15
