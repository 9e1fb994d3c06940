"""Results: the report, Aim, what has finished and what is stale, and what this machine can do."""

import argparse
import collections
import time
from pathlib import Path
from typing import Any

from ecgcmr import store
from ecgcmr.commands import progress
from ecgcmr.commands.console import Screen, command, door
from ecgcmr.runs import all_runs, withdrawn_since
from ecgcmr.trial import name_parts

SHOWN = ("table", "others", "labels")  # of the report's tables, those that a terminal shows whole
EXAMPLES = {
    "report": "ecgcmr report --cohort cohorts/ukbb --runs runs",
    "status": "ecgcmr status --runs runs",
    "doctor": "ecgcmr doctor",
    "track rebuild": "ecgcmr track rebuild --runs runs",
}


def report(args: argparse.Namespace, screen: Screen) -> int:
    """Write tables, figures and the report page from the rows on disk, and bring Aim up to date."""
    page, folder = door("report.page"), args.runs / "report"
    with screen.display.stage("Report"):
        written = page.write(args.runs, args.cohort, folder)
        mirror(args)
    for line in door("evaluation.selection").contradictions(args.runs):
        screen.note(f"ecgcmr: {line}")
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
    decided = [
        record
        for record in sheet.records
        if record["verdict"] != door("report.results.verdicts").OPEN
    ]
    return [
        f"{sheet.title} {counts}; reasons are on the page.",
        *(f"  {r['verdict']}: {r['claim']}" for r in decided),
    ]


def mirror(args: argparse.Namespace) -> None:
    """Bring the Aim repository up to date; trouble there is logged and never stops a run."""
    door("report.track").mirror(args.runs, args.runs / "aim")


def track_rebuild(args: argparse.Namespace, screen: Screen) -> int:
    """Make the Aim repository again from the rows on disk."""
    with screen.display.stage("Aim repository from the rows on disk") as notes:
        count = door("report.track").rebuild(args.runs, args.runs / "aim")
        notes.append(f"{count} runs")
    screen.say(f"{args.runs / 'aim'}: {count} runs, equal to the rows on disk")
    return 0


def status(args: argparse.Namespace, screen: Screen) -> int:
    """Say what has finished and what runs."""
    rows = store.rows(args.runs)
    folders = [name_parts(name).system_folder for name in rows.trial.unique()]
    for folder in sorted(set(folders)):
        screen.say(f"finished  {folder}  {folders.count(folder):,} trials")
    for line in stale_of(args.runs):
        screen.say(line)
    for record in store.running(args.runs):
        words = progress.describe(record)
        idle = time.time() - record.get("now", record["started"])
        state = "running " if idle < progress.STALE_S else "stopped "
        screen.say(
            "  ".join([state, *(words[k] for k in ("name", "count", "rate", "shown") if words[k])])
        )
    if rows.empty and not store.running(args.runs):
        screen.say(f"nothing under {args.runs} yet")
    return 0


def stale_of(runs: Path) -> list[str]:
    """A line for each study with trials that were made with people who have withdrawn since."""
    since = store.withdrawn(runs)
    found: collections.Counter[tuple[str, int]] = collections.Counter()
    for run in all_runs(runs) if since else ():
        if people := withdrawn_since(runs, run.cohort, run.trial.starts, since):
            found[run.trial.system_folder, people] += 1
    return [
        f"stale     {study}  {n:,} trials: from their cohort {people:,} people have withdrawn since; run them again"
        for (study, people), n in sorted(found.items())
    ]


def doctor(args: argparse.Namespace, screen: Screen) -> int:
    """Say what this machine, its packages, Ray and Aim can do."""
    findings = door("commands.doctor").examine(args.runs, args.cohort)
    for finding in findings:
        screen.say(f"{'✓' if finding.good else '✗'} {finding.what:10s} {finding.text}")
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
