"""Results: the report, Aim, what has finished and what is stale, and what this machine can do."""

import argparse
import collections
import time
from pathlib import Path
from typing import Any

from ecgcmr import store
from ecgcmr.commands import progress
from ecgcmr.commands.console import Console, command, lazy
from ecgcmr.runs import all_runs, check_names, withdrawn_since
from ecgcmr.trial import name_parts

SHOWN = ("table", "others", "labels")  # of the report's tables, those that a terminal shows whole
EXAMPLES = {
    "report": "ecgcmr report --cohort cohorts/ukbb --runs runs",
    "status": "ecgcmr status --runs runs",
    "doctor": "ecgcmr doctor",
    "track rebuild": "ecgcmr track rebuild --runs runs",
}


def report(args: argparse.Namespace, console: Console) -> int:
    """Write tables, figures and the report page from the rows on disk, and bring Aim up to date."""
    check_names(args.runs)
    page, folder = lazy("report.page"), args.runs / "report"
    with console.display.stage("Report"):
        output = page.write(args.runs, args.cohort, folder)
        mirror(args)
    for line in lazy("evaluation.selection").contradictions(args.runs):
        console.note(f"ecgcmr: {line}")
    for table in output.tables:
        if table.stem.startswith(SHOWN):
            console.say(f"{table.text()}\n")
    for table in output.tables:
        if table.stem.startswith("claims"):
            console.say("\n".join(claims_of(table)) + "\n")
    console.say(f"Report page   {output.files[page.PAGE]}   open it in a browser")
    console.say(f"Tables        {folder}/*.md *.csv *.tex")
    console.say(f"Figures       {folder}/*.png")
    aim = args.runs / "aim"
    console.say(f"Aim           {aim}   open with:  aim up --repo {aim}")
    return 0


def claims_of(table: Any) -> list[str]:
    """How many of the paper's claims came out how, and those that these runs decide."""
    verdicts = collections.Counter(record["verdict"] for record in table.records)
    counts = ", ".join(f"{verdict} {n}" for verdict, n in verdicts.most_common())
    decided_claims = [
        record
        for record in table.records
        if record["verdict"] != lazy("report.results.verdicts").OPEN
    ]
    return [
        f"{table.title} {counts}; reasons are on the page.",
        *(f"  {r['verdict']}: {r['claim']}" for r in decided_claims),
    ]


def mirror(args: argparse.Namespace) -> None:
    """Bring the Aim repository up to date; trouble there is logged and never stops a run."""
    lazy("report.track").mirror(args.runs, args.runs / "aim")


def track_rebuild(args: argparse.Namespace, console: Console) -> int:
    """Make the Aim repository again from the rows on disk."""
    check_names(args.runs)
    with console.display.stage("Aim repository from the rows on disk") as notes:
        count = lazy("report.track").rebuild(args.runs, args.runs / "aim")
        notes.append(f"{count} runs")
    console.say(f"{args.runs / 'aim'}: {count} runs, equal to the rows on disk")
    return 0


def status(args: argparse.Namespace, console: Console) -> int:
    """Say what has finished and what runs."""
    check_names(args.runs)
    rows = store.rows(args.runs)
    trials = rows.drop_duplicates("trial")
    folders = trials.trial.map(lambda name: name_parts(name).system_folder)
    for folder, members in trials.groupby(folders):
        seeds = sorted(set(members.seed)) if name_parts(str(folder)).stage == "pretrain" else []
        several = f", seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else ""
        console.say(f"finished  {folder}  {len(members):,} trials{several}")
    for line in stale_of(args.runs):
        console.say(line)
    for record in store.running(args.runs):
        words = progress.describe(record)
        idle = time.time() - record.get("now", record["started"])
        state = "running " if idle < progress.STALE_S else "stopped "
        console.say(
            "  ".join([state, *(words[k] for k in ("name", "count", "rate", "shown") if words[k])])
        )
    if rows.empty and not store.running(args.runs):
        console.say(f"nothing under {args.runs} yet")
    return 0


def stale_of(runs: Path) -> list[str]:
    """A line for each study with trials that were made with people who have withdrawn since."""
    since = store.withdrawn(runs)
    stale_trials: collections.Counter[tuple[str, int]] = collections.Counter()
    for run in all_runs(runs) if since else ():
        if people := withdrawn_since(runs, run.cohort, run.trial.init_from, since):
            stale_trials[run.trial.system_folder, people] += 1
    return [
        f"stale     {study}  {n:,} trials: from their cohort {people:,} people have withdrawn "
        "since; run them again"
        for (study, people), n in sorted(stale_trials.items())
    ]


def doctor(args: argparse.Namespace, console: Console) -> int:
    """Say what this machine, its packages, Ray and Aim can do."""
    findings = lazy("commands.doctor").examine(args.runs, args.cohort)
    for finding in findings:
        console.say(f"{'✓' if finding.good else '✗'} {finding.name:10s} {finding.text}")
    return 0 if all(finding.good for finding in findings) else 1


def grammar(commands: Any) -> None:
    """Add what shows results, and what shows the machine."""
    command(commands, "report", report, "write tables, figures, the page, and Aim", EXAMPLES)
    command(commands, "status", status, "what has finished and what runs", EXAMPLES)
    command(
        commands, "doctor", doctor, "what this machine, its packages, Ray and Aim can do", EXAMPLES
    )
    track = commands.add_parser("track", help="the Aim repository").add_subparsers(
        required=True, metavar="ACTION"
    )
    command(
        track,
        "track rebuild",
        track_rebuild,
        "make the Aim repository again from the rows on disk",
        EXAMPLES,
    )
