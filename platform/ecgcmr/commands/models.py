"""Models in use: answers to ECG files, embeddings, what a run looks at, weights out and in."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ecgcmr import files
from ecgcmr.commands import reading
from ecgcmr.commands.console import Console, command, counted, lazy, whole
from ecgcmr.errors import InputError
from ecgcmr.presets import PRESETS
from ecgcmr.signals import SIGNALS

EXAMPLES = {
    "predict": (
        "ecgcmr predict --model runs/toy/evaluation --csv risks.csv --page page.html "
        "ecgs/00001_hr.hea"
    ),
    "embed": (
        "ecgcmr embed --model runs/toy/pretrain/ecg/mae --cohort cohorts/ukbb --out embeddings/mae"
    ),
    "share": "ecgcmr share --model runs/toy/evaluation --system mmcl --out models/mmcl",
    "explain": (
        "ecgcmr explain --model runs/table3/evaluation/af/mmcl/batch=32,lr=1e-05/seed=0 recordings "
        "--out attention"
    ),
    "export": "ecgcmr export --model runs/table3/pretrain/ecg/mae --format onnx --out encoder.onnx",
    "import": (
        "ecgcmr import --weights signal_encoder_mmcl.pth --part ecg --preset authors "
        "--space published --system mmcl --runs runs"
    ),
}


def predict(args: argparse.Namespace, console: Console) -> int:
    """Answer ECG files: calibrated risks and phenotypes, with intervals. What cannot be served is a line and exit code 2."""
    predicting, page = lazy("inference.predict"), lazy("report.prediction") if args.page else None
    declaration = reading.declaration(args)
    sources = predicting.recordings(args.file)
    if page and len(sources) > page.MOST:
        raise InputError(
            f"--page: shows at most {page.MOST} ECGs, {len(sources):,} are named; use --csv or "
            "--json"
        )
    model = predicting.load(args.model, args.system, args.device)
    caution(args, console, model.task_models[0].runs[0].folder)
    answers = []
    with counted(
        args,
        console,
        f"{model.system} of {model.about['model']}: {ecgs(len(sources))}",
        len(sources),
    ) as tick:
        for answer in model.predict_recordings(
            sources, keep_ecgs=page is not None, declaration=declaration
        ):
            answers.append(answer)
            tick(len(answers))
    good = [answer for answer in answers if isinstance(answer, predicting.Prediction)]
    for answer in answers:
        if isinstance(answer, predicting.Refused):
            console.note(f"ecgcmr: {answer.source}: {answer.reason}")
    kinds_aside = predicting.left_aside(args.file, sources)
    reading.note_left_aside(console, kinds_aside)
    if good:
        write_predictions(args, model, answers, kinds_aside)
    if page and good:
        page.write(args.page, good, model)
    for line in predicting.lines(good):
        console.say(line)
    return 0 if len(good) == len(answers) else 2


def caution(args: argparse.Namespace, console: Console, folder: Path) -> None:
    """Say what whoever uses the runs of a folder should know of where they come from, on stderr."""
    ensemble = lazy("inference.ensemble")
    cautions = [
        line for run in ensemble.records(folder) for line in ensemble.cautions(run, args.runs)
    ]
    for line in dict.fromkeys(cautions):
        console.note(f"ecgcmr: {line}")


def write_predictions(
    args: argparse.Namespace, model: Any, answers: list[Any], kinds_aside: Mapping[str, int]
) -> None:
    """The files that were asked for, whole or not at all."""
    predicting = lazy("inference.predict")
    if args.csv:
        table = predicting.table(answers)
        files.write_whole(args.csv, lambda aside: table.to_csv(aside, index=False))
    if args.json:
        files.write_json(args.json, predicting.record(model.about, answers, kinds_aside))


def ecgs(n: int) -> str:
    """`1 ECG`, `1,200 ECGs`."""
    return "1 ECG" if n == 1 else f"{n:,} ECGs"


def embed(args: argparse.Namespace, console: Console) -> int:
    """Write embeddings of a cohort, or of ECG files, as Parquet. A file that cannot be served is a line and exit code 2."""
    if args.file and args.modality not in (None, "ecg"):
        raise InputError(
            f"--modality {args.modality}: only ECGs are embedded from files; name a cohort with "
            "--cohort, and no file"
        )
    caution(args, console, args.model)
    if args.file:
        predicting, declaration = lazy("inference.predict"), reading.declaration(args)
        sources = predicting.recordings(args.file)
        with counted(args, console, f"Embeddings of {ecgs(len(sources))}", len(sources)) as tick:
            options = {"device": args.device, "cpus": args.cpus, "tick": tick}
            options["declaration"] = declaration
            refusals = lazy("inference.embed_files").of_files(
                args.model, sources, args.out, **options
            )
        for refusal in refusals:
            console.note(f"ecgcmr: {refusal.source}: {refusal.reason}")
        reading.note_left_aside(console, predicting.left_aside(args.file, sources))
        console.say(
            f"{args.out}: {len(sources) - len(refusals):,} embeddings, {ecgs(len(refusals))} "
            "refused"
        )
        return 2 if refusals else 0
    rows = len(lazy("cohort.dataset").open(args.cohort).rows())
    with counted(args, console, f"Embeddings of {args.cohort}", rows, "rows") as tick:
        options = {
            "modality": args.modality,
            "device": args.device,
            "cpus": args.cpus,
            "tick": tick,
        }
        manifest = lazy("inference.embed_cohort").of_cohort(
            args.model, args.cohort, args.out, **options
        )
    console.say(
        f"{args.out}: {manifest['rows']:,} embeddings of {manifest['width']} numbers "
        f"({manifest['pooling']})"
    )
    return 0


def share(args: argparse.Namespace, console: Console) -> int:
    """Make a folder of a model that can be handed on: all that predict needs, and no row about a person."""
    runs = lazy("inference.share").share(args.model, args.out, args.system)
    caution(args, console, next(iter(runs.values()))[0].folder)
    console.say(
        f"{args.out}: {', '.join(f'{task} ({len(seeds)} seeds)' for task, seeds in runs.items())}"
    )
    return 0


def explain(args: argparse.Namespace, console: Console) -> int:
    """Draw what a run looks at: where in the CMR an ECG finds itself, or which leads and times of ECGs it attends to.

    A file that cannot be served is a line and exit code 2.
    """
    image = image_of(args)
    ecgs, pair = bool(args.files), bool(args.ecg or image)
    if ecgs + pair + bool(args.subject) != 1 or (pair and not (args.ecg and image)):
        raise InputError("give ECG files, or --subject, or --ecg with --cmr")
    return explain_ecgs(args, console) if ecgs else explain_pair(args, console)


def explain_pair(args: argparse.Namespace, console: Console) -> int:
    """The similarity map of an ECG and a CMR image."""
    run = lazy("inference.model").find(args.model, args.runs)
    caution(args, console, run.folder)
    if args.subject:
        cohort = lazy("cohort.dataset").open(args.cohort)
        pair = lazy("inference.pairs").of_subject(run, cohort, args.subject)
    else:
        pair = lazy("inference.pairs").of_files(
            run, args.ecg, image_of(args), reading.declaration(args)
        )
    figure = lazy("report.explained").draw_pair(
        pair, run.trial.system, args.subject or args.ecg.stem
    )
    console.say(f"{lazy('report.plots.recordings').save(figure, args.out)}")
    return 0


def image_of(args: argparse.Namespace) -> Path | None:
    """The file that is to be compared with an ECG's."""
    return next((file for name in SIGNALS if name != "ecg" and (file := getattr(args, name))), None)


def explain_ecgs(args: argparse.Namespace, console: Console) -> int:
    """Attention over the leads and times of ECG files."""
    model = lazy("inference.model").open_run(args.model, args.runs)
    drawing = lazy("report.explained")
    caution(args, console, model.run.folder)
    reasons: list[str] = []

    def refuse(key: str, reason: str) -> None:
        reasons.append(reason)
        console.note(f"ecgcmr: {key}: {reason}")

    predicting = lazy("inference.predict")
    sources = predicting.recordings(args.files)
    tables = drawing.draw_attention(model, sources, args.out, refuse, reading.declaration(args))
    reading.note_left_aside(console, predicting.left_aside(args.files, sources))
    if not tables:
        raise InputError(f"none of {len(reasons)} recordings can serve; the reasons are above")
    if model.head is None:
        console.note(
            "a pre-training pools all patches alike: its attention does not tell what matters "
            "(docs/explain-export.md)"
        )
    for key, table in tables.items():
        console.say(f"{args.out / key}.png .csv .json   most: {drawing.most(table)}")
    return 2 if reasons else 0


def export(args: argparse.Namespace, console: Console) -> int:
    """Write what a run learnt to a file for elsewhere."""
    caution(args, console, lazy("inference.model").find(args.model, args.runs).folder)
    for line in lazy("inference.export").write(
        args.model, args.out, args.format, runs=args.runs, part=args.part
    ):
        console.say(line)
    console.say(f"{args.out}")
    return 0


def import_weights(args: argparse.Namespace, console: Console) -> int:
    """Make a finished pre-training of an encoder that came in a file, from which trials may start."""
    name = lazy("inference.adopt").adopt(
        args.weights,
        args.runs,
        part=args.part,
        space=args.space,
        system=args.system,
        heads=args.heads,
        preset=args.preset,
    )
    console.say(
        f'{args.runs / name}\nstart a trial from it with  init_from=(("{args.part}", "{name}"),)'
    )
    return 0


def grammar(commands: Any) -> None:
    """Add what is done with finished runs and their weights."""
    answer = serving(
        command(commands, "predict", predict, "answer ECG files: risks and phenotypes", EXAMPLES)
    )
    words = "an ECG in any format that can be read, or a folder of them"
    answer.add_argument("file", nargs="+", metavar="FILE", help=words)
    files = {
        "csv": "one row per ECG and answer",
        "json": "one entry per ECG",
        "page": "HTML, to look at",
    }
    for kind, text in files.items():
        answer.add_argument(f"--{kind}", type=Path, metavar="FILE", help=f"write it there: {text}")
    vectors = command(
        commands, "embed", embed, "embeddings of a cohort, or of ECG files, as Parquet", EXAMPLES
    )
    serving(vectors, several=False)
    vectors.add_argument(
        "file", nargs="*", metavar="FILE", help="an ECG, or a folder of them (default: the cohort)"
    )
    vectors.add_argument("--out", type=Path, required=True, help="the folder to write")
    vectors.add_argument(
        "--modality", choices=tuple(SIGNALS), help="which encoder (default: the only one, or ecg)"
    )
    vectors.add_argument("--cpus", type=whole, help="cores for a local Ray (default: all)")
    for parser in (answer, vectors):
        reading.reading(parser)
        parser.add_argument("--device", help="cpu, cuda, cuda:1 … (default: a GPU if there is one)")
    sharing = serving(
        command(
            commands, "share", share, "make a folder of a model that can be handed on", EXAMPLES
        )
    )
    sharing.add_argument("--out", type=Path, required=True, help="the folder to make")
    weights_grammar(commands)


def weights_grammar(commands: Any) -> None:
    """Add what is done with one run."""
    explaining = command(
        commands, "explain", explain, "what a run looks at, in a pair or in ECGs", EXAMPLES
    )
    explaining.add_argument(
        "files",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="ECG files or folders: attention in each",
    )
    explaining.add_argument(
        "--subject", metavar="PSEUDONYM", help="of --cohort: similarity of ECG and CMR"
    )
    explaining.add_argument(
        "--ecg", type=Path, metavar="FILE", help="with --cmr: similarity of the two files"
    )
    images = {"cmr": "short-axis stack"}
    for name in [name for name in SIGNALS if name != "ecg"]:
        words = images.get(name, SIGNALS[name].title)
        explaining.add_argument(f"--{name}", type=Path, metavar="FILE", help=words)
    reading.reading(explaining)
    exporting = command(commands, "export", export, "write a run's weights for elsewhere", EXAMPLES)
    exporting.add_argument("--format", required=True, choices=("safetensors", "authors", "onnx"))
    for parser, target in (
        (explaining, "folder for attention, file.png for a pair"),
        (exporting, "file"),
    ):
        parser.add_argument(
            "--model", required=True, metavar="RUN", help="a run's folder, or its name under --runs"
        )
        parser.add_argument("--out", required=True, type=Path, help=target)
    importing = command(
        commands, "import", import_weights, "make a run of a weight file, to start from", EXAMPLES
    )
    importing.add_argument(
        "--weights",
        required=True,
        type=Path,
        metavar="FILE",
        help=".safetensors, or .pth of tensors",
    )
    importing.add_argument("--space", required=True, help="first folder of the run's name")
    importing.add_argument("--system", required=True, help="word for the system, e.g. mmcl")
    importing.add_argument(
        "--heads", type=whole, help="attention heads, where the file does not tell"
    )
    importing.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        help="that the weights were made with; authors: an ECG encoder opens for the first 5 s of "
        "an ECG, as the published ones learnt, instead of all 10 s (default: what the "
        "file says, else paper)",
    )
    for parser, is_required in ((exporting, False), (importing, True)):
        parser.add_argument(
            "--part", choices=tuple(SIGNALS), required=is_required, help="which encoder"
        )


def serving(parser: argparse.ArgumentParser, several: bool = True) -> argparse.ArgumentParser:
    """Add which model answers: several runs that make up a system, or one run."""
    folder = (
        "of evaluation runs, e.g. runs/toy/evaluation, or made by `share`"
        if several
        else "of one run, pre-trained or of the evaluation"
    )
    parser.add_argument("--model", type=Path, required=True, help=f"the folder {folder}")
    if several:
        parser.add_argument(
            "--system", help="which of its systems (default: the only one, or mmcl)"
        )
    return parser
