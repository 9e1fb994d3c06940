"""Cohorts: made of synthetic subjects or of recordings, labelled, checked, reduced; and what a recording holds."""

import argparse
import itertools
import json
import os
from pathlib import Path
from typing import Any

from ecgcmr.commands.console import Screen, command, door, whole
from ecgcmr.errors import InputError
from ecgcmr.signals import ALWAYS, SIGNALS

SUBJECTS = {"toy": 1600, "small": 5000, "full": 40_044}
SCALES = tuple(SUBJECTS)
EXAMPLES = {
    "cohort synth": "ecgcmr cohort synth --subjects 2000 --scale toy --cohort cohorts/synthetic",
    "cohort build": "ecgcmr cohort build --ecg wfdb:recordings --cohort cohorts/cinc",
    "cohort labels": "ecgcmr cohort labels diagnoses.csv --disease hf=I50,I11.0 --out labels.csv",
    "cohort withdraw": "ecgcmr cohort withdraw --list withdrawn.csv --cohort cohorts/ukbb --out cohorts/ukbb-2",
    "cohort check": "ecgcmr cohort check --cohort cohorts/cinc",
    "inspect": "ecgcmr inspect recordings/A0002.hea --plot A0002.png",
}


def synth(args: argparse.Namespace, screen: Screen) -> int:
    """Make a synthetic paired cohort."""
    subjects = args.subjects or SUBJECTS[args.scale]
    with screen.display.stage(f"Cohort of {subjects:,} synthetic subjects") as notes:
        screen.need_ray()
        made = door("cohort.build").synth(args.cohort, subjects=subjects, seed=args.seed)
        notes.append(rows_of(made))
    screen.say(f"{args.cohort}: {flow_of(made)}")
    return 0


def build(args: argparse.Namespace, screen: Screen) -> int:
    """Make a cohort of real recordings."""
    with screen.display.stage("Cohort of recordings") as notes:
        screen.need_ray()
        made = door("cohort.build").build(
            args.cohort,
            ecg=args.ecg,
            cmr=args.cmr,
            others={name: getattr(args, name) for name in SIGNALS if name not in ALWAYS},
            labels=args.labels,
            rules=rules_of(args),
            seed=args.seed,
            key=args.key,
            crop=args.crop,
        )
        notes.append(rows_of(made))
    screen.say(f"{args.cohort}: {flow_of(made)}")
    if "audit" in made.manifest:
        for line in ["", *door("cohort.labels.merge").audit_lines(made.manifest["audit"])]:
            screen.say(line)
    return 0


def labels(args: argparse.Namespace, screen: Screen) -> int:
    """Read labels files, say what they hold, and write them as one table; no recordings are touched."""
    labels = door("cohort.labels.merge")
    found = labels.read_labels(args.files, rules_of(args))
    if args.out:
        labels.write_labels(args.out, found, args.files)
    for line in labels.audit_lines(found.audit):
        screen.say(line)
    return 0


def rules_of(args: argparse.Namespace) -> Any:
    """How labels files are to be read."""
    asked = {name: getattr(args, name) for name in ("visit", "censored", "codes", "allow_empty")}
    return door("cohort.labels.merge").rules(args.disease, **asked)


def withdraw(args: argparse.Namespace, screen: Screen) -> int:
    """Make a cohort without the people on a list; no recording is read again. Then delete the old cohort yourself."""
    withdraw = door("cohort.withdraw")
    with screen.display.stage(f"Withdrawal from {args.cohort}") as notes:
        options = {"key": args.key, "ignore_unknown": args.ignore_unknown}
        made = withdraw.withdraw(args.cohort, args.out, args.list, **options)
        notes.append(rows_of(made))
    one, stale = made.manifest["replaces"][0], withdraw.mark(args.runs, made)
    people = f"{one['people']:,} {'person' if one['people'] == 1 else 'people'}"
    screen.say(f"{args.out}: {people} ({one['rows']:,} rows) fewer than {args.cohort}")
    screen.say(
        f"{stale:,} trials under {args.runs} were made with them: run them again"
        if stale
        else "no trial is stale"
    )
    screen.say(
        f"Delete when nothing needs it any more: {args.cohort}, {args.cohort}.link.csv, {args.cohort}.key"
    )
    return 0


def check(args: argparse.Namespace, screen: Screen) -> int:
    """Verify a cohort; every fault is a line."""
    with screen.display.stage(f"Check of {args.cohort}"):
        faults = door("cohort.check").check(args.cohort)
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


def inspect(args: argparse.Namespace, screen: Screen) -> int:
    """Say what a reader sees in files of any format, and what a cohort would do with them; writes nothing but plots."""
    inspect, told, failed = door("cohort.inspect"), [], 0
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
            screen.note(
                f"{path}: the first {args.limit:,} of {len(claims):,} recordings; see more with --limit"
            )
    if args.json:
        screen.say(json.dumps(told, indent=1))
    return 2 if failed else 0


def lines_of(seen: Any) -> list[str]:
    """A recording in a few lines."""
    said = {
        "format": f"{seen.format} ({SIGNALS[seen.kind].title})",
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
    return "  ".join(
        [name, f"{seen.format} {SIGNALS[seen.kind].title}", *size, verdict, *seen.flags]
    )


def draw(seen: Any, place: Path, number: int) -> Path:
    """Draw a recording into a folder, or into the image file that is named."""
    figures, stem = door("report.plots.recordings"), Path(seen.source).name
    title = "  ".join([stem, *seen.flags, *seen.faults])
    figure = figures.stored(seen.kind, seen.picture, title)
    named = place.suffix.lower() in (".png", ".svg", ".pdf")
    if named and number > 1:
        raise InputError(f"{place}: one image for several recordings; name a folder")
    path: Path = figures.save(figure, place if named else place / f"{number:03d}-{stem}.png")
    return path


def grammar(commands: Any) -> None:
    """Add `cohort …` and `inspect`."""
    actions = commands.add_parser("cohort", help="make or check one").add_subparsers(
        required=True, metavar="ACTION"
    )
    made = command(actions, "cohort synth", synth, "make a synthetic paired cohort", EXAMPLES)
    made.add_argument("--subjects", type=whole, help="how many (default: by scale)")
    made.add_argument("--scale", choices=SCALES, default="toy")
    made.add_argument("--seed", type=int, default=0)
    built = command(actions, "cohort build", build, "make a cohort of recordings", EXAMPLES)
    for kind, form, what in (
        (
            "ecg",
            "[FORMAT:]PATH",
            "ECGs lie, e.g. wfdb:recordings; without a format each file's own is taken",
        ),
        ("cmr", "FORMAT:PATH", "short-axis stacks lie, e.g. dicom:stacks"),
        *(
            (name, "FORMAT:PATH", f"recordings of {SIGNALS[name].title} lie")
            for name in SIGNALS
            if name not in ALWAYS
        ),
    ):
        built.add_argument(
            f"--{kind}", metavar=form, action="append", default=[], help=f"where {what}; repeatable"
        )
    built.add_argument(
        "--labels",
        type=Path,
        action="append",
        metavar="FILE",
        help="table of labels; may be repeated",
    )
    built.add_argument(
        "--key",
        type=Path,
        help="file with the key of the pseudonyms (made if absent; keep it outside)",
    )
    words = "cut images to the heart, to the authors' one box, or not (default: heart)"
    built.add_argument("--crop", choices=("heart", "fixed", "none"), default="heart", help=words)
    built.add_argument("--seed", type=int, default=0)
    table = command(
        actions, "cohort labels", labels, "count what labels files hold, and merge them", EXAMPLES
    )
    table.add_argument(
        "files", type=Path, nargs="+", metavar="FILE", help="table of labels, as for `cohort build`"
    )
    table.add_argument(
        "--out", type=Path, metavar="FILE", help="write the merged labels here, as CSV or Parquet"
    )
    for each in (built, table):
        label_rules(each)
    leave = command(
        actions, "cohort withdraw", withdraw, "make one without the people on a list", EXAMPLES
    )
    leave.add_argument(
        "--list",
        type=Path,
        required=True,
        help="one id a line: participant, recording or pseudonym",
    )
    leave.add_argument("--out", type=Path, required=True, help="the new cohort's folder")
    leave.add_argument(
        "--key", type=Path, help="file with the key of the pseudonyms, if not beside the cohort"
    )
    leave.add_argument(
        "--ignore-unknown", action="store_true", help="pass over ids that are not in the data"
    )
    command(actions, "cohort check", check, "verify a cohort; faults by file and row", EXAMPLES)
    text = "what a file of any format holds, and whether a cohort keeps it"
    see = command(commands, "inspect", inspect, text, EXAMPLES, folders=False)
    see.add_argument(
        "files", type=Path, nargs="+", metavar="FILE", help="recordings, or folders of them"
    )
    see.add_argument(
        "--plot", type=Path, metavar="DIR", help="draw what can be drawn into a folder, or FILE.png"
    )
    see.add_argument("--json", action="store_true", help="print JSON instead of text")
    see.add_argument(
        "--limit", type=whole, default=1000, help="recordings of a folder (default: 1000)"
    )


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
        "--visit",
        type=int,
        default=2,
        help="UK Biobank's instance: 2 imaging (default), 3 repeat imaging",
    )
    made.add_argument(
        "--censored", metavar="DATE", help="end of the records (default: the latest date seen)"
    )
    made.add_argument(
        "--codes",
        default="all_diag_hosp",
        metavar="COLUMN",
        help="column with lists of ICD-10 codes",
    )
    made.add_argument(
        "--allow-empty", action="store_true", help="take codes of --disease that nobody has"
    )
