import json
import re
import shutil
from html.parser import HTMLParser

import handmade
import pandas as pd
import pytest

from ecgcmr.errors import InputError
from ecgcmr.report import curves, page

VOID = {"meta", "img", "br", "link"}


class Reader(HTMLParser):
    """Collects text and addresses, and fails on tags that are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.addresses, self.tags = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
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
    written = page.write(runs, cohort.path, out)
    return written, Reader(written["page"].read_text())


@pytest.fixture(scope="module")
def report(tmp_path_factory, small_cohort):
    """The page of two systems on AF, one of them a seed short, and one pre-training."""
    runs = tmp_path_factory.mktemp("page") / "runs"
    handmade.fill(runs, tasks=("af",), skip={("mmcl", "af", 4)})
    loss = handmade.curve().rename(columns={"loss": "train_loss", "val_auroc": "val_loss"})
    scores = (("val", "loss", 0.25, 45),)
    handmade.finish(runs, label="mae", task="ecg", stage="pretrain", method="mae", curve_=loss, scores=scores)
    handmade.finish(runs, label="mmcl", stage="grid", value=0.7)
    written, read = write(runs, small_cohort, runs / "report")
    return runs, written, read


def test_the_page_stands_alone(report):
    _, written, read = report
    assert not {"script", "link", "iframe"} & set(read.tags)
    beside = {path.name for path in written.values()}
    for address in read.addresses:
        assert address.startswith("data:image/png;base64,") or address in beside, address[:80]
    assert not re.search(r"url\(|@import|https?://(?!127\.0\.0\.1)", written["page"].read_text())


def test_the_page_says_what_was_done(report):
    _, _, read = report
    assert "1 pre-training, 1 grid trial and 19 final runs on 300 subjects" in read.text
    assert "4 of 5 seeds" in read.text
    assert "AF is not ranked: seeds are missing for MMCL." in read.text
    assert "60.20 ± 0.16" in read.text
    assert "0.2500" in read.text  # the pre-training's validation loss
    assert "batch=32, lr=1e-05" in read.text
    assert "aim up --repo aim" in read.text


def test_the_cohort_is_counted(report, small_cohort):
    _, _, read = report
    index = small_cohort.rows()
    train = index[index.split == "train"]
    share = f"{int(train.af.sum())} ({100 * train.af.mean():.1f} %)"
    assert share in read.text
    assert f"with CMR {int(train.has_cmr.sum())}" in read.text
    assert small_cohort.fingerprint in read.text


def test_tables_and_figures_lie_beside_the_page(report):
    runs, written, _ = report
    names = {path.name for path in (runs / "report").iterdir()}
    assert names == {path.name for path in written.values()}
    assert {"index.html", "table3.md", "table3.csv", "table3.tex", "example-ecg.png", "example-cmr.png"} <= names
    assert {"curves-pretraining.png", "curves-validation.png"} <= names
    assert written["example-ecg.png"].read_bytes().startswith(b"\x89PNG")


def test_the_same_files_give_the_same_page(report, small_cohort, tmp_path):
    runs, written, _ = report
    again = page.write(runs, small_cohort.path, tmp_path)
    assert again.keys() == written.keys()
    assert all(again[name].read_bytes() == written[name].read_bytes() for name in written)


def test_runs_of_another_cohort_are_told(report):
    _, _, read = report  # handmade runs have the fingerprint "cohort-print"
    assert "21 of these runs were trained on another cohort" in read.text


def altered(small_cohort, out, **changes):
    """A copy of the cohort's folder with another manifest."""
    shutil.copytree(small_cohort.path, out)
    manifest = json.loads((out / "_cohort.json").read_text())
    (out / "_cohort.json").write_text(json.dumps({**manifest, **changes}))
    return out


def test_a_synthetic_cohort_is_named_so_and_not_compared_with_the_paper(small_cohort, tmp_path):
    runs = tmp_path / "runs"
    handmade.fill(runs, tasks=("af",), seeds=(0,))
    synthetic = altered(small_cohort, tmp_path / "synthetic", source="synthetic")
    text = Reader(page.write(runs, synthetic, tmp_path / "a")["page"].read_text()).text
    assert "they say nothing about patients" in text
    assert "74.11" not in text
    real = Reader(page.write(runs, small_cohort.path, tmp_path / "b")["page"].read_text()).text
    assert "they say nothing about patients" not in real
    assert "74.11 ± 0.53" in real


def test_the_flow_and_its_reasons_are_shown_and_escaped(small_cohort, tmp_path):
    flow = [
        {"step": "found", "n": 1224, "reasons": {}},
        {"step": "kept", "n": 300, "reasons": {"<b>flat</b> lead": 924}},
    ]
    repairs = [{"key": "a", "what": "gain"}, {"key": "b", "what": "gain"}, {"key": "c", "what": "lead order"}]
    cohort = altered(small_cohort, tmp_path / "cohort", flow=flow, repairs=repairs)
    written = page.write(tmp_path / "none", cohort, tmp_path / "report")
    text = Reader(written["page"].read_text()).text
    assert "found 1,224" in text
    assert "− 924: <b>flat</b> lead" in text
    assert "gain (2); lead order (1)" in text
    assert "Nothing has finished yet." in text


def test_without_a_cohort_there_is_one_line(tmp_path):
    with pytest.raises(InputError, match="no cohort"):
        page.write(tmp_path, tmp_path / "nowhere", tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_curves_draw_what_was_measured_and_survive_what_was_not():
    axes = curves.run(handmade.curve()).axes
    assert len(axes) == 2
    (line,) = axes[1].get_lines()
    assert list(line.get_xdata()) == [1, 3, 5]  # validation is measured on every second step
    assert curves.png(curves.run(pd.DataFrame())).startswith(b"\x89PNG")
    empty = curves.validation(
        {"AF": {"MMCL": [pd.DataFrame({"step": [], "epoch": [], "val_auroc": []})]}}, {"AF": "auroc"}
    )
    assert curves.png(empty).startswith(b"\x89PNG")
    assert (
        len([ax for ax in curves.pretraining({str(i): handmade.curve() for i in range(5)}).axes if ax.get_visible()])
        == 5
    )
