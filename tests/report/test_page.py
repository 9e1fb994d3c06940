"""The report page: what it says, that it stands alone, and that it survives whatever is not there yet."""

import dataclasses
import hashlib
import itertools
import json
import re
import shutil
from html.parser import HTMLParser

import handmade
import handmade_study
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import heart_rows, write_cohort

from ecgcmr import checksums, store
from ecgcmr.errors import InputError
from ecgcmr.paper import CLAIMS
from ecgcmr.report import appendix, figures, page
from ecgcmr.report.plots import curves
from ecgcmr.report.results.evidence import Evidence
from ecgcmr.runs import Run, all_runs
from ecgcmr.search import study
from ecgcmr.trial import Trial

torch.set_num_threads(1)

VOID = {"meta", "img", "br", "link"}
ARXIV = "https://arxiv.org/abs/2308.05764"


class Reader(HTMLParser):
    """Collects text, addresses and ids, and fails on tags that are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.tags = [], [], []
        self.links, self.sources, self.ids = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, found in (("href", self.links), ("src", self.sources), ("id", self.ids)):
            found += [value for key, value in attributes if key == name]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if "style" not in self.open:
            self.words.append(text)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))


def write(runs, cohort, out):
    written = page.write(runs, getattr(cohort, "path", cohort), out).files
    return written, Reader(written[page.PAGE].read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The page of a whole study: every system, table and figure."""
    runs, cohort, written = handmade_study.reported(tmp_path_factory.getbasetemp())
    return runs, cohort, written, Reader(written[page.PAGE].read_text())


@pytest.fixture(scope="module")
def rows(whole):
    """Every score of the whole study."""
    return store.rows(whole[0])


@pytest.fixture(scope="module")
def trials(whole):
    """Every finished trial of the whole study, as the appendix reads it."""
    return appendix.read(whole[0])


@pytest.fixture(scope="module")
def report(tmp_path_factory, small_cohort):
    """The page of four systems on AF without predictions, one of them a seed short, and one pre-training."""
    runs = tmp_path_factory.mktemp("page") / "runs"
    handmade.fill(runs, tasks=("af",), skip={("mmcl", "af", 4)})
    loss = handmade.curve().rename(columns={"loss": "train_loss", "val_auroc": "val_loss"})
    scores = (("val", "loss", 0.25, 45),)
    handmade.finish(
        runs, system="mae", task="ecg", stage="pretrain", method="mae", curve_=loss, scores=scores
    )
    handmade.finish(runs, system="mmcl", stage="grid", value=0.7)
    written, read = write(runs, small_cohort, runs / "report")
    return runs, written, read


# -- the page as a file


@pytest.mark.parametrize("which", ["whole", "report"])
def test_the_page_stands_alone(which, request):
    *_, written, read = request.getfixturevalue(which)
    assert not {"script", "link", "iframe", "object"} & set(read.tags)
    assert all(address.startswith("data:image/png;base64,") for address in read.sources)
    beside = {path.name for path in written.values()}
    for link in read.links:
        assert link in beside or link == ARXIV or link.removeprefix("#") in read.ids, link
    text = re.sub(r"base64,[A-Za-z0-9+/=]+", "", written[page.PAGE].read_text())
    assert not re.search(r"url\(|@import", text)
    assert set(re.findall(r"https?://[^\s\"<]+", text)) <= {ARXIV, "http://127.0.0.1:43800"}
    assert len(read.ids) == len(set(read.ids))


def test_the_parts_come_in_order(whole):
    *_, read = whole
    sections = [
        *(
            "claims",
            "tables",
            "figures",
            "statistics",
            "cohort",
            "training",
            "test-reads",
            "configuration",
        )
    ]
    assert [name for name in read.ids if name in sections] == sections
    assert read.links[: len(sections)] == [f"#{name}" for name in sections]
    tables = [name for name in read.ids if name.startswith("table") and name != "tables"]
    assert tables == ["table1", "table2", "table3", "table4", "table5"]
    assert [name for name in read.ids if name.startswith("figure") and name != "figures"] == [
        "figure4",
        "figure5",
        "figure6",
    ]


def test_tables_and_figures_lie_beside_the_page(whole):
    runs, _, written, _ = whole
    names = {path.name for path in (runs / "report").iterdir()}
    assert names == {path.name for path in written.values()}
    tables = {
        *(f"table{i}" for i in range(1, 6)),
        "claims",
        "comparisons-table2",
        "figure5",
        "phenotypes",
        "calibration",
    }
    assert {f"{stem}.{ending}" for stem in tables for ending in ("md", "csv", "tex")} <= names
    pictures = {
        "figure4",
        "figure5",
        "figure6",
        "reliability",
        "differences-table4",
        "example-ecg",
        "curves-validation",
    }
    assert {f"{name}.png" for name in pictures} <= names
    assert written["figure6.png"].read_bytes().startswith(b"\x89PNG")


def test_the_same_files_give_the_same_page(report, small_cohort, tmp_path):
    runs, written, _ = report
    again = page.write(runs, small_cohort.path, tmp_path).files
    assert again.keys() == written.keys()
    assert all(again[name].read_bytes() == written[name].read_bytes() for name in written)


def test_the_hash_is_that_of_every_measured_number(report, small_cohort, tmp_path):
    runs, written, read = report
    data = written["rows.csv"].read_bytes()
    assert hashlib.sha256(data).hexdigest() in read.text
    rows = pd.read_csv(written["rows.csv"], float_precision="round_trip").sort_values(
        "trial", kind="stable"
    )
    kept = store.rows(runs).sort_values("trial", kind="stable")
    assert rows.value.tolist() == kept.value.tolist()
    shutil.copytree(runs, tmp_path / "runs")
    handmade.finish(tmp_path / "runs", system="mmcl", seed=4, value=0.69)
    assert (
        write(tmp_path / "runs", small_cohort, tmp_path / "out")[0]["rows.csv"].read_bytes() != data
    )


# -- results


def test_every_claim_is_a_line_with_its_verdict(whole, rows):
    runs, _, written, read = whole
    found = Evidence.of(runs, "toy", rows).verdicts()
    assert len(found) == len(CLAIMS)
    verdicts = [verdict.verdict for verdict in found]
    assert {"holds", "not decidable"} <= set(verdicts)
    lines = re.findall(
        r'<td class="verdict (\w+)"><i[^>]*>(.)</i>([^<]+)</td><td class="said">([^<]+)<',
        written[page.PAGE].read_text(),
    )
    signs = {"holds": ("yes", "✓"), "does not hold": ("no", "✗"), "not decidable": ("open", "○")}
    assert [line[2] for line in lines] == verdicts
    assert all((look, sign) == signs[word] for look, sign, word, _ in lines)
    counts = {word: verdicts.count(word) for word in signs}
    assert sum(counts.values()) == len(CLAIMS)
    assert f"Of the paper’s {len(CLAIMS)} claims, {counts['holds']} hold" in read.text


def test_a_claims_numbers_have_their_unit(whole):
    *_, read = whole
    assert re.search(r"outperforms the supervised ECG .{0,80} \+\d+\.\d\d points \[", read.text)
    assert re.search(
        r"MDM encodes phenotypes better than supervision .{0,80} \+0\.\d{3} in r \[", read.text
    )


def test_one_is_singular():
    tally = (("holds", 1, page.ONE["holds"]), ("does not hold", 2, page.MANY["does not hold"]))
    assert page.Claims(None, tally, ()).sentence == "1 holds, 2 do not hold"


def test_each_table_is_followed_by_its_comparisons(whole):
    _, _, written, _ = whole
    text = written[page.PAGE].read_text()
    at = [text.index(f'id="table{i}"') for i in range(1, 6)] + [text.index('id="figures"')]
    for number, (start, end) in enumerate(itertools.pairwise(at), 1):
        details = re.findall(r"<details>.*?</details>", text[start:end], re.DOTALL)
        assert len(details) == 1
        assert f"comparisons-table{number}.csv" in details[0]
        assert f"differences-table{number}.png" in details[0]
        assert "p (Holm)" in details[0]


def test_what_is_missing_is_said_and_not_averaged(report):
    _, _, read = report
    assert "1 pre-training, 1 grid trial and 19 evaluation runs on 300 subjects" in read.text
    assert "4 of 5 seeds" in read.text
    assert "60.20 ± 0.16" in read.text
    assert "0.2500" in read.text  # the pre-training's validation loss
    assert "Of the paper’s 22 claims, 0 hold, 0 do not hold, 22 are not decidable" in read.text


def test_several_spaces_each_have_their_own(small_cohort, tmp_path):
    runs = tmp_path / "runs"
    for space in ("a", "b-a"):
        for system in ("supervised", "mae", "mmcl"):
            for seed in range(2):
                handmade.finish(
                    runs, system=system, seed=seed, space=space, value=0.6 if space == "a" else 0.7
                )
    written, read = write(runs, small_cohort, tmp_path / "out")
    assert {"table3-a.csv", "table3-b-a.csv"} <= written.keys()
    assert read.text.count("Search space a ") == read.text.count("Search space b-a ") > 0
    assert {"table3-a", "table3-b-a"} <= set(read.ids)
    text = written[page.PAGE].read_text()
    assert text[text.index('id="table3-a"') : text.index('id="table3-b-a"')].count("60.00") > 0


# -- figures


def test_figure_6_shows_the_run_of_a_sweep_that_was_chosen(trials, rows):
    names = {system: run.name for system, run in figures.mapped_systems(trials, "toy").items()}
    assert list(names) == ["mmcl-wo-mdm", "mmcl"]
    losses = rows[(rows.stage == "pretrain") & (rows.metric == "loss")]
    for system, name in names.items():
        mine = losses[losses.system == system]
        assert name == mine.trial[mine.value.idxmin()]
        assert len(mine) == len(study.TOY.pretraining[system].rates)


def test_runs_without_projectors_leave_a_note_instead_of_a_figure(whole, trials, rows, tmp_path):
    runs, cohort, _, _ = whole
    systems = figures.mapped_systems(trials, "toy")
    for name in (run.name for run in systems.values()):
        shutil.copytree(runs / name, tmp_path / "runs" / name)
        (tmp_path / "runs" / name / store.ENCODER).unlink()
        checksums.write(tmp_path / "runs" / name)
    written, read = write(tmp_path / "runs", cohort, tmp_path / "out")
    assert "figure6.png" not in written
    assert "Figure 6" in read.text
    assert "Not drawn: " in read.text
    assert str(tmp_path) not in written[page.PAGE].read_text()


def test_figure_5_draws_nothing_that_lacks_seeds(tmp_path):
    for label_fraction in (1.0, 0.1):
        handmade.plant(tmp_path, "mmcl", label_fraction=label_fraction)
        handmade.plant(
            tmp_path,
            "mae",
            label_fraction=label_fraction,
            seeds=(0, 1, 2) if label_fraction == 0.1 else range(5),
        )
    drawing = figures.figure5(Evidence.of(tmp_path, "toy", store.rows(tmp_path)), "")
    assert "MAE, AF, 10 % (3 of 5 seeds" in drawing.note
    (axes,) = drawing.figure.axes
    lines = {line.get_gid(): np.isfinite(line.get_ydata()).sum() for line in axes.get_lines()}
    assert lines["MMCL"] == 2
    assert lines["MAE"] == 1


def test_figure_5_needs_runs_on_fewer_labels(tmp_path):
    handmade.plant(tmp_path, "mmcl")
    assert figures.figure5(Evidence.of(tmp_path, "toy", store.rows(tmp_path)), "") is None


def test_the_example_is_of_the_validation_split(tmp_path):
    def rows(split):
        for row in heart_rows(30):
            yield row if row["split"] == split else row | {"ecg": None, "cmr": None}

    shown = {
        split: figures.example(write_cohort(tmp_path / split, rows(split)))
        for split in ("val", "test")
    }
    assert [one.name for one in shown["val"]] == ["example-ecg", "example-cmr"]
    assert shown["test"] == []


# -- cohort


def altered(small_cohort, out, **changes):
    """A copy of the cohort's folder with another manifest."""
    shutil.copytree(small_cohort.path, out)
    manifest = json.loads((out / "_cohort.json").read_text())
    (out / "_cohort.json").write_text(json.dumps({**manifest, **changes}))
    return out


def step(name, n, unit="recordings", **reasons):
    return {"step": name, "n": n, "unit": unit, "reasons": reasons}


def test_the_flow_is_boxes_with_what_left_between_them():
    flow = [
        step("found", 224),
        step("readable", 220, damaged=4),
        step("plausible", 200, **{"flat lead": 12, "gain": 3}),
        step("paired", 90, "rows"),
        step("labelled", 110, "rows"),
        step("kept", 120, "rows"),
    ]
    boxes = appendix.flow({"flow": flow})
    assert [(box.title, box.n, box.unit) for box in boxes] == [
        ("found", 224, "recordings"),
        ("readable", 220, "recordings"),
        ("plausible", 200, "recordings"),
        ("kept", 120, "subject‑visits"),
    ]
    assert boxes[1].left == ((4, "damaged"),)
    assert boxes[2].left == ((12, "flat lead"), (5, "no reason given"), (3, "gain"))
    assert boxes[2].less == 20
    assert boxes[3].left == ()  # fewer rows than recordings: joined, not excluded
    assert boxes[3].facts == (("paired", 90), ("labelled", 110))


def test_the_flow_and_its_reasons_are_shown_and_escaped(small_cohort, tmp_path):
    flow = [
        {
            "step": "found",
            "n": 1224,
            "reasons": {},
            "left_aside": {"XML with root <sapphire>": 1005},
        },
        {"step": "kept", "n": 300, "reasons": {"<b>flat</b> lead": 924}},
    ]
    repairs = [
        {"key": "a", "what": "gain"},
        {"key": "b", "what": "gain"},
        {"key": "c", "what": "lead order"},
    ]
    cohort = altered(small_cohort, tmp_path / "cohort", flow=flow, repairs=repairs)
    _, read = write(tmp_path / "none", cohort, tmp_path / "report")
    assert "Found 1,224" in read.text
    assert "1,005 left aside: XML with root <sapphire>" in read.text
    assert "924 left out 924 <b>flat</b> lead" in read.text
    assert "gain (2); lead order (1)" in read.text
    assert "Nothing has finished yet." in read.text
    assert "Nothing has read the test set yet." in read.text


def test_the_cohort_is_counted(report, small_cohort):
    _, _, read = report
    index = small_cohort.rows()
    train = index[index.split == "train"]
    assert f"{int(train.af.sum())} ({100 * train.af.mean():.1f} %)" in read.text
    assert f"Training {len(train)} {train.subject.nunique()} people" in read.text
    assert f"{int((train.has_ecg & train.has_cmr).sum())} with both" in read.text
    assert f"{train.age.mean():.1f} ± {train.age.std():.1f}" in read.text
    assert small_cohort.fingerprint in read.text


def test_a_synthetic_cohort_is_named_so(small_cohort, tmp_path):
    synthetic = altered(small_cohort, tmp_path / "synthetic", source="synthetic")
    assert (
        "they say nothing about patients"
        in write(tmp_path / "none", synthetic, tmp_path / "a")[1].text
    )
    assert (
        "they say nothing about patients"
        not in write(tmp_path / "none", small_cohort, tmp_path / "b")[1].text
    )


def test_the_papers_numbers_stand_only_beside_a_comparable_cohort(small_cohort, tmp_path):
    runs = tmp_path / "runs"
    handmade.fill(runs, tasks=("af",), seeds=(0,))
    assert "74.11" not in write(runs, small_cohort, tmp_path / "a")[1].text
    counts = {"train": 4000, "val": 1000, "test": 1000}
    flow = [step("found", 12_000), step("paired", 6000, "rows"), step("kept", 6000, "rows")]
    like = altered(small_cohort, tmp_path / "like", source="wfdb:a dicom:b", rows=counts, flow=flow)
    assert "74.11 ± 0.53" in write(runs, like, tmp_path / "b")[1].text


def test_runs_of_another_cohort_are_told(report, whole):
    assert (
        "21 of these runs were trained on another cohort" in report[-1].text
    )  # handmade runs: "cohort-print"
    assert "trained on another cohort" not in whole[-1].text


def test_a_cohort_of_ecgs_alone_has_a_page(tmp_path):
    rows = ({**row, "cmr": None} for row in heart_rows(40))
    cohort = write_cohort(tmp_path / "cohort", rows, labels=("af",))
    handmade.plant(tmp_path / "runs", "mae", n=60)
    written, read = write(tmp_path / "runs", cohort, tmp_path / "out")
    assert "example-ecg.png" in written
    assert "example-cmr.png" not in written
    assert "figure6" not in read.ids
    assert "CMR phenotypes" not in read.text


def test_without_a_cohort_there_is_one_line(tmp_path):
    with pytest.raises(InputError, match="no cohort"):
        page.write(tmp_path, tmp_path / "nowhere", tmp_path / "report")
    assert not (tmp_path / "report").exists()


# -- training, test reads, configuration


def test_the_chosen_rate_of_a_sweep_is_marked(trials, rows):
    lines = appendix.pretrainings(trials, rows)
    assert len(lines) == 14
    for system in ("MMCL", "MMCL w/o MDM"):
        swept = [line for line in lines if line["title"] == f"{system}, ECG + CMR"]
        (chosen,) = [line for line in swept if line["chosen"] == "✓"]
        assert chosen["loss"] == min(line["loss"] for line in swept)
    assert {line["init_from"] for line in lines} == {
        "random weights",
        "CMR: SimCLR",
        "ECG: MAE, CMR: SimCLR",
    }


def test_the_starts_of_fine_tuning_name_the_chosen_rate(trials):
    init_from = {(line[2], line[6]) for line in appendix.configurations(trials)}
    assert ("MMCL", "ECG: MMCL (lr=0.01)") in init_from
    assert ("MMCL (CMR)", "CMR: MMCL (lr=0.01)") in init_from
    assert ("MAE", "ECG: MAE") in init_from
    assert ("XGBoost (tabular)", "random weights") not in init_from


def evaluation_runs(runs, seeds=(0, 1)):
    return [handmade.finish(runs, system="mae", seed=seed) for seed in seeds]


def test_one_read_of_the_test_set_per_evaluation_run_is_as_it_should_be(tmp_path, whole):
    for trial in evaluation_runs(tmp_path):
        store.log_test_read(tmp_path, trial.name, 240)
    said = appendix.test_reads(tmp_path, appendix.read(tmp_path))
    assert (
        said
        == "The test set was read 2 times: once by each of the 2 evaluation runs, and by nothing else."
    )
    assert (
        "The test set was read 545 times: once by each of the 545 evaluation runs" in whole[-1].text
    )


def test_any_other_number_of_reads_is_told(tmp_path):
    first, second = evaluation_runs(tmp_path)
    assert "made before reads were logged" in appendix.test_reads(tmp_path, appendix.read(tmp_path))
    for name in (first.name, first.name, "toy/evaluation/af/gone/batch=32/seed=0"):
        store.log_test_read(tmp_path, name, 240)
    said = appendix.test_reads(tmp_path, appendix.read(tmp_path))
    assert said.startswith(
        "The test set was read 3 times, by 2 evaluation runs, and not once by each: "
    )
    assert "1 evaluation runs have no logged read" in said
    assert "1 evaluation runs read it more than once" in said
    assert "1 trials read it that are no finished evaluation run here" in said
    store.log_test_read(tmp_path, second.name, 240)
    assert "no logged read" not in appendix.test_reads(tmp_path, appendix.read(tmp_path))


def test_the_configuration_is_complete(whole):
    runs, cohort, _, read = whole
    for name in ("python 3.", "torch ", "ray ", "optuna ", "xgboost "):
        assert name in read.text
    assert "Seeds of the evaluation runs 0, 1, 2, 3, 4" in read.text
    assert "ecgcmr sweep search_spaces/toy.py" in read.text
    listed = [run for run in all_runs(runs) if run.trial.stage != "grid"]
    assert all(run.fingerprint in read.text for run in listed)
    assert '"mae_ncc": 0.0' in read.text  # the preset, field by field
    assert f'"width": {study.TOY.network.width}' in read.text
    assert "lr 0.0003, 0.001" in read.text  # what the grid tried
    assert cohort.manifest["recipe_hash"] in read.text


def test_the_commands_name_readers_and_no_machine():
    manifest = {
        "name": "mine",
        "source": "wfdb+muse+dicom",
        "seed": 3,
        "rows": {},
        "request": {"labels": "abc"},
        "recipe": {"readers": {"ecg": "wfdb+muse", "cmr": "dicom"}},
    }
    lines = appendix.commands(manifest, ["table3"]).splitlines()
    given = "--ecg wfdb:PATH --ecg muse:PATH --cmr dicom:PATH --labels LABELS"
    assert lines[0] == f"ecgcmr cohort build {given} --seed 3 --cohort mine"
    assert lines[2] == "ecgcmr sweep    search_spaces/table3.py --cohort mine --runs runs"
    made = appendix.commands(
        {"name": "c", "source": "synthetic", "seed": 0, "rows": {}, "request": {"subjects": 9}}, []
    )
    assert made.splitlines()[0] == "ecgcmr cohort synth --subjects 9 --seed 0 --cohort c"


def test_seeds_of_pretraining_are_in_the_commands_and_tell_its_lines_apart(trials, rows):
    (first,) = [r for r in trials if r.trial.stage == "pretrain" and r.trial.system == "mae"]
    again = dataclasses.replace(first, trial=dataclasses.replace(first.trial, seed=101))
    counts = appendix.pretrain_seeds_of([*trials, again])
    assert counts == {"toy": 2}
    assert appendix.pretrain_seeds_of(trials) == {"toy": 1}
    titles = [line["title"] for line in appendix.pretrainings([*trials, again], rows)]
    assert [title for title in titles if title.startswith("MAE")] == [
        "MAE, ECG, seed 0",
        "MAE, ECG, seed 101",
    ]
    manifest = {
        "name": "c",
        "source": "synthetic",
        "seed": 0,
        "rows": {},
        "request": {"subjects": 9},
    }
    _, *lines, _ = appendix.commands(manifest, ["toy"], counts).splitlines()
    assert [line.endswith(" --runs runs --pretrain-seeds 2") for line in lines] == [
        True,
        False,
        True,
    ]


def test_systems_of_equal_grids_share_a_line():
    def run(system, lr, task="af"):
        trial = Trial(
            space="s",
            stage="grid",
            task=task,
            system=system,
            method="supervised",
            knobs=(("lr", lr),),
        )
        return Run(None, trial, {}, "", "finished", {})

    found = [
        run(system, lr, task)
        for system in ("mae", "mmcl")
        for lr in (1e-3, 1e-4)
        for task in ("af", "dm")
    ]
    assert appendix.grids([*found, run("supervised", 1e-3)]) == [
        ("AF, DM", "MAE, MMCL", "batch 32; lr 0.0001, 0.001", "2"),
        ("AF", "Supervised ViT", "batch 32; lr 0.001", "1"),
    ]


# -- curves


def test_curves_draw_what_was_measured_and_survive_what_was_not():
    axes = curves.run(handmade.curve()).axes
    assert len(axes) == 2
    (line,) = axes[1].get_lines()
    assert list(line.get_xdata()) == [1, 3, 5]  # validation is measured on every second step
    assert curves.png(curves.run(pd.DataFrame())).startswith(b"\x89PNG")
    empty = curves.validation(
        {"AF": {"MMCL": [pd.DataFrame({"step": [], "epoch": [], "val_auroc": []})]}},
        {"AF": "auroc"},
    )
    assert curves.png(empty).startswith(b"\x89PNG")
    assert (
        len(
            [
                ax
                for ax in curves.pretraining({str(i): handmade.curve() for i in range(5)}).axes
                if ax.get_visible()
            ]
        )
        == 5
    )


def test_no_two_systems_look_alike_in_the_curves():
    systems = {str(i): [handmade.curve()] for i in range(12)}
    (axes,) = [
        ax for ax in curves.validation({"AF": systems}, {"AF": "auroc"}).axes if ax.get_visible()
    ]
    looks = {(line.get_color(), line.get_linestyle()) for line in axes.get_lines()}
    assert len(looks) == 12
