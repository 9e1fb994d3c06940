"""The report page: one HTML file that stands alone, with the tables and figures as files beside it.

It says what was trained on whom, with what result, from rows, curves and the cohort's manifest. The same files on disk give
the same bytes. It computes no result of its own: numbers come from `tables`, pictures from `curves` and `figures`.
"""

import base64
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from matplotlib.figure import Figure

from ecgcmr import __version__, cohort, ecg, store, tasks
from ecgcmr import trial as trials
from ecgcmr.cohort import Cohort
from ecgcmr.report import curves, figures, tables
from ecgcmr.trial import Trial

PAGE = "index.html"
SPLITS = ("train", "val", "test")
TITLES = {"simclr": "SimCLR", **{system.label: system.title for system in tables.SYSTEMS}}
SIGNALS = {"ecg": "ECG", "cmr": "CMR", "ecg+cmr": "ECG + CMR"}  # in the order that pre-trainings need each other


def write(runs: Path, cohort_path: Path, out: Path) -> dict[str, Path]:
    """Write the page, the tables and the figures; the path of each, the page under "page".

    Args:
        runs: where finished trials lie.
        cohort_path: the cohort that they were trained on.
        out: folder to write to; files of the same name are replaced, each whole or not at all.

    Raises:
        InputError: there is no complete cohort at `cohort_path`.
    """
    opened = cohort.open(cohort_path)
    found = list(store.records(runs))
    synthetic = opened.manifest["source"] == "synthetic"
    made = tables.every(store.rows(runs), labels=opened.manifest["labels"], paper=not synthetic)
    drawn = _drawings(opened, found)
    written: dict[str, Path] = {}
    for stem, table in made.items():
        for ending, text in (("md", table.markdown()), ("csv", table.csv()), ("tex", table.latex())):
            written[f"{stem}.{ending}"] = _put(out / f"{stem}.{ending}", text.encode())
    pictures = {}
    for name, figure in drawn.items():
        picture = curves.png(figure)
        written[f"{name}.png"] = _put(out / f"{name}.png", picture)
        pictures[name] = f"data:image/png;base64,{base64.b64encode(picture).decode()}"  # the page needs no other file
    text = _template().render(**_words(opened, runs, found, synthetic), tables=made, pictures=pictures)
    return {"page": _put(out / PAGE, text.encode()), **written}


def _template() -> jinja2.Template:
    """The page's template; escapes whatever it is given."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    settings = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return settings.get_template("page.html.jinja")


def _put(path: Path, content: bytes) -> Path:
    """Write a file, whole or not at all."""

    def fill(aside: Path) -> None:
        aside.write_bytes(content)

    store.write_whole(path, fill)
    return path


# -- figures -----------------------------------------------------------------------------------------------------------

Found = Iterable[tuple[Path, dict[str, Any]]]


def _drawings(opened: Cohort, found: Found) -> dict[str, Figure]:
    """Every figure that the files can fill, by file stem."""
    drawn = _example(opened)
    parsed = [(folder, trials.from_json(record["trial"])) for folder, record in found]
    many = len({trial.space for _, trial in parsed}) > 1
    before: dict[str, pd.DataFrame] = {}
    judged: dict[str, dict[str, list[pd.DataFrame]]] = {}
    metrics: dict[str, str] = {}
    for folder, trial in sorted(parsed, key=lambda pair: _order(pair[1])):
        here = f" [{trial.space}]" if many else ""
        if trial.stage == "pretrain":
            name = _titled(trial) + here
            again = f" ({trial.point}, seed {trial.seed})" if name in before else ""
            before[name + again] = pd.read_parquet(folder / store.CURVE)
        elif trial.stage == "final" and trial.take == 1:
            task = tasks.of(trial.task, (trial.task,))
            name = f"{tables.SHORT.get(task.name, task.title)}{here}"
            metrics[name] = task.metric
            system = TITLES.get(trial.label, trial.label)
            judged.setdefault(name, {}).setdefault(system, []).append(pd.read_parquet(folder / store.CURVE))
    if before:
        drawn["curves-pretraining"] = curves.pretraining(before)
    if judged:
        drawn["curves-validation"] = curves.validation(judged, metrics)
    return drawn


def _order(trial: Trial) -> tuple[Any, ...]:
    """Tasks and systems in the order of the tables, pre-trainings in that of their making, then by name."""
    labels, names = list(TITLES), [*SIGNALS, *tasks.TASKS]
    task = names.index(trial.task) if trial.task in names else len(names)
    label = labels.index(trial.label) if trial.label in labels else len(labels)
    return (trial.space, task, trial.task, label, trial.name)


def _example(opened: Cohort) -> dict[str, Figure]:
    """One subject of the test split, with CMR if anyone has it; no name, no age: a picture is enough."""
    index = opened.rows("test")
    index = index[index.has_ecg]
    chosen = index[index.has_cmr].head(1) if index.has_cmr.any() else index.head(1)
    if chosen.empty:
        return {}
    names = ("ecg", "cmr") if bool(chosen.has_cmr.iloc[0]) else ("ecg",)
    signals = opened.load(chosen, names)
    drawn = {"example-ecg": figures.ecg_paper(signals["ecg"][0].astype(float), ecg.RATE_HZ)}
    if "cmr" in signals:
        drawn["example-cmr"] = figures.frames(signals["cmr"][0])
    return drawn


# -- words -------------------------------------------------------------------------------------------------------------


def _words(opened: Cohort, runs: Path, found: list[tuple[Path, dict[str, Any]]], synthetic: bool) -> dict[str, Any]:
    """Everything the template says but tables and pictures."""
    manifest = opened.manifest
    parsed = [(trials.from_json(record["trial"]), record) for _, record in found]
    stages = {stage: sum(trial.stage == stage for trial, _ in parsed) for stage in trials.STAGES}
    strangers = sum(record["recipe"]["cohort"] != opened.fingerprint for _, record in found)
    return {
        "version": __version__,
        "manifest": manifest,
        "synthetic": synthetic,
        "stages": stages,
        "strangers": strangers,
        "subjects": sum(manifest["rows"].values()),
        "flow": manifest["flow"],
        "repairs": _counted(repair["what"] for repair in manifest["repairs"]),
        "counts": _counts(opened),
        "phenotypes": _phenotypes(manifest["labels"]),
        "settings": _settings(parsed, manifest),
        "splits": SPLITS,
        "pretrainings": [_pretraining(trial, record, runs / trial.name)
                         for trial, record in sorted(parsed, key=lambda pair: _order(pair[0])) if trial.stage == "pretrain"],
        "points": _chosen_points(parsed),
        "recipe": json.dumps(manifest["recipe"], indent=1, sort_keys=True, ensure_ascii=False),
    }  # fmt: skip


def _counted(words: Iterable[str]) -> list[tuple[str, int]]:
    """Distinct words with their number, most frequent first."""
    counts = pd.Series(list(words), dtype=object).value_counts()
    return sorted(((str(word), int(n)) for word, n in counts.items()), key=lambda pair: (-pair[1], pair[0]))


def _counts(opened: Cohort) -> list[tuple[str, list[str]]]:
    """Lines of the cohort table: subjects, signals and positives per split, then over all."""
    index, labels = opened.rows(), opened.manifest["labels"]
    splits = [*(index[index.split == split] for split in SPLITS), index]
    lines = [("Subjects", [f"{len(rows):,}" for rows in splits])]
    for name, title in (("has_ecg", "with ECG"), ("has_cmr", "with CMR")):
        lines.append((title, [f"{int(rows[name].sum()):,}" for rows in splits]))
    binary = [name for name, by in labels.items() if all("positive" in part for part in by.values())]
    for name in [*(n for n in tasks.DISEASES if n in binary), *sorted(set(binary) - set(tasks.DISEASES))]:
        parts = [labels[name][split] for split in SPLITS]
        parts.append({key: sum(part[key] for part in parts) for key in ("n", "positive")})
        lines.append((f"{tables.SHORT.get(name, name)} positive", [_share(p["positive"], p["n"]) for p in parts]))
    return lines


def _share(part: int, whole: int) -> str:
    """`80 (7.1 %)`, of those whose label is known."""
    return f"{part:,} ({100 * part / whole:.1f} %)" if whole else "—"


def _phenotypes(labels: Mapping[str, Any]) -> list[tuple[str, str, list[str]]]:
    """Name, unit and mean per split of every measured number."""
    measured = [name for name, by in labels.items() if all("mean" in part for part in by.values())]
    ordered = [*(n for n in tasks.PHENOTYPES if n in measured), *sorted(set(measured) - set(tasks.PHENOTYPES))]
    found = []
    for name in ordered:
        means = [labels[name][split]["mean"] for split in SPLITS]
        found.append((name, tasks.UNITS.get(name, ""), ["—" if m is None else f"{m:.1f}" for m in means]))
    return found


def _settings(parsed: list[tuple[Trial, dict[str, Any]]], manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What one has to know to run the same again, as (name, words) pairs."""
    every = [trial for trial, _ in parsed]
    notes = [record["provenance"] for _, record in parsed]
    found: dict[str, Iterable[str]] = {
        "Search space": {trial.space for trial in every},
        "Preset": {trial.preset for trial in every},
        "Seeds": map(str, sorted({trial.seed for trial in every if trial.stage == "final"})),
        "ECG transformer": {
            f"{t.network.width} wide, {t.network.depth} layers, {t.network.heads} heads" for t in every
        },
        "Precision": {str(note["precision"]) for note in notes if "precision" in note},
        "Device": {str(note["device"]) for note in notes if "device" in note},
        "Versions": {f"{name} {number}" for note in notes for name, number in note.get("versions", {}).items()},
        "Cohort": [f"{manifest['name']} (source {manifest['source']}, seed {manifest['seed']})"],
        "Cohort fingerprint": [manifest["fingerprint"]],
        "Recipe hash": [manifest["recipe_hash"]],
    }
    ordered = {name: words if name == "Seeds" else sorted(words) for name, words in found.items()}
    return [(name, text) for name, words in ordered.items() if (text := ", ".join(words))]


def _pretraining(trial: Trial, record: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """One line of the table of pre-trainings."""
    rows = pd.read_parquet(folder / store.ROWS)
    loss = rows[(rows.split == "val") & (rows.metric == "loss")].value
    note = record["provenance"]
    return {
        "title": _titled(trial),
        "starts": ", ".join(
            f"{SIGNALS.get(part, part)}: {TITLES.get(name.split('/')[3], name)}" for part, name in trial.starts
        ),
        "epochs": f"{trial.epochs:,}",
        "batch": f"{trial.batch:,}",
        "rate": f"{dict(trial.knobs)['lr']:g}" if "lr" in dict(trial.knobs) else "default",
        "loss": f"{loss.iloc[0]:.4f}" if len(loss) else "—",
        "time": f"{note['seconds'] / 60:,.1f} min" if "seconds" in note else "—",
        "status": record["status"],
    }


def _titled(trial: Trial) -> str:
    """`MMCL, ECG + CMR`."""
    return f"{TITLES.get(trial.label, trial.label)}, {SIGNALS.get(trial.task, trial.task)}"


def _system(name: str) -> str:
    """The system that a trial's name (`space/stage/task/label/…`) stands for."""
    words = name.split("/")
    return TITLES.get(words[3], words[3]) if len(words) > 3 else name


def _chosen_points(parsed: list[tuple[Trial, dict[str, Any]]]) -> list[tuple[str, str, str, int]]:
    """(task, system, point, seeds) of the final runs: what the grid chose."""
    finals = sorted((trial for trial, _ in parsed if trial.stage == "final" and trial.take == 1), key=_order)
    seeds: dict[tuple[str, str, str], int] = {}
    for trial in finals:
        title = tables.SHORT.get(trial.task, trial.task)
        key = (title, TITLES.get(trial.label, trial.label), trial.point.replace(",", ", "))
        seeds[key] = seeds.get(key, 0) + 1
    return [(*key, n) for key, n in seeds.items()]
