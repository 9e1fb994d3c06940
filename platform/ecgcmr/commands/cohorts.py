"""Cohorts: made of synthetic subjects or of recordings, labelled, checked, reduced; and what a
recording holds.
"""

import argparse
import itertools
import json
import os
from pathlib import Path
from typing import Any

from ecgcmr.commands import reading
from ecgcmr.commands.console import Console, command, lazy, whole
from ecgcmr.errors import InputError
from ecgcmr.signals import ALWAYS, SIGNALS

SUBJECTS = {"toy": 1600, "small": 5000, "full": 40_044}
SCALES = tuple(SUBJECTS)
RULES = ("visit", "censored", "codes", "allow_empty", "time")
EXAMPLES = {
    "cohort synth": "ecgcmr cohort synth --subjects 2000 --scale toy --cohort cohorts/synthetic",
    "cohort build": "ecgcmr cohort build --ecg wfdb:recordings --cohort cohorts/cinc",
    "cohort labels": "ecgcmr cohort labels diagnoses.csv --disease hf=I50,I11.0 --out labels.csv",
    "cohort withdraw": (
        "ecgcmr cohort withdraw --list withdrawn.csv --cohort cohorts/ukbb --out cohorts/ukbb-2"
    ),
    "cohort check": "ecgcmr cohort check --cohort cohorts/cinc",
    "inspect": "ecgcmr inspect recordings/A0002.hea --plot A0002.png",
}


def synth(args: argparse.Namespace, console: Console) -> int:
    """Make a synthetic paired cohort."""
    subjects = args.subjects or SUBJECTS[args.scale]
    with console.display.stage(f"Cohort of {subjects:,} synthetic subjects") as notes:
        console.need_ray()
        cohort = lazy("cohort.build").synth(args.cohort, subjects=subjects, seed=args.seed)
        notes.append(rows_of(cohort))
    console.say(f"{args.cohort}: {flow_of(cohort)}")
    return 0


def build(args: argparse.Namespace, console: Console) -> int:
    """Make a cohort of real recordings."""
    network = reading.network(args)
    with console.display.stage("Cohort of recordings") as notes:
        console.need_ray()
        cohort = lazy("cohort.build").build(
            args.cohort,
            ecg=args.ecg,
            cmr=args.cmr,
            others={name: getattr(args, name) for name in SIGNALS if name not in ALWAYS},
            labels=args.labels,
            rules=rules_of(args),
            seed=args.seed,
            key=args.key,
            crop=args.crop,
            declaration=reading.declaration(args),
            network=network,
        )
        notes.append(rows_of(cohort))
    console.say(f"{args.cohort}: {flow_of(cohort)}")
    for line in sources_of(cohort):
        console.say(line)
    if "audit" in cohort.manifest:
        for line in ["", *lazy("cohort.labels.merge").audit_lines(cohort.manifest["audit"])]:
            console.say(line)
    return 0


def labels(args: argparse.Namespace, console: Console) -> int:
    """Read labels files, say what they hold, and write them as one table; no recordings are touched."""
    merge = lazy("cohort.labels.merge")
    label_table = merge.read_labels(args.files, rules_of(args))
    if args.out:
        merge.write_labels(args.out, label_table, args.files)
    for line in merge.audit_lines(label_table.audit):
        console.say(line)
    return 0


def rules_of(args: argparse.Namespace) -> Any:
    """How labels files are to be read."""
    options = {name: getattr(args, name) for name in RULES}
    options |= {"definitions_file": args.diseases}
    return lazy("cohort.labels.merge").rules(args.disease, **options)


def withdraw(args: argparse.Namespace, console: Console) -> int:
    """Make a cohort without the people on a list; no recording is read again. Then delete the old cohort yourself."""
    lazy("runs").check_names(args.runs)  # it has to say which of them are stale
    withdrawal = lazy("cohort.withdraw")
    with console.display.stage(f"Withdrawal from {args.cohort}") as notes:
        options = {"key": args.key, "ignore_unknown": args.ignore_unknown}
        cohort = withdrawal.withdraw(args.cohort, args.out, args.list, **options)
        notes.append(rows_of(cohort))
    predecessor, stale = cohort.manifest["replaces"][0], withdrawal.mark(args.runs, cohort)
    people = f"{predecessor['people']:,} {'person' if predecessor['people'] == 1 else 'people'}"
    console.say(f"{args.out}: {people} ({predecessor['rows']:,} rows) fewer than {args.cohort}")
    console.say(
        f"{stale:,} trials under {args.runs} were made with them: run them again"
        if stale
        else "no trial is stale"
    )
    console.say(
        "Delete when nothing needs it any more: "
        f"{args.cohort}, {args.cohort}.link.csv, {args.cohort}.key"
    )
    return 0


def check(args: argparse.Namespace, console: Console) -> int:
    """Verify a cohort; every fault is a line."""
    with console.display.stage(f"Check of {args.cohort}"):
        faults = lazy("cohort.check").check(args.cohort)
    for fault in faults:
        console.say(f"  {fault}")
    console.say(f"{args.cohort}: {len(faults)} faults" if faults else f"{args.cohort}: clean")
    return 2 if faults else 0


def rows_of(cohort: Any) -> str:
    """`1,120 train, 240 val, 240 test`."""
    return ", ".join(f"{n:,} {split}" for split, n in cohort.manifest["rows"].items())


def flow_of(cohort: Any) -> str:
    """`found 224 → readable 224 → plausible 209 (12 flat lead) → kept 209`."""
    words = []
    for step in cohort.manifest["flow"]:
        reasons = ", ".join(f"{n} {reason}" for reason, n in step.get("reasons", {}).items())
        if aside := step.get("left_aside"):
            words.append(f"left aside {lazy('raw.leftovers').words(aside)}")
        excluded_as = "less" if step.get("unit") == "recordings" else "the rest"
        words.append(
            f"{step['step']} {step['n']:,}" + (f" ({excluded_as} {reasons})" if reasons else "")
        )
    return " → ".join(words)


def sources_of(cohort: Any) -> list[str]:
    """What decided end-systole and the heart's place, in how many stacks, and which segmentations
    were left out; nothing without stacks.
    """
    counts: dict[str, int] = {}
    for entry in cohort.manifest["repairs"]:
        kind, _, words = entry["what"].partition(": ")
        if kind == "cmr":
            counts[words] = counts.get(words, 0) + 1
    lines = []
    for beginning in ("end-systole ", "heart found ", "segmentation left out: ", "model's segm"):
        matches = sorted((words, n) for words, n in counts.items() if words.startswith(beginning))
        if matches:
            lines.append("CMR: " + ", ".join(f"{words} {n:,}" for words, n in matches))
    return lines


def inspect(args: argparse.Namespace, console: Console) -> int:
    """Say what a reader sees in files of any format, and what a cohort would do with them; writes nothing but plots."""
    inspecting, records, failures = lazy("cohort.inspect"), [], 0
    declaration, network = reading.declaration(args), reading.network(args)
    for path in args.files:
        claims = inspecting.find(path)
        alone = len(claims) == 1
        recordings = inspecting.look(claims, declaration, network)
        for recording in itertools.islice(recordings, args.limit):
            failures += bool(recording.error)
            if recording.error:
                console.note(f"ecgcmr: {recording.source} ({recording.format}): {recording.error}")
            elif not args.json:
                console.say("\n".join(lines_of(recording)) if alone else line_of(recording, path))
            records.append(inspecting.as_json(recording))
            if args.plot and recording.picture is not None:
                console.note(f"drawn: {draw(recording, args.plot, len(records))}")
        if len(claims) > args.limit:
            console.note(
                f"{path}: the first {args.limit:,} of {len(claims):,} recordings; "
                "see more with --limit"
            )
        reading.note_left_aside(console, inspecting.left_aside(path, claims))
    if args.json:
        console.say(json.dumps(records, indent=1))
    return 2 if failures else 0


def lines_of(recording: Any) -> list[str]:
    """A recording in a few lines."""
    words = {
        "format": f"{recording.format} ({SIGNALS[recording.kind].title})",
        **recording.facts,
        "flags": "; ".join(recording.flags) or "none",
        "changes": "; ".join(recording.repairs) or "none",
        "cohort": "keeps it" if recording.kept else f"leaves it out: {'; '.join(recording.faults)}",
    }
    return [recording.source, *(f"  {name:8s} {text}" for name, text in words.items())]


def line_of(recording: Any, above: Path) -> str:
    """A recording of many in one line."""
    name = os.path.relpath(recording.source, above if above.is_dir() else above.parent)
    size = [
        recording.facts[word]
        for word in ("rate", "length", "stack", "cycle")
        if word in recording.facts
    ]
    verdict = "kept" if recording.kept else f"left out: {recording.faults[0]}"
    kind = f"{recording.format} {SIGNALS[recording.kind].title}"
    return "  ".join([name, kind, *size, verdict, *recording.flags])


def draw(recording: Any, destination: Path, number: int) -> Path:
    """Draw a recording into a folder, or into the image file that is named."""
    figures, stem = lazy("report.plots.recordings"), Path(recording.source).name
    title = "  ".join([stem, *recording.flags, *recording.faults])
    figure = figures.stored(recording.kind, recording.picture, title)
    is_image = destination.suffix.lower() in (".png", ".svg", ".pdf")
    if is_image and number > 1:
        raise InputError(f"{destination}: one image for several recordings; name a folder")
    path: Path = figures.save(
        figure, destination if is_image else destination / f"{number:03d}-{stem}.png"
    )
    return path


def grammar(commands: Any) -> None:
    """Add `cohort …` and `inspect`."""
    actions = commands.add_parser("cohort", help="make or check one").add_subparsers(
        required=True, metavar="ACTION"
    )
    synth_grammar(actions)
    build_grammar(actions)
    labels_grammar(actions)
    withdraw_grammar(actions)
    command(actions, "cohort check", check, "verify a cohort; faults by file and row", EXAMPLES)
    inspect_grammar(commands)


def synth_grammar(actions: Any) -> None:
    """Add `cohort synth`."""
    parser = command(actions, "cohort synth", synth, "make a synthetic paired cohort", EXAMPLES)
    parser.add_argument("--subjects", type=whole, help="how many (default: by scale)")
    parser.add_argument("--scale", choices=SCALES, default="toy")
    parser.add_argument("--seed", type=int, default=0)


def build_grammar(actions: Any) -> None:
    """Add `cohort build`."""
    parser = command(actions, "cohort build", build, "make a cohort of recordings", EXAMPLES)
    for kind, form, where in (
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
        text = f"where {where}; repeatable"
        parser.add_argument(f"--{kind}", metavar=form, action="append", default=[], help=text)
    parser.add_argument(
        "--labels",
        type=Path,
        action="append",
        metavar="FILE",
        help="table of labels; may be repeated",
    )
    parser.add_argument(
        "--key",
        type=Path,
        help="file with the key of the pseudonyms (made if absent; keep it outside)",
    )
    words = "cut images to the heart, to the authors' one box, or not (default: heart)"
    parser.add_argument("--crop", choices=("heart", "fixed", "none"), default="heart", help=words)
    parser.add_argument("--seed", type=int, default=0)
    reading.reading(parser)
    reading.segmenting(parser)
    label_rules(parser)


def labels_grammar(actions: Any) -> None:
    """Add `cohort labels`."""
    parser = command(
        actions, "cohort labels", labels, "count what labels files hold, and merge them", EXAMPLES
    )
    parser.add_argument(
        "files", type=Path, nargs="+", metavar="FILE", help="table of labels, as for `cohort build`"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write the merged labels here, as CSV or Parquet"
    )
    label_rules(parser)


def withdraw_grammar(actions: Any) -> None:
    """Add `cohort withdraw`."""
    parser = command(
        actions, "cohort withdraw", withdraw, "make one without the people on a list", EXAMPLES
    )
    parser.add_argument(
        "--list",
        type=Path,
        required=True,
        help="one id a line: participant, recording or pseudonym",
    )
    parser.add_argument("--out", type=Path, required=True, help="the new cohort's folder")
    parser.add_argument(
        "--key", type=Path, help="file with the key of the pseudonyms, if not beside the cohort"
    )
    parser.add_argument(
        "--ignore-unknown", action="store_true", help="pass over ids that are not in the data"
    )


def inspect_grammar(commands: Any) -> None:
    """Add `inspect`."""
    text = "what a file of any format holds, and whether a cohort keeps it"
    parser = command(commands, "inspect", inspect, text, EXAMPLES, folders=False)
    parser.add_argument(
        "files", type=Path, nargs="+", metavar="FILE", help="recordings, or folders of them"
    )
    parser.add_argument(
        "--plot", type=Path, metavar="DIR", help="draw what can be drawn into a folder, or FILE.png"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument(
        "--limit", type=whole, default=1000, help="recordings of a folder (default: 1000)"
    )
    reading.reading(parser)
    reading.segmenting(parser)


def label_rules(parser: argparse.ArgumentParser) -> None:
    """The options that say how labels files are read (docs/labels.md)."""
    parser.add_argument(
        "--disease",
        action="append",
        default=[],
        metavar="NAME=CODES",
        help="a disease besides cad, af and dm; may be repeated",
    )
    parser.add_argument(
        "--diseases",
        type=Path,
        metavar="FILE",
        help="diseases by the codes of each source that counts, as TOML (docs/labels.md)",
    )
    parser.add_argument(
        "--visit",
        type=int,
        default=2,
        help="UK Biobank's instance: 2 imaging (default), 3 repeat imaging",
    )
    parser.add_argument(
        "--censored", metavar="DATE", help="end of the records (default: the latest date seen)"
    )
    parser.add_argument(
        "--time",
        metavar="DATE|COLUMN",
        help="add days to onset or censoring, followed up to DATE or to that of COLUMN",
    )
    parser.add_argument(
        "--codes",
        default="all_diag_hosp",
        metavar="COLUMN",
        help="column with lists of ICD-10 codes",
    )
    parser.add_argument(
        "--allow-empty",
        action="store_true",
        help="take codes of --disease and --diseases that nobody has",
    )
