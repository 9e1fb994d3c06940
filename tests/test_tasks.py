import pytest

from ecgcmr import presets, tasks
from ecgcmr.errors import InputError


def test_the_five_groups_hold_the_61_phenotypes_once():
    groups = [tasks.TASKS[name] for name in ("lv", "rv", "wt", "ecc", "err")]
    columns = [column for task in groups for column in task.columns]
    assert sorted(columns) == sorted(tasks.PHENOTYPES)
    assert len(columns) == 61
    assert [task.outputs for task in groups] == [6, 4, 17, 17, 17]
    assert set(tasks.UNITS) == set(tasks.PHENOTYPES)


def test_a_label_column_of_the_cohort_is_a_task():
    task = tasks.of("snomed_426783006", ("snomed_426783006",))
    assert (task.kind, task.outputs, task.metric) == ("binary", 2, "auroc")


def test_an_unknown_task_lists_what_exists():
    with pytest.raises(InputError, match=r"unknown task 'cadd'; known: af, cad, dm"):
        tasks.of("cadd")


def test_presets_differ_in_every_disputed_field_but_share_them_all():
    paper, authors = presets.preset("paper"), presets.preset("authors")
    assert all(
        getattr(paper, field) != getattr(authors, field)
        for field in presets.Preset.__dataclass_fields__
    )
    with pytest.raises(InputError, match="known: authors, paper"):
        presets.preset("papre")
