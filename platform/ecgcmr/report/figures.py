"""Which runs and which subjects the figures of the page show.

The files of `plots/` draw plain numbers; what these numbers are is decided here, by rules
stated in the captions. A figure that nothing on disk can fill is left out, and one that should be
there says why it is not.
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
from ecgcmr.inference import similarity, subjects
from ecgcmr.paper import LOW_LABEL, SHORT, TITLES, Layout
from ecgcmr.report import appendix
from ecgcmr.report.plots import curves, heatmaps, paper, recordings
from ecgcmr.report.results.evidence import BASELINE, PROPOSED, Evidence
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


# -- results ---------------------------------------------------------------------------------------


def figure4(evidence: Evidence, ending: str) -> Drawing | None:
    """Predicted against measured phenotypes of our system; None if it answered none."""
    scatters = evidence.scatter(PROPOSED)
    if not scatters:
        return None
    panels = [
        paper.Scatter(
            scatter.name.replace("_", " "),
            scatter.unit,
            scatter.measured,
            scatter.predicted,
            scatter.r,
            paper.choose(len(scatter.measured)),
        )
        for scatter in scatters
    ]
    caption = (
        f"{len(panels)} of the 61 phenotypes, predicted from the ECG alone by {TITLES[PROPOSED]} "
        "(mean over its seeds). Points: "
        f"up to {paper.SHOWN} test subjects, drawn by lot; line: regression over all of them; r: "
        "mean over seeds."
    )
    return Drawing(
        f"figure4{ending}", "Figure 4. CMR phenotypes from the ECG", caption, paper.figure4(panels)
    )


def figure5(evidence: Evidence, ending: str) -> Drawing | None:
    """ROC AUC against the share of the labels; None if no run has fewer than all."""
    points = evidence.low_label()
    if all(point.label_fraction == 1 for point in points):
        return None
    panels: dict[str, dict[str, list[paper.Point]]] = {}
    for point in points:
        lines = panels.setdefault(SHORT[point.task], {})
        line = lines.setdefault(_title_of(point.system), [])
        if not point.lack:
            mean, low, high = (100 * value for value in (point.mean, point.low, point.high))
            line.append(paper.Point(point.label_fraction, point.n_train, mean, low, high))
    lacking = sorted(
        {
            f"{_title_of(p.system)}, {SHORT[p.task]}, {100 * p.label_fraction:g} % ({p.lack})"
            for p in points
            if p.lack
        }
    )
    note = f"Not drawn, as seeds are missing: {'; '.join(lacking)}." if lacking else ""
    caption = (
        "Test ROC AUC by the share of the labels used for fine-tuning. Bands: 95 % interval of the "
        "mean over seeds."
    )
    figure = paper.figure5(panels, proposed=_title_of(PROPOSED))
    return Drawing(f"figure5{ending}", "Figure 5. Few labels", caption, figure, note)


def _title_of(name: str) -> str:
    """A system's title in Figure 5."""
    return next(
        (system.title for system in LOW_LABEL if system.name == name), TITLES.get(name, name)
    )


def figure6(cohort: Cohort, runs: Sequence[Run], space: str, ending: str) -> Drawing | None:
    """Similarity maps of the multimodal systems on four validation subjects; None if no such system
    was pre-trained.
    """
    name, title = f"figure6{ending}", "Figure 6. Where ECG and image agree"
    try:
        systems = mapped_systems(runs, space)
        if not systems:
            return None
        index = subjects.cases(cohort)
        maps = similarity.maps_for(list(systems.values()), cohort, index)
    except InputError as error:
        home = str(next(iter(runs)).home)
        return Drawing(name, title, "", None, f"Not drawn: {str(error).replace(home, 'runs')}.")
    signals = cohort.load(index, ("ecg", "cmr"))
    cases = [
        heatmaps.Case(
            caption,
            signals["ecg"][i].astype(float),
            ecg.RATE_HZ,
            signals["cmr"][i][1],
            {TITLES[system]: maps[run.name][i] for system, run in systems.items()},
        )
        for i, caption in enumerate(index["caption"])
    ]
    caption = (
        "Cosine similarity of the whole ECG and each region of the same subject’s image, in the "
        "space where both were "
        "aligned. Four subjects of the validation split, chosen by phenotype before any map was "
        "made."
    )
    return Drawing(name, title, caption, heatmaps.figure6(cases))


def mapped_systems(runs: Sequence[Run], space: str) -> dict[str, Run]:
    """The multimodal pre-training that stands for each system of Figure 6, by system.

    Raises:
        InputError: of several, none was chosen (`selection.standing_pretraining`).
    """
    systems = {}
    for system in MAPPED:
        kind = (space, "pretrain", "mmcl", system)
        candidates = [
            run
            for run in runs
            if (run.trial.space, run.trial.stage, run.trial.method, run.trial.system) == kind
        ]
        standing = selection.standing_pretraining(candidates) if candidates else None
        if standing and not standing.diverged:
            systems[system] = standing
    return systems


def forest(evidence: Evidence, layout: Layout, ending: str) -> Drawing | None:
    """The comparisons of one table; None if there are none."""
    metric = tasks.TASKS[layout.tasks[0]].metric
    scale = PERCENT[metric]
    titles = {system.name: system.title for system in layout.systems}
    rows = [
        _difference(comparison, titles[comparison.contrast.worse], scale)
        for comparison in evidence.comparisons(layout)
    ]
    if not rows:
        return None
    unit = "ROC AUC [points]" if metric == "auroc" else "Pearson's r"
    caption = (
        f"{titles[layout.proposed_system]} minus each other system, on the test subjects of both, "
        "with 95 % intervals. Filled: p below 0.05 after Holm’s adjustment over all tables."
    )
    figure = paper.forest(rows, f"difference in {unit}")
    return Drawing(f"differences-{layout.stem}{ending}", "Differences", caption, figure)


def _difference(comparison: Comparison, title: str, scale: float) -> paper.Difference:
    task, effect = tasks.TASKS[comparison.contrast.task], comparison.effect
    value, low, high = (scale * number for number in (effect.value, effect.low, effect.high))
    group = f"{SHORT[task.name]}, {task.title.lower()}"
    return paper.Difference(group, title, value, low, high, comparison.adjusted)


def reliability(evidence: Evidence, ending: str) -> Drawing | None:
    """Calibration of our system, or of the first there is, before and after prior correction; None
    without answers.
    """
    systems = [
        system
        for system in (PROPOSED, BASELINE)
        if any(system in evidence.systems(task) for task in tasks.DISEASES)
    ]
    panels: dict[str, list[paper.ReliabilityCurve]] = {}
    for task in tasks.DISEASES:
        bins = evidence.reliability(systems[0], task) if systems else None
        if bins is not None:
            curves = zip(("as trained (balanced)", "prior-corrected"), bins)
            panels[SHORT[task]] = [
                _curve(name, bin_counts) for name, bin_counts in curves if bin_counts is not None
            ]
    if not panels:
        return None
    caption = (
        f"Reliability of {TITLES[systems[0]]} on the test set, in ten bins of equal size; bars: 95 "
        "% intervals."
    )
    return Drawing(f"reliability{ending}", "Reliability", caption, paper.reliability(panels))


def _curve(name: str, bins: Bins) -> paper.ReliabilityCurve:
    return paper.ReliabilityCurve(name, bins.predicted, bins.observed, bins.low, bins.high, bins.n)


# -- training and cohort ---------------------------------------------------------------------------


def training(runs: Sequence[Run]) -> list[Drawing]:
    """Loss curves of every pre-training, validation curves of the evaluation runs on all labels."""
    many = len({run.trial.space for run in runs}) > 1
    before: dict[str, pd.DataFrame] = {}
    validations: dict[str, dict[str, list[pd.DataFrame]]] = {}
    metrics: dict[str, str] = {}
    swept = appendix.sweeps(runs)
    for run in runs:
        trial, here = run.trial, f" [{run.trial.space}]" if many else ""
        if trial.stage == "pretrain":
            rate = f", rate {dict(trial.knobs).get('lr', 0):g}"
            swept_title = (
                appendix.TITLES.get(trial.system, trial.system) + rate
                if trial.system_folder in swept
                else ""
            )
            name = (swept_title or appendix.titled(trial)) + here
            again = f" ({trial.configuration}, seed {trial.seed})" if name in before else ""
            before[name + again] = pd.read_parquet(store.verified(run.folder, store.CURVE))
        elif (
            trial.stage == "evaluation"
            and trial.label_fraction == 1
            and trial.modality != "tabular"
        ):  # trees have rounds, not epochs
            task = tasks.of(trial.task, (trial.task,))
            name = f"{SHORT.get(task.name, task.title)}{here}"
            metrics[name] = task.metric
            system = TITLES.get(trial.system, trial.system)
            validations.setdefault(name, {}).setdefault(system, []).append(
                pd.read_parquet(store.verified(run.folder, store.CURVE))
            )
    drawings = []
    if before:
        drawings.append(
            Drawing(
                "curves-pretraining", "", "Loss of each pre-training.", curves.pretraining(before)
            )
        )
    if validations:
        caption = (
            "Fine-tuning on all labels: the selecting metric on the validation split, one line per "
            "seed."
        )
        drawings.append(
            Drawing("curves-validation", "", caption, curves.validation(validations, metrics))
        )
    return drawings


def example(cohort: Cohort) -> list[Drawing]:
    """One subject of the validation split, with CMR if anyone has it; no name, no age: a picture is
    enough.
    """
    index = cohort.rows("val")
    index = index[presence.has(index, "ecg")]
    has_cmr = presence.has(index, "cmr")
    subject = index[has_cmr].head(1) if has_cmr.any() else index.head(1)
    if subject.empty:
        return []
    names = ("ecg", "cmr") if has_cmr.any() else ("ecg",)
    signals = cohort.load(subject, names)
    picture = recordings.stored("ecg", signals["ecg"][0].astype(float))
    words = "A 12-lead ECG of the validation split, as prepared and before group normalisation."
    drawings = [Drawing("example-ecg", "", words, picture)]
    if "cmr" in signals:
        words = "The same subject’s short-axis frames, as the image encoder gets them."
        drawings.append(
            Drawing("example-cmr", "", words, recordings.stored("cmr", signals["cmr"][0]))
        )
    return drawings
