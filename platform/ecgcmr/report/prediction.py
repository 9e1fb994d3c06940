"""The page of a prediction: one HTML file that stands alone, an ECG on millimetre paper and what a
model answers to it.

It computes no answer. Beside each number stands what is usual in the model's cohort, at the end
where the model comes from.
"""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from ecgcmr import files, tasks
from ecgcmr.inference.predict import NOTE, Answer, Model, Prediction
from ecgcmr.report.plots import curves, recordings
from ecgcmr.signals import ecg

MOST = 50  # ECGs on a page
DPI = 150
TASK = {column: task for task in tasks.TASKS.values() for column in task.columns}
FOLDED = ("wt", "ecc", "err")  # by segment: 17 lines each


def write(path: Path, predictions: Sequence[Prediction], model: Model) -> None:
    """Write the page of some predictions, whole or not at all.

    Args:
        path: of the HTML file.
        predictions: at most `MOST`, with their ECGs.
        model: what answered.
    """
    settings = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    ecgs = [_shown(prediction) for prediction in predictions]
    words = {
        "ecgs": ecgs,
        "about": origin(model),
        "note": NOTE,
        "synthetic": model.about["reader"] == "synthetic",
    }
    text = settings.get_template("prediction.html.jinja").render(words)
    files.write_whole(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def _shown(prediction: Prediction) -> dict[str, Any]:
    assert prediction.ecg is not None
    image = curves.png(recordings.ecg_paper(prediction.ecg, ecg.RATE_HZ), DPI)
    groups: dict[str, list[dict[str, Any]]] = {}
    for answer in prediction.phenotypes.values():
        title = TASK[answer.name].title if answer.name in TASK else "Phenotypes"
        groups.setdefault(title, []).append(_line(answer))
    folded_titles = {
        TASK[answer.name].title for answer in prediction.phenotypes.values() if _folds(answer)
    }
    risks = [_risk(answer) for answer in prediction.risks.values()]
    return {
        "key": prediction.key,
        "picture": base64.b64encode(image).decode(),
        "repairs": prediction.repairs,
        "risks": risks,
        "groups": groups,
        "folded": folded_titles,
    }


def _folds(answer: Answer) -> bool:
    return answer.name in TASK and TASK[answer.name].name in FOLDED


def _risk(answer: Answer) -> dict[str, Any]:
    """A risk in words, and where it lies on a scale from 0 to the largest number shown."""
    reach = max(answer.high, answer.cohort) * 1.05
    return {
        "title": answer.title,
        "value": percent(answer.value),
        "interval": f"{percent(answer.low)} to {percent(answer.high)}",
        "cohort": percent(answer.cohort),
        "drawn": _drawn(answer, 0, reach, (answer.cohort, answer.cohort)),
    }


def _line(answer: Answer) -> dict[str, Any]:
    """A phenotype in words, and where it lies beside the cohort's range."""
    ends = [x for x in (answer.low, answer.high, answer.cohort_low, answer.cohort_high) if x == x]
    margin = 0.05 * (max(ends) - min(ends)) if ends else 0
    has_range = bool(ends) and margin > 0
    band = (answer.cohort_low, answer.cohort_high)
    return {
        "title": answer.title,
        "unit": answer.unit,
        "value": f"{answer.value:.1f}",
        "interval": span(answer.low, answer.high),
        "cohort": span(*band),
        "drawn": _drawn(answer, min(ends) - margin, max(ends) + margin, band)
        if has_range
        else None,
    }


def _drawn(
    answer: Answer, start: float, end: float, band: tuple[float, float]
) -> dict[str, float | None]:
    """Places in per cent of the way from `start` to `end`; None for what is not known."""
    values = {
        "value": answer.value,
        "low": answer.low,
        "high": answer.high,
        "left": band[0],
        "right": band[1],
    }
    return {
        name: round(100 * (x - start) / (end - start), 2) if x == x else None
        for name, x in values.items()
    }


def percent(value: float) -> str:
    """`7.0 %`; two digits where it is small."""
    return f"{100 * value:.1f} %" if value >= 0.01 else f"{100 * value:.2g} %"


def span(low: float, high: float) -> str:
    """`87.2 to 204.0`, or that it is not known."""
    return f"{low:.1f} to {high:.1f}" if low == low else "not known"


def origin(model: Model) -> list[tuple[str, str]]:
    """Where answers come from, line by line."""
    about = model.about
    seeds = sorted({seed for of_task in about["seeds"].values() for seed in of_task})
    few = [
        f"{task}: {len(of_task)}"
        for task, of_task in about["seeds"].items()
        if len(of_task) < len(seeds)
    ]
    return [
        ("Model", f"{about['model']}, system {about['system']}"),
        (
            "Tasks",
            ", ".join(f"{task} ({about['configurations'][task]})" for task in about["seeds"]),
        ),
        ("Seeds", ", ".join(map(str, seeds)) + (f" (fewer of {', '.join(few)})" if few else "")),
        ("Cohort", f"fingerprint {about['cohort']}, read as {about['reader']}"),
        ("Recipe", f"hash {about['recipe']}; the ECG above was prepared by it"),
        (
            "Version",
            f"trained with ecgcmr {about['trained_with']}, served with {about['served_with']}",
        ),
    ]
