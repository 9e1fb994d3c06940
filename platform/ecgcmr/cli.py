"""Every command, once: `ecgcmr <command>` here, `python jobs/<command>.py` on a cluster.

A command checks its arguments, opens what it needs, calls one function of the layer below and says in a few lines what
came of it. Results go to stdout, the rest to stderr. Bad input is one line and exit code 2, and leaves nothing behind;
whatever else goes wrong is one line, a log file and exit code 1.
"""

import argparse
import collections
import contextlib
import errno
import importlib
import itertools
import json
import logging
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ecgcmr import progress, store
from ecgcmr.errors import InputError
from ecgcmr.trial import Trial

SPACES = Path(__file__).resolve().parents[2] / "search_spaces"
SCALES = ("toy", "small", "full")
CACHES = ("auto", "device", "host", "off")
SHOWN = ("table", "others", "labels")  # of the report's tables, those that a terminal shows whole
SUBJECTS = {"toy": 1600, "small": 5000, "full": 40_044}


def door(name: str) -> Any:
    """A module of the package, imported when a command needs it: Ray and Aim take seconds to import."""
    return importlib.import_module(f"ecgcmr.{name}")


class Screen:
    """What comes out while a command runs: results on stdout, the display and notes on stderr."""

    def __init__(self, args: argparse.Namespace, out: progress.Streams) -> None:
        folders = [path for name in ("runs", "cohort") if (path := getattr(args, name, None))]
        self.out = out
        self.display = progress.Display(folders, out.person)
        self.cpus = getattr(args, "cpus", None)
        self.ray = False

    def say(self, text: str = "") -> None:
        """Write a line of result."""
        print(text, file=self.out.results, flush=True)

    def note(self, text: str) -> None:
        """Write a line that belongs to no result."""
        print(text, file=self.out.person, flush=True)

    def need_ray(self) -> None:
        """Join the cluster at hand, or start Ray on this machine, once per command; finished work never starts it."""
        if not self.ray:
            door("cluster").start(cpus=self.cpus)
            self.ray = True

    def close(self) -> None:
        """Leave the cluster, or stop what was started here."""
        if self.ray:
            door("cluster").stop()


# -- cohort ------------------------------------------------------------------------------------------------------------


def cohort_synth(args: argparse.Namespace, screen: Screen) -> int:
    """Make a synthetic paired cohort."""
    subjects = args.subjects or SUBJECTS[args.scale]
    with screen.display.stage(f"Cohort of {subjects:,} synthetic subjects") as notes:
        screen.need_ray()
        made = door("cohort").synth(args.cohort, subjects=subjects, seed=args.seed)
        notes.append(rows_of(made))
    screen.say(f"{args.cohort}: {flow_of(made)}")
    return 0


def cohort_build(args: argparse.Namespace, screen: Screen) -> int:
    """Make a cohort of real recordings."""
    with screen.display.stage("Cohort of recordings") as notes:
        screen.need_ray()
        made = door("cohort").build(
            args.cohort,
            ecg=args.ecg,
            cmr=args.cmr,
            labels=args.labels,
            rules=rules_of(args),
            seed=args.seed,
            key=args.key,
            crop=args.crop,
        )
        notes.append(rows_of(made))
    screen.say(f"{args.cohort}: {flow_of(made)}")
    if "audit" in made.manifest:
        for line in ["", *door("labels").audit_lines(made.manifest["audit"])]:
            screen.say(line)
    return 0


def cohort_labels(args: argparse.Namespace, screen: Screen) -> int:
    """Read labels files, say what they hold, and write them as one table; no recordings are touched."""
    labels = door("labels")
    found = labels.read_labels(args.files, rules_of(args))
    if args.out:
        labels.write_labels(args.out, found, args.files)
    for line in labels.audit_lines(found.audit):
        screen.say(line)
    return 0


def rules_of(args: argparse.Namespace) -> Any:
    """How labels files are to be read."""
    asked = {name: getattr(args, name) for name in ("visit", "censored", "codes", "allow_empty")}
    return door("labels").rules(args.disease, **asked)


def cohort_withdraw(args: argparse.Namespace, screen: Screen) -> int:
    """Make a cohort without the people on a list; no recording is read again. Then delete the old cohort yourself."""
    withdraw = door("withdraw")
    with screen.display.stage(f"Withdrawal from {args.cohort}") as notes:
        options = {"key": args.key, "ignore_unknown": args.ignore_unknown}
        made = withdraw.withdraw(args.cohort, args.out, args.list, **options)
        notes.append(rows_of(made))
    one, stale = made.manifest["replaces"][0], withdraw.mark(args.runs, made)
    people = f"{one['people']:,} {'person' if one['people'] == 1 else 'people'}"
    screen.say(f"{args.out}: {people} ({one['rows']:,} rows) fewer than {args.cohort}")
    screen.say(
        f"{stale:,} trials under {args.runs} were made with them: run them again" if stale else "no trial is stale"
    )
    screen.say(f"Delete when nothing needs it any more: {args.cohort}, {args.cohort}.link.csv, {args.cohort}.key")
    return 0


def cohort_check(args: argparse.Namespace, screen: Screen) -> int:
    """Verify a cohort; every fault is a line."""
    with screen.display.stage(f"Check of {args.cohort}"):
        faults = door("check").check(args.cohort)
    for fault in faults:
        screen.say(f"  {fault}")
    screen.say(f"{args.cohort}: {len(faults)} faults" if faults else f"{args.cohort}: clean")
    return 2 if faults else 0


def rows_of(cohort: Any) -> str:
    """`1,120 train, 240 val, 240 test`."""
    return ", ".join(f"{n:,} {split}" for split, n in cohort.manifest["rows"].items())


def flow_of(cohort: Any) -> str:
    """`found 224 → readable 224 → plausible 209 (12 flat lead) → kept 209`."""
    words = []
    for step in cohort.manifest["flow"]:
        reasons = ", ".join(f"{n} {reason}" for reason, n in step.get("reasons", {}).items())
        lost = "less" if step.get("unit") == "recordings" else "the rest"
        words.append(f"{step['step']} {step['n']:,}" + (f" ({lost} {reasons})" if reasons else ""))
    return " → ".join(words)


# -- recordings --------------------------------------------------------------------------------------------------------


def inspect(args: argparse.Namespace, screen: Screen) -> int:
    """Say what a reader sees in files of any format, and what a cohort would do with them; writes nothing but plots."""
    inspect, told, failed = door("inspect"), [], 0
    for path in args.files:
        claims = inspect.find(path)
        one = len(claims) == 1
        for seen in itertools.islice(inspect.look(claims), args.limit):
            failed += bool(seen.error)
            if seen.error:
                screen.note(f"ecgcmr: {seen.source} ({seen.format}): {seen.error}")
            elif not args.json:
                screen.say("\n".join(lines_of(seen)) if one else line_of(seen, path))
            told.append(inspect.as_json(seen))
            if args.plot and seen.picture is not None:
                screen.note(f"drawn: {draw(seen, args.plot, len(told))}")
        if len(claims) > args.limit:
            screen.note(f"{path}: the first {args.limit:,} of {len(claims):,} recordings; see more with --limit")
    if args.json:
        screen.say(json.dumps(told, indent=1))
    return 2 if failed else 0


def lines_of(seen: Any) -> list[str]:
    """A recording in a few lines."""
    said = {
        "format": f"{seen.format} ({seen.kind.upper()})",
        **seen.facts,
        "flags": "; ".join(seen.flags) or "none",
        "changes": "; ".join(seen.repairs) or "none",
        "cohort": "keeps it" if seen.kept else f"leaves it out: {'; '.join(seen.faults)}",
    }
    return [seen.source, *(f"  {name:8s} {words}" for name, words in said.items())]


def line_of(seen: Any, above: Path) -> str:
    """A recording of many in one line."""
    name = os.path.relpath(seen.source, above if above.is_dir() else above.parent)
    size = [seen.facts[word] for word in ("rate", "length", "stack", "cycle") if word in seen.facts]
    verdict = "kept" if seen.kept else f"left out: {seen.faults[0]}"
    return "  ".join([name, f"{seen.format} {seen.kind.upper()}", *size, verdict, *seen.flags])


def draw(seen: Any, place: Path, number: int) -> Path:
    """Draw a recording into a folder, or into the image file that is named."""
    figures, stem = door("report.figures"), Path(seen.source).name
    title = "  ".join([stem, *seen.flags, *seen.faults])
    figure = (
        figures.ecg_paper(seen.picture, 500, title) if seen.kind == "ecg" else figures.frames(seen.picture, title=title)
    )
    named = place.suffix.lower() in (".png", ".svg", ".pdf")
    if named and number > 1:
        raise InputError(f"{place}: one image for several recordings; name a folder")
    path: Path = figures.save(figure, place if named else place / f"{number:03d}-{stem}.png")
    return path


# -- training ----------------------------------------------------------------------------------------------------------


def load(args: argparse.Namespace, stage: str | None = None) -> list[Trial]:
    """The trials of a search-space file, of one stage if asked."""
    found: list[Trial] = door("spaces").load(args.space)
    return [trial for trial in found if stage in (None, trial.stage)]


def grid_of(args: argparse.Namespace, screen: Screen) -> list[Trial]:
    """The grid of a search space as this cohort can run it: starts named, and what it is too small for said and left out."""
    listed = door("study").resolved(load(args), args.runs)
    kept, left_out = door("spaces").feasible(
        [trial for trial in listed if trial.stage == "grid"], door("cohort").open(args.cohort)
    )
    for reason, n in left_out.items():
        screen.note(f"left out, {n} trials: {reason}")
    return door("spaces").halving(kept, args.asha) if args.asha else kept


def pretrain(args: argparse.Namespace, screen: Screen) -> int:
    """Pre-train every encoder of a search space."""
    trials = load(args, "pretrain")
    if args.only:
        trials = [trial for trial in trials if trial.label in args.only]
        if not trials:
            raise InputError(f"--only {' '.join(args.only)}: no pre-training of that label in {args.space}")
    fingerprint = door("cohort").open(args.cohort).fingerprint
    todo = [trial for trial in trials if not store.finished(args.runs, trial, fingerprint)]
    if todo:
        door("pretrain").check_all(todo, args.cohort, args.runs, args.workers)
        with screen.display.stage(f"Pre-training: {', '.join(dict.fromkeys(trial.label for trial in todo))}") as notes:
            screen.need_ray()
            options = {name: getattr(args, name) for name in ("workers", "device", "precision", "cache")}
            with door("track").following(args.runs, args.runs / "aim"):
                rows = door("pretrain").run_all(trials, args.cohort, args.runs, **options)
            losses = [row for row in rows if row["metric"] == "loss" and row["split"] == "val"]
            notes.append(", ".join(f"{row['label']} {row['value']:.3f}" for row in losses))
    screen.say(f"{len(trials)} pre-trainings finished under {args.runs}")
    return 0


def run_trials(args: argparse.Namespace, screen: Screen, title: str, trials: list[Trial], budget: int | None) -> int:
    """Run what is not finished of `trials`, in packs; how many were run."""
    sweep, cohort = door("sweep"), door("cohort").open(args.cohort)
    todo = [trial for trial in trials if not store.finished(args.runs, trial, cohort.fingerprint)]
    if todo:
        door("spaces").check(todo, cohort, args.runs)
        with screen.display.stage(f"{title}: {len(todo)} of {len(trials)} trials") as notes:
            screen.need_ray()
            with door("track").following(args.runs, args.runs / "aim"):
                options = {"device": args.device, "precision": args.precision, "concurrency": args.packs}
                sweep.run(trials, args.cohort, args.runs, budget=budget, **options)
            notes.append(f"{len(todo)} trials")
    return len(todo)


def sweep(args: argparse.Namespace, screen: Screen) -> int:
    """Run the grid of a search space on training and validation rows."""
    trials = grid_of(args, screen)
    ran = run_trials(args, screen, "Grid", trials, args.budget)
    screen.say(f"{ran} trials run, {len(trials) - ran} of {len(trials)} were finished or left out by --budget")
    return 0


def seeds(args: argparse.Namespace, screen: Screen) -> int:
    """Run each best point with five seeds; these runs alone read the test set."""
    finals = door("spaces").finals(grid_of(args, screen), args.runs, budget=args.budget)
    ran = run_trials(args, screen, "Five seeds", finals, None)
    screen.say(f"{ran} trials run, {len(finals) - ran} of {len(finals)} were finished")
    for line in summary(args.runs, finals):
        screen.say(line)
    return 0


def summary(runs: Path, finals: list[Trial]) -> list[str]:
    """One line per system and task: mean ± sd of its metric on the test set over the seeds."""
    rows = store.rows(runs)
    rows = rows[rows.trial.isin([trial.name for trial in finals]) & (rows.split == "test")]
    rows = rows[rows.metric.isin(["auroc", "pearson"])]
    lines = []
    for (task, label, metric), group in rows.groupby(["task", "label", "metric"], sort=True):
        mean, sd = group.value.mean(), group.value.std(ddof=1)
        of = f"({len(group)} seeds, n = {group.n.iloc[0]:,})"
        lines.append(f"  {task:8s} {label:14s} test {metric} {mean:.4f} ± {sd:.4f}  {of}")
    return lines


# -- results -----------------------------------------------------------------------------------------------------------


def report(args: argparse.Namespace, screen: Screen) -> int:
    """Write tables, figures and the report page from the rows on disk, and bring Aim up to date."""
    page, folder = door("report.page"), args.runs / "report"
    with screen.display.stage("Report"):
        written = page.write(args.runs, args.cohort, folder)
        mirror(args)
    for sheet in written.sheets:
        if sheet.stem.startswith(SHOWN):
            screen.say(f"{sheet.text()}\n")
    for sheet in written.sheets:
        if sheet.stem.startswith("claims"):
            screen.say("\n".join(claims_of(sheet)) + "\n")
    screen.say(f"Report page   {written.files[page.PAGE]}   open it in a browser")
    screen.say(f"Tables        {folder}/*.md *.csv *.tex")
    screen.say(f"Figures       {folder}/*.png")
    screen.say(f"Aim           {args.runs / 'aim'}   open with:  aim up --repo {args.runs / 'aim'}")
    return 0


def claims_of(sheet: Any) -> list[str]:
    """How many of the paper's claims came out how, and those that these runs decide."""
    verdicts = collections.Counter(record["verdict"] for record in sheet.records)
    counts = ", ".join(f"{verdict} {n}" for verdict, n in verdicts.most_common())
    decided = [record for record in sheet.records if record["verdict"] != door("report.verdicts").OPEN]
    return [f"{sheet.title} {counts}; reasons are on the page.", *(f"  {r['verdict']}: {r['claim']}" for r in decided)]


def mirror(args: argparse.Namespace) -> None:
    """Bring the Aim repository up to date; trouble there is logged and never stops a run."""
    door("track").mirror(args.runs, args.runs / "aim")


def track_rebuild(args: argparse.Namespace, screen: Screen) -> int:
    """Make the Aim repository again from the rows on disk."""
    with screen.display.stage("Aim repository from the rows on disk") as notes:
        count = door("track").rebuild(args.runs, args.runs / "aim")
        notes.append(f"{count} runs")
    screen.say(f"{args.runs / 'aim'}: {count} runs, equal to the rows on disk")
    return 0


def reproduce(args: argparse.Namespace, screen: Screen) -> int:
    """Cohort, pre-training, grid, seeds, tables: all in order; what is finished is skipped."""
    args.space = args.space or SPACES / f"{args.scale}.py"
    args.only = None
    listed = load(args)
    if not (args.cohort / "_cohort.json").exists() or args.subjects:
        cohort_synth(args, screen)
    door("spaces").check_labels(listed, door("cohort").open(args.cohort), ("train", "val", "test"))
    if any(trial.stage == "pretrain" for trial in listed):
        pretrain(args, screen)
    grid = grid_of(args, screen)
    run_trials(args, screen, "Grid", grid, args.budget)
    finals = door("spaces").finals(grid, args.runs, budget=args.budget)
    run_trials(args, screen, "Five seeds", finals, None)
    return report(args, screen)


def plan(args: argparse.Namespace, screen: Screen) -> int:
    """Print what would run, and what it would cost, before anything starts."""
    for line in door("plan").bill(load(args), args.cohort, args.runs, calibrate=not args.no_calibration):
        screen.say(line)
    return 0


def status(args: argparse.Namespace, screen: Screen) -> int:
    """Say what has finished and what runs."""
    rows = store.rows(args.runs)
    folders = ["/".join(name.split("/")[:4]) for name in rows.trial.unique()]
    for folder in sorted(set(folders)):
        screen.say(f"finished  {folder}  {folders.count(folder):,} trials")
    for line in stale_of(args.runs):
        screen.say(line)
    for record in store.running(args.runs):
        words = progress.describe(record)
        idle = time.time() - record.get("now", record["started"])
        state = "running " if idle < progress.STALE_S else "stopped "
        screen.say("  ".join([state, *(words[k] for k in ("name", "count", "rate", "shown") if words[k])]))
    if rows.empty and not store.running(args.runs):
        screen.say(f"nothing under {args.runs} yet")
    return 0


def stale_of(runs: Path) -> list[str]:
    """A line for each study with trials that were made with people who have withdrawn since."""
    since = store.withdrawn(runs)
    found: collections.Counter[tuple[str, int]] = collections.Counter()
    for folder, record in store.records(runs) if since else ():
        if record["recipe"]["cohort"] in since:
            study = "/".join(folder.relative_to(runs).parts[:4])
            found[study, since[record["recipe"]["cohort"]]] += 1
    return [
        f"stale     {study}  {n:,} trials: from their cohort {people:,} people have withdrawn since; run them again"
        for (study, people), n in sorted(found.items())
    ]


def doctor(args: argparse.Namespace, screen: Screen) -> int:
    """Say what this machine, its packages, Ray and Aim can do."""
    findings = door("doctor").examine(args.runs, args.cohort)
    for finding in findings:
        screen.say(f"{'✓' if finding.good else '✗'} {finding.what:10s} {finding.text}")
    return 0 if all(finding.good for finding in findings) else 1


# -- a model in use ----------------------------------------------------------------------------------------------------


def predict(args: argparse.Namespace, screen: Screen) -> int:
    """Answer ECG files: calibrated risks and phenotypes, with intervals. What cannot be served is a line and exit code 2."""
    predicting, page = door("predict"), door("report.prediction") if args.page else None
    listed = predicting.recordings(args.file)
    if page and len(listed) > page.MOST:
        raise InputError(f"--page: shows at most {page.MOST} ECGs, {len(listed):,} are named; use --csv or --json")
    model = predicting.load(args.model, args.system, args.device)
    caution(args, screen, model.asked[0].runs[0].folder)
    found = []
    with counted(args, screen, f"{model.system} of {model.about['model']}: {len(listed):,} ECGs", len(listed)) as tick:
        for one in model.answered(listed, keep=page is not None):
            found.append(one)
            tick(len(found))
    good = [one for one in found if isinstance(one, predicting.Prediction)]
    for one in found:
        if isinstance(one, predicting.Refused):
            screen.note(f"ecgcmr: {one.source}: {one.reason}")
    if good:
        write_predictions(args, model, found)
    if page and good:
        page.write(args.page, good, model)
    for line in predicting.lines(good):
        screen.say(line)
    return 0 if len(good) == len(found) else 2


def caution(args: argparse.Namespace, screen: Screen, folder: Path) -> None:
    """Say what whoever uses the runs of a folder should know of where they come from, on stderr."""
    served = door("served")
    said = [line for run in served.records(folder) for line in served.cautions(run, args.runs)]
    for line in dict.fromkeys(said):
        screen.note(f"ecgcmr: {line}")


def write_predictions(args: argparse.Namespace, model: Any, found: list[Any]) -> None:
    """The files that were asked for, whole or not at all."""
    predicting = door("predict")
    if args.csv:
        table = predicting.table(found)
        store.write_whole(args.csv, lambda aside: table.to_csv(aside, index=False))
    if args.json:
        store.write_json(args.json, predicting.record(model.about, found))


@contextlib.contextmanager
def counted(
    args: argparse.Namespace, screen: Screen, title: str, total: int, unit: str = "ECGs"
) -> Iterator[Callable[[int], None]]:
    """Show a stage of so many ECGs or rows; the function that is yielded is told how many are done."""
    shown = store.Progress(args.runs, args.name, total, unit)
    with screen.display.stage(title):
        try:
            yield shown.update
        finally:
            shown.close()
            store.vacate([shown.path.parent])


def embed(args: argparse.Namespace, screen: Screen) -> int:
    """Write embeddings of a cohort, or of ECG files, as Parquet. A file that cannot be served is a line and exit code 2."""
    if args.file and args.modality == "cmr":
        raise InputError("--modality cmr: images are embedded from a cohort; name one with --cohort, and no file")
    caution(args, screen, args.model)
    if args.file:
        listed = door("predict").recordings(args.file)
        with counted(args, screen, f"Embeddings of {len(listed):,} ECGs", len(listed)) as tick:
            refused = door("embed").of_files(args.model, listed, args.out, device=args.device, tick=tick)
        for one in refused:
            screen.note(f"ecgcmr: {one.source}: {one.reason}")
        screen.say(f"{args.out}: {len(listed) - len(refused):,} embeddings, {len(refused):,} files refused")
        return 2 if refused else 0
    rows = len(door("cohort").open(args.cohort).rows())
    with counted(args, screen, f"Embeddings of {args.cohort}", rows, "rows") as tick:
        options = {"modality": args.modality, "device": args.device, "cpus": args.cpus, "tick": tick}
        made = door("embed").of_cohort(args.model, args.cohort, args.out, **options)
    screen.say(f"{args.out}: {made['rows']:,} embeddings of {made['width']} numbers ({made['pooling']})")
    return 0


def share(args: argparse.Namespace, screen: Screen) -> int:
    """Make a folder of a model that can be handed on: all that predict needs, and no row about a person."""
    runs = door("served").share(args.model, args.out, args.system)
    caution(args, screen, next(iter(runs.values()))[0].folder)
    screen.say(f"{args.out}: {', '.join(f'{task} ({len(seeds)} seeds)' for task, seeds in runs.items())}")
    return 0


# -- models ------------------------------------------------------------------------------------------------------------


def explain(args: argparse.Namespace, screen: Screen) -> int:
    """Draw what a run looks at: where in the CMR an ECG finds itself, or which leads and times of ECGs it attends to.

    A file that cannot be served is a line and exit code 2.
    """
    ecgs, pair = bool(args.files), bool(args.ecg or args.cmr)
    if ecgs + pair + bool(args.subject) != 1 or (pair and not (args.ecg and args.cmr)):
        raise InputError("give ECG files, or --subject, or --ecg with --cmr")
    return explain_ecgs(args, screen) if ecgs else explain_pair(args, screen)


def explain_pair(args: argparse.Namespace, screen: Screen) -> int:
    """The similarity map of an ECG and a CMR image."""
    opened = door("model").open_run(args.model, args.runs)
    caution(args, screen, store.folder(opened.runs, opened.name))
    if args.subject:
        found = door("explain").pair(opened.runs, opened.name, door("cohort").open(args.cohort), args.subject)
    else:
        found = door("explain").pair_of_files(opened.runs, opened.name, args.ecg, args.cmr)
    drawn = door("report.explained").pair(found, opened.trial.label, args.subject or args.ecg.stem)
    screen.say(f"{door('report.figures').save(drawn, args.out)}")
    return 0


def explain_ecgs(args: argparse.Namespace, screen: Screen) -> int:
    """Attention over the leads and times of ECG files."""
    opened, explained = door("model").open_run(args.model, args.runs), door("report.explained")
    caution(args, screen, store.folder(opened.runs, opened.name))
    refused: list[str] = []

    def refuse(key: str, reason: str) -> None:
        refused.append(reason)
        screen.note(f"ecgcmr: {key}: {reason}")

    written = explained.attention(opened, args.files, args.out, refuse)
    if not written:
        raise InputError(f"none of {len(refused)} recordings can serve; the reasons are above")
    if opened.head is None:
        screen.note(
            "a pre-training pools all patches alike: its attention does not tell what matters (docs/explain-export.md)"
        )
    for key, table in written.items():
        screen.say(f"{args.out / key}.png .csv .json   most: {explained.most(table)}")
    return 2 if refused else 0


def export(args: argparse.Namespace, screen: Screen) -> int:
    """Write what a run learnt to a file for elsewhere."""
    caution(args, screen, store.folder(*door("model").find(args.model, args.runs)))
    for line in door("export").write(args.model, args.out, args.format, runs=args.runs, part=args.part):
        screen.say(line)
    screen.say(f"{args.out}")
    return 0


def import_weights(args: argparse.Namespace, screen: Screen) -> int:
    """Make a finished pre-training of an encoder that came in a file, from which trials may start."""
    name = door("model").adopt(
        args.weights, args.runs, part=args.part, space=args.space, label=args.label, heads=args.heads
    )
    screen.say(f'{args.runs / name}\nstart a trial from it with  starts=(("{args.part}", "{name}"),)')
    return 0


# -- the command line --------------------------------------------------------------------------------------------------

EXAMPLES = {
    "cohort synth": "ecgcmr cohort synth --subjects 2000 --scale toy --cohort cohorts/synthetic",
    "cohort build": "ecgcmr cohort build --ecg wfdb:recordings --cohort cohorts/cinc",
    "cohort labels": "ecgcmr cohort labels diagnoses.csv --disease hf=I50,I11.0 --out labels.csv",
    "cohort withdraw": "ecgcmr cohort withdraw --list withdrawn.csv --cohort cohorts/ukbb --out cohorts/ukbb-2",
    "cohort check": "ecgcmr cohort check --cohort cohorts/cinc",
    "inspect": "ecgcmr inspect recordings/A0002.hea --plot A0002.png",
    "pretrain": "ecgcmr pretrain search_spaces/table3.py --cohort cohorts/ukbb --runs runs",
    "sweep": "ecgcmr sweep search_spaces/table3.py --cohort cohorts/ukbb --runs runs",
    "seeds": "ecgcmr seeds search_spaces/table3.py --cohort cohorts/ukbb --runs runs",
    "report": "ecgcmr report --cohort cohorts/ukbb --runs runs",
    "reproduce": "ecgcmr reproduce --scale toy --cohort toy/cohort --runs toy/runs",
    "plan": "ecgcmr plan search_spaces/table3.py --cohort cohorts/ukbb",
    "status": "ecgcmr status --runs runs",
    "doctor": "ecgcmr doctor",
    "explain": "ecgcmr explain --model runs/table3/final/af/mmcl/batch=32,lr=1e-05/seed=0 recordings --out attention",
    "export": "ecgcmr export --model runs/table3/pretrain/ecg/mae --format onnx --out encoder.onnx",
    "import": "ecgcmr import --weights signal_encoder_mmcl.pth --part ecg --space published --label mmcl --runs runs",
    "track rebuild": "ecgcmr track rebuild --runs runs",
    "predict": "ecgcmr predict --model runs/toy/final --csv risks.csv --page page.html ecgs/00001_hr.hea",
    "embed": "ecgcmr embed --model runs/toy/pretrain/ecg/mae --cohort cohorts/ukbb --out embeddings/mae",
    "share": "ecgcmr share --model runs/toy/final --system mmcl --out models/mmcl",
}


def parser() -> argparse.ArgumentParser:
    """The grammar of the command line."""
    top = argparse.ArgumentParser(
        prog="ecgcmr",
        description="Teach the 12-lead ECG what cardiac MRI knows.",
        epilog=f"start here:\n  {EXAMPLES['doctor']}\n  {EXAMPLES['reproduce']}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    cohort = commands.add_parser("cohort", help="make or check one").add_subparsers(required=True, metavar="ACTION")
    synth = command(cohort, "cohort synth", cohort_synth, "make a synthetic paired cohort")
    synth.add_argument("--subjects", type=whole, help="how many (default: by scale)")
    synth.add_argument("--scale", choices=SCALES, default="toy")
    synth.add_argument("--seed", type=int, default=0)
    build = command(cohort, "cohort build", cohort_build, "make a cohort of recordings")
    for kind, what in (
        ("--ecg", "ECGs lie, e.g. wfdb:recordings"),
        ("--cmr", "short-axis stacks lie, e.g. dicom:stacks"),
    ):
        build.add_argument(kind, metavar="FORMAT:PATH", action="append", default=[], help=f"where {what}; repeatable")
    build.add_argument("--labels", type=Path, action="append", metavar="FILE", help="table of labels; may be repeated")
    build.add_argument("--key", type=Path, help="file with the key of the pseudonyms (made if absent; keep it outside)")
    build.add_argument(
        "--crop",
        choices=("heart", "fixed", "none"),
        default="heart",
        help="cut images to the heart, to the authors' one box, or not (default: heart)",
    )
    build.add_argument("--seed", type=int, default=0)
    table = command(cohort, "cohort labels", cohort_labels, "count what labels files hold, and merge them")
    table.add_argument("files", type=Path, nargs="+", metavar="FILE", help="table of labels, as for `cohort build`")
    table.add_argument("--out", type=Path, metavar="FILE", help="write the merged labels here, as CSV or Parquet")
    for made in (build, table):
        label_rules(made)
    leave = command(cohort, "cohort withdraw", cohort_withdraw, "make one without the people on a list")
    leave.add_argument("--list", type=Path, required=True, help="one id a line: participant, recording or pseudonym")
    leave.add_argument("--out", type=Path, required=True, help="the new cohort's folder")
    leave.add_argument("--key", type=Path, help="file with the key of the pseudonyms, if not beside the cohort")
    leave.add_argument("--ignore-unknown", action="store_true", help="pass over ids that are not in the data")
    command(cohort, "cohort check", cohort_check, "verify a cohort; faults by file and row")

    see = command(
        commands, "inspect", inspect, "what a file of any format holds, and whether a cohort keeps it", folders=False
    )
    see.add_argument("files", type=Path, nargs="+", metavar="FILE", help="recordings, or folders of them")
    see.add_argument("--plot", type=Path, metavar="DIR", help="draw what can be drawn into a folder, or FILE.png")
    see.add_argument("--json", action="store_true", help="print JSON instead of text")
    see.add_argument("--limit", type=whole, default=1000, help="recordings of a folder (default: 1000)")

    pre = command(commands, "pretrain", pretrain, "pre-train the encoders of a search space", space=True, trains=True)
    pre.add_argument("--only", nargs="+", metavar="LABEL", help="only these systems, e.g. mae")
    grid = command(commands, "sweep", sweep, "run the grid of a search space", space=True, trains=True)
    final = command(commands, "seeds", seeds, "run the best points with five seeds, on test", space=True, trains=True)
    command(commands, "report", report, "write tables, figures, the page, and Aim")
    every = command(commands, "reproduce", reproduce, "all of it, in order", trains=True)
    every.add_argument("--scale", choices=SCALES, default="toy")
    every.add_argument("--space", type=Path, help="search-space file (default: by scale)")
    every.add_argument("--subjects", type=whole, help="of the synthetic cohort, if it has to be made")
    every.add_argument("--seed", type=int, default=0, help="of the synthetic cohort")
    for made in (pre, every):
        made.add_argument("--workers", type=whole, default=1, help="Ray Train workers")
        made.add_argument(
            "--cache",
            choices=CACHES,
            default="auto",
            help="where rows stay after an epoch of pre-training (auto: what fits)",
        )
    for made in (grid, final, every):
        made.add_argument("--packs", type=whole, help="at once (default: one per GPU, else by cores; more share a GPU)")
        made.add_argument("--budget", type=whole, help="points per system and task, by TPE (default: the whole grid)")
        made.add_argument(
            "--asha",
            type=whole,
            metavar="N",
            help="stop trials early: at each of three rungs the best one in N goes on (the paper runs all; results say so)",
        )
    bill = command(commands, "plan", plan, "what would run and what it would cost", space=True)
    bill.add_argument("--no-calibration", action="store_true", help="do not time a few steps on this machine")
    command(commands, "status", status, "what has finished and what runs")
    command(commands, "doctor", doctor, "what this machine, its packages, Ray and Aim can do")
    parse_models(commands)
    track = commands.add_parser("track", help="the Aim repository").add_subparsers(required=True, metavar="ACTION")
    answer = serving(command(commands, "predict", predict, "answer ECG files: risks and phenotypes"))
    answer.add_argument(
        "file", nargs="+", metavar="FILE", help="an ECG in any format that can be read, or a folder of them"
    )
    for kind, text in (
        ("csv", "one row per ECG and answer"),
        ("json", "one entry per ECG"),
        ("page", "HTML, to look at"),
    ):
        answer.add_argument(f"--{kind}", type=Path, metavar="FILE", help=f"write it there: {text}")
    answer.add_argument("--device", help="cpu, cuda, cuda:1 … (default: a GPU if there is one)")
    vectors = serving(
        command(commands, "embed", embed, "embeddings of a cohort, or of ECG files, as Parquet"), several=False
    )
    vectors.add_argument("file", nargs="*", metavar="FILE", help="an ECG, or a folder of them (default: the cohort)")
    vectors.add_argument("--out", type=Path, required=True, help="the folder to write")
    vectors.add_argument("--modality", choices=("ecg", "cmr"), help="which encoder (default: the only one, or ecg)")
    vectors.add_argument("--device", help="cpu, cuda, cuda:1 … (default: a GPU if there is one)")
    vectors.add_argument("--cpus", type=whole, help="cores for a local Ray (default: all)")
    handed = serving(command(commands, "share", share, "make a folder of a model that can be handed on"))
    handed.add_argument("--out", type=Path, required=True, help="the folder to make")
    command(track, "track rebuild", track_rebuild, "make the Aim repository again from the rows on disk")
    return top


def parse_models(commands: Any) -> None:
    """The grammar of what is done with finished runs and their weights."""
    seen = command(commands, "explain", explain, "what a run looks at, in a pair or in ECGs")
    seen.add_argument("files", nargs="*", type=Path, metavar="FILE", help="ECG files or folders: attention in each")
    seen.add_argument("--subject", metavar="PSEUDONYM", help="of --cohort: similarity of ECG and CMR")
    seen.add_argument("--ecg", type=Path, metavar="FILE", help="with --cmr: similarity of the two files")
    seen.add_argument("--cmr", type=Path, metavar="FILE", help="short-axis stack")
    gone = command(commands, "export", export, "write a run's weights for elsewhere")
    gone.add_argument("--format", required=True, choices=("safetensors", "authors", "onnx"))
    for made, what in ((seen, "folder for attention, file.png for a pair"), (gone, "file")):
        made.add_argument("--model", required=True, metavar="RUN", help="a run's folder, or its name under --runs")
        made.add_argument("--out", required=True, type=Path, help=what)
    came = command(commands, "import", import_weights, "make a run of a weight file, to start from")
    came.add_argument("--weights", required=True, type=Path, metavar="FILE", help=".safetensors, or .pth of tensors")
    came.add_argument("--space", required=True, help="first folder of the run's name")
    came.add_argument("--label", required=True, help="word for the system, e.g. mmcl")
    came.add_argument("--heads", type=whole, help="attention heads, where the file does not tell")
    for made, needed in ((gone, False), (came, True)):
        made.add_argument("--part", choices=("ecg", "cmr"), required=needed, help="which encoder")


def command(
    commands: Any,
    name: str,
    function: Callable[..., int],
    text: str,
    *,
    space: bool = False,
    trains: bool = False,
    folders: bool = True,
) -> argparse.ArgumentParser:
    """Add a command with what all commands share; one without `folders` knows neither cohort nor runs and leaves no log."""
    made: argparse.ArgumentParser = commands.add_parser(
        name.split()[-1],
        help=text,
        description=function.__doc__,
        epilog=f"example:\n  {EXAMPLES[name]}",
        formatter_class=argparse.RawDescriptionHelpFormatter,  # an example has to survive being copied
    )
    made.set_defaults(function=function, name=name)
    if space:
        made.add_argument("space", type=Path, help="search-space file, e.g. search_spaces/table3.py")
    if folders:
        made.add_argument("--cohort", type=Path, default=Path("cohort"), help="the cohort's folder (default: cohort)")
        made.add_argument("--runs", type=Path, default=Path("runs"), help="where runs are kept (default: runs)")
    if trains:
        made.add_argument("--device", help="cpu, cuda, cuda:1 … (default: a GPU if there is one)")
        choices = ("auto", "float32", "bfloat16")
        made.add_argument("--precision", choices=choices, default="auto", help="auto: bfloat16 where the device has it")
        made.add_argument("--cpus", type=whole, help="cores for a local Ray (default: all)")
    return made


def label_rules(made: argparse.ArgumentParser) -> None:
    """The options that say how labels files are read (docs/labels.md)."""
    made.add_argument(
        "--disease",
        action="append",
        default=[],
        metavar="NAME=CODES",
        help="a disease besides cad, af and dm; may be repeated",
    )
    made.add_argument(
        "--visit", type=int, default=2, help="UK Biobank's instance: 2 imaging (default), 3 repeat imaging"
    )
    made.add_argument("--censored", metavar="DATE", help="end of the records (default: the latest date seen)")
    made.add_argument("--codes", default="all_diag_hosp", metavar="COLUMN", help="column with lists of ICD-10 codes")
    made.add_argument("--allow-empty", action="store_true", help="take codes of --disease that nobody has")


def serving(made: argparse.ArgumentParser, several: bool = True) -> argparse.ArgumentParser:
    """Add which model answers: several runs that make up a system, or one run."""
    of = "of final runs, e.g. runs/toy/final, or made by `share`" if several else "of one run, pre-trained or final"
    made.add_argument("--model", type=Path, required=True, help=f"the folder {of}")
    if several:
        made.add_argument("--system", help="which of its systems (default: the only one, or mmcl)")
    return made


def whole(text: str) -> int:
    """A positive whole number."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a positive whole number")
    return int(text)


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    args = parsed(argv)
    for name in ("runs", "cohort"):
        if hasattr(args, name):
            setattr(args, name, getattr(args, name).expanduser().resolve())
    kept = hasattr(args, "runs")
    folder = args.runs / "logs" if kept else Path(tempfile.mkdtemp(prefix="ecgcmr-"))
    log = folder / f"{args.name.replace(' ', '-')}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    try:
        with progress.captured(log) as out:
            code = run(args, out)
        if not kept and code != 1:  # 1 tells where the log is
            shutil.rmtree(folder, ignore_errors=True)
        return code
    except OSError as error:
        print(f"ecgcmr: {os_words(error)}", file=sys.stderr)
        return 2


def parsed(argv: list[str] | None) -> argparse.Namespace:
    """The arguments. A reader of the help who has left is no error, and Python would find it only at its end."""
    try:
        return parser().parse_args(argv)
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(args: argparse.Namespace, out: progress.Streams) -> int:
    """Call the command's function and turn what it raises into a line and an exit code."""
    logger = logging.getLogger("ecgcmr")
    screen = Screen(args, out)
    try:
        return args.function(args, screen)
    except InputError as error:
        logger.info("refused: %s", error)
        screen.note(f"ecgcmr: {' '.join(str(error).split())}")
        if not worked(args, screen):
            out.discard()
        return 2
    except (KeyboardInterrupt, SystemExit):  # Ray Train turns the first into the second
        screen.note("ecgcmr: stopped; the same command goes on where this one was")
        return 130
    except OSError as error:
        logger.error(traceback.format_exc())
        screen.note(f"ecgcmr: {os_words(error)}")
        return 2
    except Exception as error:
        logger.error(traceback.format_exc())
        screen.note(f"ecgcmr: {type(error).__name__}: {first_line(error)}; the whole story is in {out.log}")
        return 1
    finally:
        screen.close()


def worked(args: argparse.Namespace, screen: Screen) -> bool:
    """Whether a refused command has finished a cohort or a trial before: then its log tells of something."""
    if not screen.ray:  # neither is made without, and a search of all runs may take seconds
        return False
    made = [args.cohort / "_cohort.json", *args.runs.glob(f"**/seed=*/{store.RECORD}")]
    return any(path.exists() and path.stat().st_mtime >= screen.out.since for path in made)


def first_line(error: BaseException) -> str:
    """The first line of an error's text, short."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else "no message"


def os_words(error: OSError) -> str:
    """A failure of the file system in one line that says what to do."""
    if error.errno == errno.ENOSPC:
        where = error.filename or "the output folder"
        return f"no space left on the disk of {where}; free some and run the same command again"
    if error.errno in (errno.EACCES, errno.EROFS):
        return f"{error.filename}: not allowed to write or read there; choose another --runs or --cohort"
    return f"{error.filename or 'a file'}: {error.strerror or error}"


if __name__ == "__main__":
    sys.exit(main())
