import csv
import io
import statistics

import handmade
import numpy as np
import pandas as pd
import pytest

from ecgcmr import checksums, paper, store
from ecgcmr.errors import InputError
from ecgcmr.report.results import evaluation_runs
from ecgcmr.report.results.evidence import Evidence
from ecgcmr.report.tables import paper as tables
from ecgcmr.report.tables import reviewer
from ecgcmr.search import spaces


def table(runs, stem="table3", **options):
    """One table of the paper from what lies under `runs`."""
    return tables.of_layout(
        evaluation_runs.of_space(store.rows(runs), "toy", runs), paper.LAYOUTS[stem], **options
    )


def cell(sheet, system, task):
    (found,) = [
        record for record in sheet.records if (record["system"], record["task"]) == (system, task)
    ]
    return found


def word(sheet, model, column):
    (row,) = [row for row in sheet.rows if row[0].text == model]
    return row[sheet.header.index(column)]


def test_a_cell_is_mean_and_sample_sd_over_the_seeds_in_percent(tmp_path):
    values = [0.71, 0.72, 0.70, 0.735, 0.69]
    for seed, value in enumerate(values):
        handmade.finish(tmp_path, system="mmcl", task="af", seed=seed, value=value)
    sheet = table(tmp_path)
    assert cell(sheet, "mmcl", "af")["mean"] == pytest.approx(100 * statistics.fmean(values))
    assert cell(sheet, "mmcl", "af")["sd"] == pytest.approx(100 * statistics.stdev(values))
    assert word(sheet, "MMCL", "AF").text == "71.10 ± 1.75"


def test_only_test_auroc_of_the_evaluation_of_the_full_training_set_counts(tmp_path):
    handmade.finish(tmp_path, system="mmcl", value=0.9, stage="grid")
    handmade.finish(tmp_path, system="mmcl", value=0.8, label_fraction=0.1)
    handmade.finish(
        tmp_path,
        system="mmcl",
        value=0.0,
        scores=(("val", "auroc", 0.95, 9), ("test", "auprc", 0.94, 9)),
    )
    assert word(table(tmp_path), "MMCL", "AF").text == "—"
    handmade.finish(tmp_path, system="mmcl", seed=101, value=0.7)
    assert cell(table(tmp_path), "mmcl", "af")["mean"] == pytest.approx(70.0)


def test_a_missing_seed_is_said_and_takes_the_ranking_of_its_column(tmp_path):
    handmade.fill(tmp_path, skip={("mmcl", "af", 3), ("mmcl", "af", 4)})
    sheet = table(tmp_path)
    assert word(sheet, "MMCL", "AF").small == ("3 of 5 seeds",)
    assert all("3 of 5 seeds" in shown for shown in (sheet.text(), sheet.markdown(), sheet.latex()))
    assert all(cell(sheet, system, "af")["place"] is None for system in handmade.SYSTEMS)
    assert [cell(sheet, system, "cad")["place"] for system in handmade.SYSTEMS] == [
        None,
        None,
        2,
        1,
    ]
    assert any("AF is not ranked" in note and "MMCL" in note for note in sheet.notes)


def test_a_system_without_runs_is_a_dash_and_a_note(tmp_path):
    handmade.fill(tmp_path, skip={("mae", "dm", seed) for seed in range(5)})
    sheet = table(tmp_path)
    assert word(sheet, "MDM", "DM").text == "—"
    assert word(sheet, "MDM", "DM").small == ()
    assert "—: no finished run." in sheet.notes
    assert cell(sheet, "mmcl", "dm")["place"] == 1


@pytest.mark.parametrize(("value", "status"), [(0.7, "diverged"), (float("nan"), "finished")])
def test_a_diverged_seed_is_no_number(tmp_path, value, status):
    for seed in range(4):
        handmade.finish(tmp_path, system="mmcl", seed=seed, value=0.7)
    handmade.finish(tmp_path, system="mmcl", seed=4, value=value, status=status)
    shown = word(table(tmp_path), "MMCL", "AF")
    assert (shown.text, shown.small) == ("70.00 ± 0.00", ("4 of 5 seeds, 1 diverged",))


def test_what_reads_equal_is_ranked_equal(tmp_path):
    for system, value in (
        ("supervised", 0.6),
        ("mae", 0.70001),
        ("mmcl-wo-mdm", 0.65),
        ("mmcl", 0.70004),
    ):
        for seed in range(5):
            handmade.finish(tmp_path, system=system, seed=seed, value=value)
    places = {system: cell(table(tmp_path), system, "af")["place"] for system in handmade.SYSTEMS}
    assert places == {
        "supervised": None,
        "mae": 1,
        "mmcl-wo-mdm": None,
        "mmcl": 1,
    }  # two first places leave no second


def choose(runs, trials):
    """As `ecgcmr evaluate` does: of a grid, and written beside the runs."""
    return spaces.evaluation_trials(trials, runs, seeds=(0,))


def test_seeds_of_two_configurations_are_never_pooled(tmp_path):
    low, high = (("lr", 1e-5),), (("lr", 1e-4),)
    for knobs, value in ((low, 0.9), (high, 0.7)):
        for seed in range(5):
            handmade.finish(tmp_path, system="mmcl", seed=seed, value=value, knobs=knobs)
    with pytest.raises(
        InputError, match=r"evaluation runs of 2 configurations and no choice\.json"
    ):
        table(tmp_path)
    # Validation prefers what test does not.
    grid = [
        handmade.finish(tmp_path, system="mmcl", stage="grid", value=value, knobs=knobs)
        for knobs, value in ((low, 0.6), (high, 0.8))
    ]
    choose(tmp_path, grid)
    sheet = table(tmp_path)
    assert cell(sheet, "mmcl", "af")["mean"] == pytest.approx(70.0)
    assert any("2 configurations" in note and "lr=0.0001" in note for note in sheet.notes)


def test_of_equal_configurations_the_first_by_name_stands_as_in_the_sweep(tmp_path):
    grid = []
    for lr, value in ((1e-4, 0.7), (1e-5, 0.9)):
        knobs = (("lr", lr),)
        handmade.finish(tmp_path, system="mmcl", value=value, knobs=knobs)
        grid.append(handmade.finish(tmp_path, system="mmcl", stage="grid", value=0.8, knobs=knobs))
    knobs = (("lr", 1e-6),)
    handmade.finish(tmp_path, system="mmcl", value=0.1, knobs=knobs)
    for seed, value in ((0, float("nan")), (1, 0.99)):
        grid.append(
            handmade.finish(
                tmp_path, system="mmcl", stage="grid", value=value, seed=seed, knobs=knobs
            )
        )
    choose(tmp_path, grid)
    # lr=0.0001 before lr=1e-05
    assert cell(table(tmp_path), "mmcl", "af")["mean"] == pytest.approx(70.0)


def test_several_spaces_are_told_apart(tmp_path):
    handmade.fill(tmp_path, tasks=("af",))
    assert set(tables.every(store.rows(tmp_path), tmp_path)) == {"table3"}
    handmade.finish(tmp_path, system="mmcl", space="other")
    made = tables.every(store.rows(tmp_path), tmp_path)
    assert set(made) == {"table3-toy", "others-other"}
    assert made["table3-toy"].stem == "table3-toy"
    assert "[other]" in made["others-other"].title


def test_no_runs_make_no_tables(tmp_path):
    assert tables.every(store.rows(tmp_path), tmp_path) == {}


def test_positives_only_where_the_manifest_counts_the_same_subjects(tmp_path):
    handmade.fill(tmp_path)
    labels = {
        "af": {"test": {"n": 240, "positive": 7}},
        "cad": {"test": {"n": 239, "positive": 17}},
    }
    foot = [[w.text for w in row] for row in table(tmp_path, label_counts=labels).rows[-2:]]
    assert foot == [
        ["Test subjects", "", "", "240", "240", "240"],
        ["Positives", "", "", "—", "7", "—"],
    ]


def test_runs_evaluated_on_different_subjects_show_it(tmp_path):
    for seed, n in enumerate((240, 240, 238, 240, 240)):
        handmade.finish(tmp_path, system="mmcl", seed=seed, n=n)
    assert word(table(tmp_path), "Test subjects", "AF").text == "238–240"


def test_the_papers_numbers_stand_below_only_when_asked(tmp_path):
    handmade.fill(tmp_path)
    assert "75.56" not in table(tmp_path).text()
    sheet = table(tmp_path, paper=True)
    assert word(sheet, "MMCL", "DM").small == ("paper 75.56 ± 0.16",)
    assert "paper: the paper's number, on 6,007 subjects of the UK Biobank." in sheet.notes


def test_the_renderings_say_the_same(tmp_path):
    handmade.fill(tmp_path)
    sheet = table(tmp_path, paper=True)
    assert "**69.20 ± 0.16**" in sheet.markdown()
    assert "<ins>66.20 ± 0.16</ins>" in sheet.markdown()
    assert r"\textbf{69.20 $\pm$ 0.16}" in sheet.latex()
    assert r"\underline{66.20 $\pm$ 0.16}" in sheet.latex()
    assert r"ROC AUC [\%]" in sheet.latex()
    assert "69.20 ± 0.16¹" in sheet.text()
    lines = {
        (line["system"], line["task"]): line for line in csv.DictReader(io.StringIO(sheet.csv()))
    }
    assert float(lines["mmcl", "cad"]["mean"]) == pytest.approx(69.2)
    assert lines["mmcl", "cad"]["seeds"] == "5"
    assert len(lines) == 12


def test_a_table_shows_what_more_than_half_of_its_systems_ran(tmp_path):
    handmade.fill(
        tmp_path
    )  # the four of Table III: two of Table I's four, three of Table II's seven
    assert set(tables.every(store.rows(tmp_path), tmp_path)) == {"table3"}
    for system in ("simclr", "clocs"):
        handmade.finish(tmp_path, system=system)
    assert set(tables.every(store.rows(tmp_path), tmp_path)) == {"table2", "table3"}
    handmade.finish(tmp_path, system="xgboost", method="xgboost")
    handmade.finish(tmp_path, system="cmr-mmcl")
    made = tables.every(store.rows(tmp_path), tmp_path)
    assert set(made) == {"table1", "table2", "table3", "others"}
    assert [row[0].text for row in made["table1"].body] == ["ECG", "Tabular", "CMR", "ECG (MMCL)"]
    assert [record["system"] for record in made["others"].records] == ["cmr-mmcl"]


def test_whatever_no_table_of_the_paper_shows_gets_one_of_its_own(tmp_path):
    for system in ("mae", "supervised", "own-label_1"):
        handmade.finish(tmp_path, system=system, task="snomed_164889003", value=0.9)
        handmade.finish(tmp_path, system=system, task="lv", scores=(("test", "pearson", 0.6, 240),))
        handmade.finish(tmp_path, system=system, task="af")
    made = tables.every(store.rows(tmp_path), tmp_path)
    assert set(made) == {"labels", "others-phenotypes", "others"}
    assert [row[0].text for row in made["labels"].body] == ["Supervised ViT", "MAE", "own-label_1"]
    assert cell(made["labels"], "mae", "snomed_164889003")["mean"] == pytest.approx(90.0)
    assert cell(made["others-phenotypes"], "mae", "lv")["mean"] == pytest.approx(0.6)
    assert "Pearson's r" in made["others-phenotypes"].notes[0]
    assert r"own-label\_1" in made["labels"].latex()


def test_table_4_is_in_r_and_its_reference_is_not_ranked(tmp_path):
    for i, system in enumerate((*handmade.SYSTEMS, "cmr-supervised")):
        for seed in range(5):
            handmade.finish(
                tmp_path,
                system=system,
                task="lv",
                seed=seed,
                scores=(("test", "pearson", 0.5 + 0.05 * i, 240),),
            )
    sheet = tables.every(store.rows(tmp_path), tmp_path, paper=True)["table4"]
    assert sheet.header == ("Model", "MDM", "MMCL", "LV", "RV", "WT", "Ecc", "Err")
    assert word(sheet, "CMR (reference)", "LV").place == 0
    assert (word(sheet, "MMCL", "LV").text, word(sheet, "MMCL", "LV").place) == ("0.65 ± 0.00", 1)
    assert word(sheet, "MMCL", "LV").small == ("paper 0.63",)
    assert [w.text for w in sheet.rows[0][1:3]] == ["✗", "✗"]


MANIFEST = {
    "source": "wfdb:a nifti:b",
    "rows": {"train": 6000, "val": 1000, "test": 1000},
    "flow": [
        {"step": "paired", "n": 4000, "reasons": {}},
        {"step": "kept", "n": 8000, "reasons": {}},
    ],
    "labels": {name: {"test": {"n": 1000, "positive": 9}} for name in ("cad", "af", "dm")},
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, True),
        ({"source": "synthetic"}, False),
        ({"rows": {"train": 6001, "val": 1000, "test": 999}}, False),
        ({"flow": [{"step": "paired", "n": 3999, "reasons": {}}]}, False),
        ({"flow": [{"step": "kept", "n": 8000, "reasons": {}}]}, False),
        ({"labels": {name: {"test": {"n": 1000, "positive": 9}} for name in ("cad", "af")}}, False),
    ],
)
def test_only_a_cohort_like_the_papers_is_comparable(changes, said):
    assert tables.comparable({**MANIFEST, **changes}) is said


# -- from predictions --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Four ECG systems on AF and on the right ventricle; MMCL lacks a seed with 10 % of the labels."""
    runs = tmp_path_factory.mktemp("planted")
    for system, signal in (("supervised", 0.5), ("mae", 1.5), ("mmcl-wo-mdm", 1.5), ("mmcl", 3.0)):
        handmade.plant(runs, system, "af", signal=signal)
        handmade.plant(runs, system, "rv", signal=signal)
        handmade.plant(
            runs,
            system,
            "af",
            signal=signal / 2,
            label_fraction=0.1,
            seeds=range(4 if system == "mmcl" else 5),
        )
    handmade.plant(runs, "cmr-supervised", "af", trained=None)
    rows = store.rows(runs)
    people = pd.DataFrame(
        {
            "subject": [f"p{i:05d}" for i in range(400)],
            "age": np.linspace(45, 80, 400),
            "sex": np.arange(400) % 2,
        }
    )
    return tables.every(
        rows, runs, {"toy": Evidence.of(runs, "toy", rows, draws=200)}, people=people
    )


def test_every_table_is_there_and_renders(planted):
    assert list(planted) == [
        "table1",
        "table3",
        "table4",
        "figure5",
        "claims",
        "comparisons-table1",
        "comparisons-table3",
        "comparisons-table4",
        "phenotypes",
        "secondary",
        "calibration",
        "subgroups",
    ]
    for stem, sheet in planted.items():
        assert sheet.stem == stem
        assert {len(row) for row in sheet.rows} == {len(sheet.header)} == {len(sheet.kind)}
        assert sheet.latex().isascii()
        assert (
            len(
                {
                    line.replace("\\|", "").count("|")
                    for line in sheet.markdown().splitlines()
                    if line[:1] == "|"
                }
            )
            == 1
        )
        assert "nan" not in (sheet.text() + sheet.csv()).lower().replace("dominant", "")
        assert len({tuple(record) for record in sheet.records}) == 1


def test_people_are_counted_apart_from_their_visits(tmp_path):
    for label, signal in (("supervised", 0.5), ("mae", 1.0), ("mmcl-wo-mdm", 1.0), ("mmcl", 1.5)):
        handmade.plant(tmp_path, label, signal=signal, n=100, seeds=range(2))
    for path in tmp_path.rglob(store.PREDICTIONS):
        table = pd.read_parquet(path)
        table["subject"] = [f"p{i // 2:05d}" for i in range(100)]
        table.to_parquet(path)
        checksums.write(path.parent)
    rows = store.rows(tmp_path)
    rows.loc[:, "n"] = 100
    found = tables.every(
        rows, tmp_path, {"toy": Evidence.of(tmp_path, "toy", rows, seeds=2, draws=50)}, seeds=2
    )
    foot = {line[0].text: line[-2].text for line in found["table3"].rows[-found["table3"].foot :]}
    assert (foot["Test subjects"], foot["Test visits"]) == ("50", "100")
    record = cell(found["table3"], "mmcl", "af")
    assert (record["test_subjects"], record["test_visits"]) == ("50", "100")
    comparison = found["comparisons-table3"].rows[0]
    assert (comparison[-1].text, comparison[-1].small) == ("50", ("100 visits",))
    notes = " ".join(found["comparisons-table3"].notes)
    assert "other seeds of fine-tuning" in notes
    assert "Pre-training ran once" in notes
    assert "Pre-training ran once" in " ".join(found["claims"].notes)


def test_cells_carry_the_interval_over_test_subjects(planted):
    shown, record = word(planted["table3"], "MMCL", "AF"), cell(planted["table3"], "mmcl", "af")
    assert shown.small == (f"[{record['low']:.1f}, {record['high']:.1f}]",)
    assert record["low"] < record["mean"] < record["high"]
    assert any("by DeLong's variance" in note for note in planted["table3"].notes)
    assert any("200 bootstrap resamples" in note for note in planted["table4"].notes)
    assert "[0." in word(planted["table4"], "MMCL", "RV").small[0]


def test_figure_5_says_what_is_missing(planted):
    (row,) = [row for row in planted["figure5"].rows if row[1].text == "MMCL"]
    assert planted["figure5"].header == ("Disease", "Model", "100 %", "10 %")
    assert "n = 1,000" in row[2].small
    assert {"4 of 5 seeds", "n = 100"} <= set(row[3].small)


def test_claims_are_lines_with_verdicts(planted):
    lines = {(row[0].text, row[1].text): row for row in planted["claims"].rows}
    assert len(lines) == len(paper.CLAIMS)
    better = lines["V-C", "MMCL encodes phenotypes best of the ECG systems"]
    assert better[2].text == "not decidable"  # four of five groups have no runs
    assert "missing" in better[6].text
    eye = lines["V-E", "With MDM, ECG and image agree most in the left ventricle (Figure 6)"]
    assert [w.text for w in eye[2:]] == ["not decidable", "—", "—", "—", "judged by eye: Figure 6"]


def test_comparisons_show_difference_interval_and_both_p(planted):
    (row,) = [row for row in planted["comparisons-table3"].rows if row[1].text == "Supervised ViT"]
    (record,) = [r for r in planted["comparisons-table3"].records if r["other"] == "supervised"]
    assert row[2].text == f"{100 * record['difference']:+.2f}"
    assert record["low"] < record["difference"] < record["high"]
    assert record["p"] <= record["p_holm"] <= 1
    assert row[6].text == "400"
    assert "minus each other system" in planted["comparisons-table3"].title


def test_calibration_names_the_runs_that_cannot_be_corrected(planted):
    rows = {row[1].text: [w.text for w in row] for row in planted["calibration"].rows}
    assert rows["Supervised ResNet (CMR)"][-3:] == ["—", "—", "—"]
    assert "—" not in rows["MMCL"]
    assert any("Supervised ResNet (CMR)" in note for note in planted["calibration"].notes)


def test_phenotypes_end_in_both_means_of_each_group(planted):
    sheet = planted["phenotypes"]
    assert [row[0].text for row in sheet.body] == ["RVEDV", "RVESV", "RVSV", "RVEF"]
    assert [row[0].text for row in sheet.rows[-sheet.foot :]] == [
        "RV, mean of r",
        "RV, mean by Fisher's z",
    ]
    plain = word(planted["table4"], "MMCL", "RV").text
    assert sheet.rows[-2][sheet.header.index("MMCL")].text == plain


def test_average_precision_stands_beside_the_prevalence(planted):
    assert [w.text for w in planted["secondary"].rows[-1]] == ["Prevalence", "—", "20.00", "—"]


def test_subgroups_count_subjects_and_positives(planted):
    lines = {(row[0].text, row[1].text): row for row in planted["subgroups"].rows}
    assert lines["AF", "women"][2].text == lines["AF", "men"][2].text == "200"
    assert sum(int(lines["AF", name][3].text) for name in ("women", "men")) == 80
    assert lines["RV", "women"][3].text == "—"


# -- how often pre-training ran


def started(runs, system, n, seeds=range(5), **options):
    """Evaluation runs whose i-th seed starts from pre-training i mod n."""
    for i, seed in enumerate(seeds):
        start = () if not n else (("ecg", f"toy/pretrain/ecg/{system}/lr=1/seed={i % n}"),)
        handmade.finish(runs, system=system, seed=seed, init_from=start, **options)


def pretraining_note(runs, *systems):
    evidence = Evidence.of(runs, "toy", store.rows(runs))
    return reviewer.pretraining_note(evidence, systems)


def test_of_one_pretraining_each_it_is_said_once(tmp_path):
    started(tmp_path, "supervised", 0)
    assert pretraining_note(tmp_path) == ""
    for system in ("mae", "mmcl"):
        started(tmp_path, system, 1)
    assert pretraining_note(tmp_path) == reviewer.ONCE
    rows = store.rows(tmp_path)
    (sheet, *_) = tables.every(rows, tmp_path, {"toy": Evidence.of(tmp_path, "toy", rows)}).values()
    assert sheet.stem == "table3"
    assert reviewer.ONCE in sheet.notes


def test_one_pretraining_per_seed_is_in_the_spread_and_fewer_only_in_part(tmp_path):
    started(tmp_path, "mae", 5)
    whole = pretraining_note(tmp_path)
    assert whole.startswith("5 pre-trainings of MAE: evaluation seed i starts from pre-training i")
    assert "understated" not in whole
    assert "once" not in whole
    started(tmp_path, "mmcl", 2)
    started(tmp_path, "simclr", 1)
    started(tmp_path, "supervised", 0)
    text = pretraining_note(tmp_path)
    assert text.startswith(whole)
    assert "2 pre-trainings of MMCL: evaluation seed i starts from pre-training i mod 2" in text
    assert "5 seeds share 2, so it is understated" in text
    assert "Pre-training of SimCLR ran once" in text
    assert "Supervised" not in text
    assert pretraining_note(tmp_path, "simclr", "supervised") == reviewer.ONCE
