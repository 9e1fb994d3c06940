"""Which runs and which subjects the figures of the page show.

The files of `plots/` draw plain numbers; what these numbers are is decided here, by rules
stated in the captions. A figure that nothing on disk can fill is left out, and one that should be there says why it is not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from ecgcmr import store, tasks
from ecgcmr.cohort import presence
from ecgcmr.cohort.dataset import Cohort
from ecgcmr.errors import InputError
from ecgcmr.evaluation import selection
from ecgcmr.evaluation.statistics import Bins
from ecgcmr.inference import explain
from ecgcmr.paper import LOW_LABEL, SHORT, TITLES, Layout
from ecgcmr.report import appendix
from ecgcmr.report.plots import curves, heatmaps, paper, recordings
from ecgcmr.report.results.evidence import BASELINE, OURS, Evidence
from ecgcmr.report.results.verdicts import Comparison
from ecgcmr.runs import Run
from ecgcmr.signals import ecg

PERCENT = {"auroc": 100.0, "pearson": 1.0}  # AUROC is shown in percent, r as it is
MAPPED = ("mmcl-wo-mdm", "mmcl")  # columns of Figure 6


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure with its words.

    Attributes:
        name: stem of its file.
        title, caption: above and below it.
        figure: None if it could not be drawn.
        note: a sentence that belongs with it, e.g. why it is not there.
    """

    name: str
    title: str
    caption: str
    figure: Figure | None
    note: str = ""


# -- results -----------------------------------------------------------------------------------------------------------


def figure4(evidence: Evidence, ending: str) -> Drawing | None:
    """Predicted against measured phenotypes of our system; None if it answered none."""
    found = evidence.scatter(OURS)
    if not found:
        return None
    panels = [
        paper.Scatter(
            one.name.replace("_", " "),
            one.unit,
            one.measured,
            one.predicted,
            one.r,
            paper.choose(len(one.measured)),
        )
        for one in found
    ]
    caption = (
        f"{len(panels)} of the 61 phenotypes, predicted from the ECG alone by {TITLES[OURS]} (mean over its seeds). Points: "
        f"up to {paper.SHOWN} test subjects, drawn by lot; line: regression over all of them; r: mean over seeds."
    )
    return Drawing(
        f"figure4{ending}", "Figure 4. CMR phenotypes from the ECG", caption, paper.figure4(panels)
    )


def figure5(evidence: Evidence, ending: str) -> Drawing | None:
    """ROC AUC against the share of the labels; None if no run has fewer than all."""
    found = evidence.low_label()
    if all(point.take == 1 for point in found):
        return None
    panels: dict[str, dict[str, list[paper.Point]]] = {}
    for point in found:
        lines = panels.setdefault(SHORT[point.task], {})
        line = lines.setdefault(_title_of(point.label), [])
        if not point.lack:
            mean, low, high = (100 * value for value in (point.mean, point.low, point.high))
            line.append(paper.Point(point.take, point.n_train, mean, low, high))
    lacking = sorted(
        {
            f"{_title_of(p.label)}, {SHORT[p.task]}, {100 * p.take:g} % ({p.lack})"
            for p in found
            if p.lack
        }
    )
    note = f"Not drawn, as seeds are missing: {'; '.join(lacking)}." if lacking else ""
    caption = "Test ROC AUC by the share of the labels used for fine-tuning. Bands: 95 % interval of the mean over seeds."
    drawn = paper.figure5(panels, ours=_title_of(OURS))
    return Drawing(f"figure5{ending}", "Figure 5. Few labels", caption, drawn, note)


def _title_of(label: str) -> str:
    """A system's title in Figure 5."""
    return next(
        (system.title for system in LOW_LABEL if system.label == label), TITLES.get(label, label)
    )


def figure6(opened: Cohort, finished: Sequence[Run], space: str, ending: str) -> Drawing | None:
    """Similarity maps of the multimodal systems on four validation subjects; None if no such system was pre-trained."""
    name, title = f"figure6{ending}", "Figure 6. Where ECG and image agree"
    try:
        mapped = mapped_systems(finished, space)
        if not mapped:
            return None
        subjects = explain.cases(opened)
        maps = explain.maps_for(list(mapped.values()), opened, subjects)
    except InputError as error:
        home = str(next(iter(finished)).home)
        return Drawing(name, title, "", None, f"Not drawn: {str(error).replace(home, 'runs')}.")
    signals = opened.load(subjects, ("ecg", "cmr"))
    cases = [
        heatmaps.Case(
            caption,
            signals["ecg"][i].astype(float),
            ecg.RATE_HZ,
            signals["cmr"][i][1],
            {TITLES[label]: maps[run.name][i] for label, run in mapped.items()},
        )
        for i, caption in enumerate(subjects["caption"])
    ]
    caption = (
        "Cosine similarity of the whole ECG and each region of the same subject’s image, in the space where both were "
        "aligned. Four subjects of the validation split, chosen by phenotype before any map was made."
    )
    return Drawing(name, title, caption, heatmaps.figure6(cases))


def mapped_systems(finished: Sequence[Run], space: str) -> dict[str, Run]:
    """The multimodal pre-training that stands for each system of Figure 6, by label.

    Raises:
        InputError: of several, none was chosen (`selection.standing_pretraining`).
    """
    systems = {}
    for label in MAPPED:
        kind = (space, "pretrain", "mmcl", label)
        pretrained = [
            run
            for run in finished
            if (run.trial.space, run.trial.stage, run.trial.method, run.trial.label) == kind
        ]
        standing = selection.standing_pretraining(pretrained) if pretrained else None
        if standing and not standing.diverged:
            systems[label] = standing
    return systems


def forest(evidence: Evidence, layout: Layout, ending: str) -> Drawing | None:
    """The comparisons of one table; None if there are none."""
    metric = tasks.TASKS[layout.tasks[0]].metric
    scale = PERCENT[metric]
    titles = {system.label: system.title for system in layout.systems}
    rows = [
        _difference(one, titles[one.contrast.worse], scale) for one in evidence.comparisons(layout)
    ]
    if not rows:
        return None
    unit = "ROC AUC [points]" if metric == "auroc" else "Pearson's r"
    caption = (
        f"{titles[layout.ours]} minus each other system, on the test subjects of both, with 95 % intervals. Filled: p below "
        "0.05 after Holm’s adjustment over this table."
    )
    drawn = paper.forest(rows, f"difference in {unit}")
    return Drawing(f"differences-{layout.stem}{ending}", "Differences", caption, drawn)


def _difference(found: Comparison, title: str, scale: float) -> paper.Difference:
    task, effect = tasks.TASKS[found.contrast.task], found.effect
    value, low, high = (scale * number for number in (effect.value, effect.low, effect.high))
    group = f"{SHORT[task.name]}, {task.title.lower()}"
    return paper.Difference(group, title, value, low, high, found.adjusted)


def reliability(evidence: Evidence, ending: str) -> Drawing | None:
    """Calibration of our system, or of the first there is, before and after prior correction; None without answers."""
    answered = [
        label
        for label in (OURS, BASELINE)
        if any(label in evidence.labels(task) for task in tasks.DISEASES)
    ]
    panels: dict[str, list[paper.ReliabilityCurve]] = {}
    for task in tasks.DISEASES:
        bins = evidence.reliability(answered[0], task) if answered else None
        if bins is not None:
            named = zip(("as trained (balanced)", "prior-corrected"), bins)
            panels[SHORT[task]] = [_curve(name, one) for name, one in named if one is not None]
    if not panels:
        return None
    caption = f"Reliability of {TITLES[answered[0]]} on the test set, in ten bins of equal size; bars: 95 % intervals."
    return Drawing(f"reliability{ending}", "Reliability", caption, paper.reliability(panels))


def _curve(name: str, bins: Bins) -> paper.ReliabilityCurve:
    return paper.ReliabilityCurve(name, bins.predicted, bins.observed, bins.low, bins.high, bins.n)


# -- training and cohort -----------------------------------------------------------------------------------------------


def training(found: Sequence[Run]) -> list[Drawing]:
    """Loss curves of every pre-training, validation curves of the final runs on all labels."""
    many = len({run.trial.space for run in found}) > 1
    before: dict[str, pd.DataFrame] = {}
    judged: dict[str, dict[str, list[pd.DataFrame]]] = {}
    metrics: dict[str, str] = {}
    swept = appendix.sweeps(found)
    for run in found:
        trial, here = run.trial, f" [{run.trial.space}]" if many else ""
        if trial.stage == "pretrain":
            rate = f", rate {dict(trial.knobs).get('lr', 0):g}"
            own = (
                appendix.TITLES.get(trial.label, trial.label) + rate
                if trial.system_folder in swept
                else ""
            )
            name = (own or appendix.titled(trial)) + here
            again = f" ({trial.point}, seed {trial.seed})" if name in before else ""
            before[name + again] = pd.read_parquet(run.folder / store.CURVE)
        elif (
            trial.stage == "final" and trial.take == 1 and trial.modality != "tabular"
        ):  # trees have rounds, not epochs
            task = tasks.of(trial.task, (trial.task,))
            name = f"{SHORT.get(task.name, task.title)}{here}"
            metrics[name] = task.metric
            system = TITLES.get(trial.label, trial.label)
            judged.setdefault(name, {}).setdefault(system, []).append(
                pd.read_parquet(run.folder / store.CURVE)
            )
    drawn = []
    if before:
        drawn.append(
            Drawing(
                "curves-pretraining", "", "Loss of each pre-training.", curves.pretraining(before)
            )
        )
    if judged:
        caption = "Fine-tuning on all labels: the selecting metric on the validation split, one line per seed."
        drawn.append(Drawing("curves-validation", "", caption, curves.validation(judged, metrics)))
    return drawn


def example(opened: Cohort) -> list[Drawing]:
    """One subject of the validation split, with CMR if anyone has it; no name, no age: a picture is enough."""
    index = opened.rows("val")
    index = index[presence.has(index, "ecg")]
    imaged = presence.has(index, "cmr")
    chosen = index[imaged].head(1) if imaged.any() else index.head(1)
    if chosen.empty:
        return []
    names = ("ecg", "cmr") if imaged.any() else ("ecg",)
    signals = opened.load(chosen, names)
    printed = recordings.stored("ecg", signals["ecg"][0].astype(float))
    words = "A 12-lead ECG of the validation split, as prepared and before group normalisation."
    drawn = [Drawing("example-ecg", "", words, printed)]
    if "cmr" in signals:
        words = "The same subject’s short-axis frames, as the image encoder gets them."
        drawn.append(Drawing("example-cmr", "", words, recordings.stored("cmr", signals["cmr"][0])))
    return drawn
