"""Why are systems below chance on AF in 224 real recordings? Labels, rhythm, chance and learning apart, in one line of JSON.

    ecgcmr cohort build --ecg wfdb:recordings --cohort cohorts/af       (pretrain, sweep, evaluate of search_spaces/af.py)
    python benchmarks/studies/af_real.py --recordings recordings --cohort cohorts/af --runs runs

* `labels`: the cohort's column against the headers' `#Dx` lines, read here anew, and positives/labelled by source.
* `rhythm`: AUROC of three measures of irregular RR intervals and of heart rate, from peaks of the stored signals. They learn
  nothing and must work if signals and labels belong together. Beside them age, and the source's share of AF in training.
* `runs`: scores of the evaluation runs recomputed with the headers' labels, and of their weights on the rows they learnt
  from; how far outputs made anew, one recording at a time, are from the stored ones; epochs kept; how alike the systems
  order the subjects; and how often as many positives drawn at random would make the same outputs look as bad.
* `learning`: five folds over all labelled recordings, the network and the balanced rows of `search_spaces/af.py` from random
  weights, kept at the last epoch; the same on all rows; and two labels of half the people, on as few rows and on all.

Needs `<cohort>.link.csv` beside the cohort; prints counts and scores, no subjects. Minutes on two cores.
"""

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from scipy.signal import butter, find_peaks, sosfiltfilt
from torch import Tensor

from ecgcmr import methods, presets, store, tasks
from ecgcmr import trial as trials
from ecgcmr.cohort import dataset
from ecgcmr.data import examples, sampler
from ecgcmr.evaluation import statistics
from ecgcmr.runs import all_runs
from ecgcmr.search import sweep
from ecgcmr.signals import ecg
from ecgcmr.training import finetune
from ecgcmr.trial import Trial

SOURCES = {
    "A": "CPSC2018",
    "Q": "CPSC-Extra",
    "E": "Georgia",
    "HR": "PTB-XL",
    "JS": "Chapman-Ningbo",
}
FIBRILLATION = {"AF", "164889003", "195080001", "426749004", "282825002", "314208002"}
FLUTTER = {"164890007", "195080001"}
SPLITS = ("train", "val", "test")
TASK = tasks.of("af")
CONFIGURATION = (
    "batch=16,layer_decay=0.75,lr=0.003"  # that the grid chose for five of the six systems
)
FOLDS = 5
DRAWS = 20000


# -- labels and sources ------------------------------------------------------------------------------------------------


def table(opened: dataset.Cohort, recordings: Path) -> pd.DataFrame:
    """The index with what the headers say: `source`, and `fibrillation`, `flutter`, `stated` as 0, 1 or NaN."""
    link = pd.read_csv(opened.path.with_name(opened.path.name + ".link.csv")).set_index("subject")[
        "key"
    ]
    rows = opened.rows().reset_index(drop=True)
    stems = [str(link[subject]) for subject in rows.subject]
    said = [words(recordings / f"{stem}.hea") for stem in stems]
    for name, codes in (
        ("fibrillation", FIBRILLATION),
        ("flutter", FLUTTER),
        ("stated", FIBRILLATION | FLUTTER),
    ):
        rows[name] = [float(bool(listed & codes)) if listed else np.nan for listed in said]
    rows["source"] = [SOURCES[re.match("[A-Z]+", stem)[0]] for stem in stems]  # type: ignore[index]
    return rows


def words(header: Path) -> set[str]:
    """What a header lists after `#Dx:`; nothing for "Unknown"."""
    found = re.search(r"(?im)^#\s*dx:(.*)$", header.read_text(errors="replace"))
    return {word.strip() for word in (found[1] if found else "").split(",")} - {"", "Unknown"}


def labels(rows: pd.DataFrame) -> dict[str, Any]:
    """Labels that differ from the headers', and positives/labelled by split and source."""
    known = rows[rows.stated.notna()]
    counts = {
        split: {
            "af": f"{int(part.stated.sum())}/{len(part)}",
            "flutter": int(part.flutter.sum()),
            "by_source": {
                source: f"{int(of.stated.sum())}/{len(of)}" for source, of in part.groupby("source")
            },
        }
        for split in SPLITS
        for part in [known[known.split == split]]
    }
    differ = int((rows.af.fillna(-1) != rows.stated.fillna(-1)).sum())
    return {"recordings": len(rows), "labelled": len(known), "differ": differ, **counts}


# -- rhythm ------------------------------------------------------------------------------------------------------------


def beats(signal: np.ndarray) -> np.ndarray:
    """Seconds at which the slope of all leads together peaks, 8 to 25 Hz: (12, samples) mV -> (beats,)."""
    band = sosfiltfilt(
        butter(3, (8, 25), "bandpass", fs=ecg.RATE_HZ, output="sos"), signal, axis=-1
    )
    slope = np.gradient(band / (band.std(-1, keepdims=True) + 1e-9), axis=-1)
    window = np.ones(50) / 50  # 0.1 s, a QRS complex
    strength = np.sqrt(np.convolve((slope**2).sum(0), window, "same"))
    peaks, _ = find_peaks(
        strength, distance=ecg.RATE_HZ // 4, height=0.4 * np.quantile(strength, 0.98)
    )
    return peaks / ecg.RATE_HZ


def rhythm(signals: np.ndarray) -> pd.DataFrame:
    """Heart rate [1/min] and three irregularities of RR as shares of its level, by record; NaN below four beats.

    `median` is median |change| / median RR, `rmssd` the root mean squared change / mean RR, `cv` their spread / mean RR.
    """
    found = []
    for signal in signals:
        rr = np.diff(beats(signal))
        change = np.diff(rr)
        found.append(
            {
                "rate": 60 / np.median(rr),
                "median": np.median(np.abs(change)) / np.median(rr),
                "rmssd": np.sqrt((change**2).mean()) / rr.mean(),
                "cv": rr.std() / rr.mean(),
            }
            if len(rr) >= 3
            else {}
        )
    return pd.DataFrame(found)


def scored(scores: Any, answers: Any) -> list[Any]:
    """AUROC with DeLong's interval, and how many positives and negatives it rests on."""
    x, y = np.asarray(scores, float), np.asarray(answers, float)
    kept = np.isfinite(x) & np.isfinite(y)
    effect = statistics.auroc_contrast(x[None, kept], y[kept], [1.0])
    ends = (max(effect.low, 0.0), min(effect.high, 1.0))
    return [
        *(round(float(v), 3) for v in (effect.value, *ends)),
        int(y[kept].sum()),
        int((1 - y[kept]).sum()),
    ]


def separated(rows: pd.DataFrame, by: str) -> dict[str, Any]:
    """AUROC of one column: over all rows, by split, and with fibrillation or flutter alone as the positives."""
    chosen = {"all": rows, **{split: rows[rows.split == split] for split in SPLITS}}
    chosen |= {
        "without flutter": rows[rows.flutter != 1],
        "without fibrillation": rows[rows.fibrillation != 1],
    }
    return {name: scored(part[by], part.stated) for name, part in chosen.items()}


# -- the finished runs -------------------------------------------------------------------------------------------------


@torch.no_grad()
def again(
    opened: dataset.Cohort, folder: Path, trial: Trial, stored: pd.Series
) -> tuple[float, float]:
    """AUROC of a run's weights on the rows that they learnt from, and how far its stored outputs are from those made anew.

    Every recording is read and answered alone, so that a confusion of rows or of classes would show.
    """
    preset = presets.preset(trial.preset)
    method = methods.build(
        trial.method, trial.network, preset, outputs=TASK.outputs, modality="ecg", seed=0
    ).eval()
    method.load_state_dict(load_file(folder / store.ENCODER))

    def probability(row: pd.DataFrame) -> float:
        signal = torch.from_numpy(opened.load(row, ("ecg",))["ecg"].astype(np.float32))
        logits = method({"ecg": ecg.normalise(signal)}, None, method.knobs)["logits"]
        return float(logits.softmax(-1)[0, 1])

    train = examples.training_rows(opened, trial).index
    test = opened.rows("test").set_index("subject", drop=False).loc[stored.index]
    known, new = ([probability(part.iloc[[i]]) for i in range(len(part))] for part in (train, test))
    return scored(known, train.af)[0], float(np.abs(np.array(new) - stored.to_numpy()).max())


def evaluations(
    opened: dataset.Cohort, runs: Path, space: str, stated: pd.Series
) -> dict[str, Any]:
    """Scores of the evaluation runs, and what the same outputs would score with test positives drawn at random."""
    outputs: dict[str, dict[tuple[str, int], pd.Series]] = {"val": {}, "test": {}}
    epochs: dict[str, list[int]] = {}
    trained, repeated = set(), []
    for run in all_runs(runs):
        trial, folder = run.trial, run.folder
        if (trial.space, trial.stage, trial.task) != (space, "evaluation", TASK.name):
            continue
        table = pd.read_parquet(folder / store.PREDICTIONS).set_index("subject")
        for split, found in outputs.items():
            found[trial.system, trial.seed] = table[table.split == split]["output:af"]
        epochs.setdefault(trial.system, []).append(
            int(pd.read_parquet(folder / store.ROWS).epoch.iloc[0])
        )
        trained.add(int(run.provenance["n_train"]))
        repeated.append(again(opened, folder, trial, outputs["test"][trial.system, trial.seed]))
    fits, errors = zip(*repeated)
    result: dict[str, Any] = {
        "rows": sorted(trained),
        "on_these_rows": [min(fits), round(float(np.mean(fits)), 3), max(fits)],
        "furthest_output": round(max(errors), 3),
        "epochs_kept": epochs,
    }
    for split, found in outputs.items():
        frame = pd.DataFrame(found)
        result[split] = chance(
            frame.rank(), stated[frame.index].to_numpy(), frame.columns.get_level_values(0)
        )
    return result


def aurocs(ranks: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """AUROC of every column of ranks, by the sum of the positives' ranks."""
    n, k = len(ranks), len(positives)
    return (ranks[positives].sum(0) - k * (k + 1) / 2) / (k * (n - k))


def chance(ranks: pd.DataFrame, answers: np.ndarray, systems: pd.Index) -> dict[str, Any]:
    """Mean AUROC by system, and shares of random draws of as many positives that look like it.

    Returns:
        auroc: by system, mean over seeds; rank_correlation: mean over pairs of systems; as_many_below_half,
        as_low_mean, as_high_mean: shares of draws; single_below_045: of draws with one system's first seed.
    """
    x, names, k = ranks.to_numpy(), np.unique(systems), int(answers.sum())
    mean = np.stack([systems == name for name in names]).astype(float)
    mean /= mean.sum(1, keepdims=True)
    draw = np.random.default_rng(0)
    drawn = np.array([aurocs(x, draw.permutation(len(x))[:k]) for _ in range(DRAWS)])
    observed, random = mean @ aurocs(x, np.flatnonzero(answers)), drawn @ mean.T
    between = pd.DataFrame(x @ mean.T).corr("spearman").to_numpy()
    below = (observed < 0.5).sum()
    return {
        "auroc": {name: round(float(v), 3) for name, v in zip(names, observed)},
        "mean": round(float(observed.mean()), 3),
        "rank_correlation": round(float(between[~np.eye(len(names), dtype=bool)].mean()), 2),
        "below_half": int(below),
        "as_many_below_half": round(float(((random < 0.5).sum(1) >= below).mean()), 3),
        "as_low_mean": round(float((random.mean(1) <= observed.mean()).mean()), 3),
        "as_high_mean": round(float((random.mean(1) >= observed.mean()).mean()), 3),
        "single_below_045": round(float((drawn[:, 0] < 0.45).mean()), 3),
    }


# -- learning ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Learner:
    """What is trained: the trial to imitate, the subjects, their normalised signals, and the seeds."""

    trial: Trial
    subjects: np.ndarray
    signals: Tensor
    seeds: tuple[int, ...]

    def split(self, rows: np.ndarray, answers: np.ndarray) -> examples.Split:
        """Some rows as fit reads them."""
        given = answers[rows]
        return examples.Split(
            self.subjects[rows],
            self.signals[rows],
            given[:, None],
            torch.from_numpy(given.astype(np.int64)),
        )

    def outputs(
        self, train: np.ndarray, test: np.ndarray, answers: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Train to the last epoch; probabilities on the rows trained on and on the others, (seeds, n) each."""
        members = [
            trials.from_json({**trials.to_json(self.trial), "seed": seed}) for seed in self.seeds
        ]
        device, scale = torch.device("cpu"), examples.Scale(np.zeros(1), np.ones(1))
        pack = finetune.assemble(members, TASK, Path(), device, torch.float32)
        rows, draws = self.split(train, answers), finetune.draws_of(members, device)
        per_epoch = sampler.permuted_steps(len(train), self.trial.batch)
        for epoch in range(self.trial.epochs):
            chosen = finetune.orders(draws, epoch, len(train), members, device)
            for now in range(epoch * per_epoch, (epoch + 1) * per_epoch):
                finetune.advance(pack, rows, draws, chosen, now, self.trial.epochs * per_epoch)
        first, second = (
            finetune.evaluate(pack, part, TASK, scale) for part in (rows, self.split(test, answers))
        )
        return first[..., 0].numpy(), second[..., 0].numpy()


def folded(learner: Learner, answers: np.ndarray, most: int) -> dict[str, Any]:
    """Five folds: AUROC on the rows trained on (at most `most` a class), in held-out folds (mean, min, max), and `pooled`.

    The last is of the mean output over seeds, all folds together, with an interval over subjects.
    """
    draw, fold = np.random.default_rng(0), np.full(len(answers), -1)
    for value in (0, 1):
        those = draw.permutation(np.flatnonzero(answers == value))
        fold[those] = np.arange(len(those)) % FOLDS
    pooled, used = np.full((len(learner.seeds), len(answers)), np.nan), []
    inside: list[float] = []
    outside: list[float] = []
    for k in range(FOLDS):
        rest = [
            draw.permutation(np.flatnonzero((fold >= 0) & (fold != k) & (answers == value)))
            for value in (0, 1)
        ]
        train, test = (
            np.sort(np.concatenate([part[:most] for part in rest])),
            np.flatnonzero(fold == k),
        )
        first, second = learner.outputs(train, test, answers)
        pooled[:, test] = second
        used.append(len(train))
        for found, seen, rows in ((inside, first, train), (outside, second, test)):
            found += list(statistics.delong(seen, answers[rows])[0])
    return {
        "rows": round(float(np.mean(used))),
        "trained_on": round(float(np.mean(inside)), 3),
        "held_out": [round(float(f(outside)), 3) for f in (np.mean, np.min, np.max)],
        "pooled": scored(pooled.mean(0), answers),
    }


def learning(
    rows: pd.DataFrame, signals: Tensor, trial: Trial, seeds: tuple[int, ...]
) -> dict[str, Any]:
    """AF on as many negatives as positives and on all rows, and labels of half the people on as few rows and on all."""
    learner = Learner(trial, rows.subject.to_numpy(), signals, seeds)
    few, every = int(rows.stated.sum() * (1 - 1 / FOLDS)), len(rows)
    af, sex = rows.stated.to_numpy(), rows.sex.to_numpy(float)
    fast = np.where(rows.rate.notna(), (rows.rate > rows.rate.median()).astype(float), np.nan)
    asked = (
        ("af", af, few),
        ("af, all rows", af, every),
        ("sex", sex, few),
        ("fast heart", fast, few),
        ("fast heart, all rows", fast, every),
    )
    return {name: folded(learner, answers, most) for name, answers, most in asked}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("recordings", "cohort", "runs"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--space", type=Path, default=Path("search_spaces/af.py"))
    parser.add_argument(
        "--seeds", type=int, nargs="*", default=[0, 1], help="of the five folds; none skips them"
    )
    args = parser.parse_args()
    opened = dataset.open(args.cohort)
    rows = table(opened, args.recordings)
    signals = opened.load(opened.rows(), ("ecg",))["ecg"].astype(np.float32)
    measures = rhythm(signals)
    rows = rows.join(measures).join(
        rhythm(signals[..., : ecg.SAMPLES // 2]).add_prefix("first half ")
    )
    rows["source share"] = rows.source.map(
        rows[rows.split == "train"].groupby("source").stated.mean()
    )
    asked = [*measures, "first half median", "age", "source share"]
    trial = next(
        t
        for t in sweep.load(args.space)
        if (t.system, t.configuration) == ("supervised", CONFIGURATION)
    )
    line = {
        "benchmark": "af_real",
        "labels": labels(rows),
        "rhythm": {name: separated(rows, name) for name in asked},
        "runs": evaluations(opened, args.runs, trial.space, rows.set_index("subject").stated),
    }
    if args.seeds:
        line["learning"] = learning(
            rows, ecg.normalise(torch.from_numpy(signals)).half(), trial, tuple(args.seeds)
        )
    print(json.dumps(line, ensure_ascii=False))


if __name__ == "__main__":
    main()
