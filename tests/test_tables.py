import csv
import io
import statistics

import handmade
import pytest

from ecgcmr import store
from ecgcmr.errors import InputError
from ecgcmr.report import tables


def cell(table, label, task):
    return table.cells[label, task]


def test_a_cell_is_mean_and_sample_sd_over_the_seeds_in_percent(tmp_path):
    values = [0.71, 0.72, 0.70, 0.735, 0.69]
    for seed, value in enumerate(values):
        handmade.finish(tmp_path, label="mmcl", task="af", seed=seed, value=value)
    af = cell(tables.table3(store.rows(tmp_path)), "mmcl", "af")
    assert af.mean == pytest.approx(100 * statistics.fmean(values))
    assert af.sd == pytest.approx(100 * statistics.stdev(values))
    assert af.text == "71.10 ± 1.75"


def test_only_final_test_auroc_of_the_full_training_set_counts(tmp_path):
    handmade.finish(tmp_path, label="mmcl", value=0.9, stage="grid")
    handmade.finish(tmp_path, label="mmcl", value=0.8, take=0.1)
    handmade.finish(tmp_path, label="mmcl", value=0.0, scores=(("val", "auroc", 0.95, 9), ("test", "auprc", 0.94, 9)))
    assert not cell(tables.table3(store.rows(tmp_path)), "mmcl", "af").started
    handmade.finish(tmp_path, label="mmcl", seed=101, value=0.7)
    assert cell(tables.table3(store.rows(tmp_path)), "mmcl", "af").values == (pytest.approx(70.0),)


def test_a_missing_seed_is_said_and_takes_the_ranking_of_its_column(tmp_path):
    handmade.fill(tmp_path, skip={("mmcl", "af", 3), ("mmcl", "af", 4)})
    table = tables.table3(store.rows(tmp_path))
    assert cell(table, "mmcl", "af").lack == "3 of 5 seeds"
    assert "3 of 5 seeds" in table.text()
    assert all(cell(table, label, "af").place == 0 for label in handmade.LABELS)
    assert [cell(table, label, "cad").place for label in handmade.LABELS] == [0, 0, 2, 1]
    assert any("AF is not ranked" in note and "MMCL" in note for note in table.notes)


def test_a_system_without_runs_is_a_dash_and_a_note(tmp_path):
    handmade.fill(tmp_path, skip={("mae", "dm", seed) for seed in range(5)})
    table = tables.table3(store.rows(tmp_path))
    assert cell(table, "mae", "dm").text == "—"
    assert "—: no finished run." in table.notes
    assert cell(table, "mmcl", "dm").place == 1


@pytest.mark.parametrize(("value", "status"), [(0.7, "diverged"), (float("nan"), "finished")])
def test_a_diverged_seed_is_no_number(tmp_path, value, status):
    for seed in range(4):
        handmade.finish(tmp_path, label="mmcl", seed=seed, value=0.7)
    handmade.finish(tmp_path, label="mmcl", seed=4, value=value, status=status)
    assert cell(tables.table3(store.rows(tmp_path)), "mmcl", "af").text == "70.00 ± 0.00 (4 of 5 seeds, 1 diverged)"


def test_what_reads_equal_is_ranked_equal(tmp_path):
    for label, value in (("supervised", 0.6), ("mae", 0.70001), ("mmcl-wo-mdm", 0.65), ("mmcl", 0.70004)):
        for seed in range(5):
            handmade.finish(tmp_path, label=label, seed=seed, value=value)
    table = tables.table3(store.rows(tmp_path))
    places = {label: cell(table, label, "af").place for label in handmade.LABELS}
    assert places == {"supervised": 0, "mae": 1, "mmcl-wo-mdm": 0, "mmcl": 1}  # two first places leave no second


def test_seeds_of_two_points_are_never_pooled(tmp_path):
    low, high = (("lr", 1e-5),), (("lr", 1e-4),)
    for knobs, value in ((low, 0.9), (high, 0.7)):
        for seed in range(5):
            handmade.finish(tmp_path, label="mmcl", seed=seed, value=value, knobs=knobs)
    handmade.finish(tmp_path, label="mmcl", stage="grid", value=0.6, knobs=low)
    handmade.finish(tmp_path, label="mmcl", stage="grid", value=0.8, knobs=high)  # validation prefers it, test does not
    table = tables.table3(store.rows(tmp_path))
    assert cell(table, "mmcl", "af").mean == pytest.approx(70.0)
    assert any("2 points" in note and "lr=0.0001" in note for note in table.notes)


def test_several_spaces_have_to_be_told_apart(tmp_path):
    handmade.fill(tmp_path, tasks=("af",))
    handmade.finish(tmp_path, label="mmcl", space="other")
    rows = store.rows(tmp_path)
    with pytest.raises(InputError, match="other, toy"):
        tables.table3(rows)
    assert set(tables.every(rows)) == {"table3-toy", "table3-other"}


def test_no_runs_make_an_empty_table_not_an_error(tmp_path):
    text = tables.every(store.rows(tmp_path))["table3"].text()
    assert "Supervised ViT" in text
    assert "±" not in text.split("\n", 1)[1]


def test_positives_only_where_the_manifest_counts_the_same_subjects(tmp_path):
    handmade.fill(tmp_path)
    labels = {"af": {"test": {"n": 240, "positive": 7}}, "cad": {"test": {"n": 239, "positive": 17}}}
    table = tables.table3(store.rows(tmp_path), labels=labels)
    assert table.positives == {"af": "7"}
    assert table.subjects == {"cad": "240", "af": "240", "dm": "240"}


def test_runs_judged_on_different_subjects_show_it(tmp_path):
    for seed, n in enumerate((240, 240, 238, 240, 240)):
        handmade.finish(tmp_path, label="mmcl", seed=seed, n=n)
    assert tables.table3(store.rows(tmp_path)).subjects["af"] == "238–240"


def test_the_papers_numbers_stand_beside_only_when_asked(tmp_path):
    handmade.fill(tmp_path)
    rows = store.rows(tmp_path)
    assert "75.56" not in tables.table3(rows).text()
    assert "75.56 ± 0.16" in tables.table3(rows, paper=True).text()


def test_the_renderings_say_the_same(tmp_path):
    handmade.fill(tmp_path)
    table = tables.table3(store.rows(tmp_path))
    assert "**69.20 ± 0.16**" in table.markdown()
    assert "<u>66.20 ± 0.16</u>" in table.markdown()
    assert r"\textbf{69.20 $\pm$ 0.16}" in table.latex()
    assert r"\underline{66.20 $\pm$ 0.16}" in table.latex()
    assert r"ROC AUC [\%]" in table.latex()
    assert "69.20 ± 0.16¹" in table.text()
    lines = {(line["label"], line["task"]): line for line in csv.DictReader(io.StringIO(table.csv()))}
    assert float(lines["mmcl", "cad"]["mean"]) == pytest.approx(69.2)
    assert lines["mmcl", "cad"]["seeds"] == "5"
    assert len(lines) == 12


def test_markdown_and_latex_have_one_width(tmp_path):
    handmade.fill(tmp_path)
    table = tables.table3(store.rows(tmp_path), paper=True)
    assert len({line.count("|") for line in table.markdown().splitlines() if line.startswith("|")}) == 1
    assert len({line.count(" & ") for line in table.latex().splitlines() if " & " in line}) == 1


def test_labels_of_the_cohort_and_phenotypes_get_their_own_tables(tmp_path):
    for label in ("mae", "supervised", "own-label_1"):
        handmade.finish(tmp_path, label=label, task="snomed_164889003", value=0.9)
        handmade.finish(tmp_path, label=label, task="lv", scores=(("test", "pearson", 0.6, 240),))
    made = tables.every(store.rows(tmp_path))
    assert set(made) == {"labels", "table4"}
    assert [system.label for system in made["labels"].systems] == ["supervised", "mae", "own-label_1"]
    assert made["labels"].cells["mae", "snomed_164889003"].values == (pytest.approx(90.0),)
    assert made["table4"].cells["mae", "lv"].values == (pytest.approx(0.6),)
    assert r"own-label\_1" in made["labels"].latex()


def test_table2_stands_where_the_rivals_ran_and_table3_beside_it_only_for_mmcl(tmp_path):
    for label in ("supervised", "simclr", "byol", "clocs", "barlow-twins", "mae"):
        for seed in range(5):
            handmade.finish(tmp_path, label=label, task="af", seed=seed, value=0.6 + 0.01 * len(label))
    made = tables.every(store.rows(tmp_path))
    assert list(made) == ["table2"]
    assert made["table2"].cells["barlow-twins", "af"].place == 1
    assert not made["table2"].cells["mmcl", "af"].started
    assert "MDM" not in made["table2"].header
    handmade.finish(tmp_path, label="mmcl", task="af", value=0.8)
    assert list(tables.every(store.rows(tmp_path))) == ["table2", "table3"]
    beside = tables.table2(store.rows(tmp_path), paper=True)
    assert beside.beside(tables.RIVALS[1]) == ["66.03 ± 0.99", "67.95 ± 0.59", "68.73 ± 0.47"]
