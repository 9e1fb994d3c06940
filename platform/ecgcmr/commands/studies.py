"""Studies: pre-training, grids and seeds of a search space, their bill, and all of it in order."""

import argparse
from pathlib import Path
from typing import Any

from ecgcmr import paper, store
from ecgcmr.commands import cohorts, results
from ecgcmr.commands.console import Console, command, lazy, whole
from ecgcmr.errors import InputError
from ecgcmr.trial import Trial, name_parts

SPACES = Path(__file__).resolve().parents[3] / "search_spaces"
CACHES = ("auto", "device", "host", "off")
EXAMPLES = {
    "pretrain": "ecgcmr pretrain search_spaces/table3.py --cohort cohorts/ukbb --runs runs",
    "sweep": "ecgcmr sweep search_spaces/table3.py --cohort cohorts/ukbb --runs runs",
    "evaluate": "ecgcmr evaluate search_spaces/table3.py --cohort cohorts/ukbb --runs runs",
    "reproduce": "ecgcmr reproduce --scale toy --cohort toy/cohort --runs toy/runs",
    "plan": "ecgcmr plan search_spaces/table3.py --cohort cohorts/ukbb",
}


def load(args: argparse.Namespace, stage: str | None = None) -> list[Trial]:
    """The trials of a search-space file, of one stage if asked.

    Raises:
        InputError: see `search.spaces.load`; or its runs were begun before names changed.
    """
    trials: list[Trial] = lazy("search.spaces").load(args.space)
    lazy("runs").check_names(args.runs)
    return [trial for trial in trials if stage in (None, trial.stage)]


def grid_of(args: argparse.Namespace, console: Console) -> list[Trial]:
    """The grid of a search space as this cohort can run it: starts named, and what it is too small
    for said and left out.
    """
    trials = lazy("search.study").resolved(load(args), args.runs, again=args.choose_again)
    feasible, left_out = lazy("search.spaces").feasible(
        [trial for trial in trials if trial.stage == "grid"],
        lazy("cohort.dataset").open(args.cohort),
    )
    for reason, n in left_out.items():
        console.note(f"left out, {n} trials: {reason}")
    return lazy("search.spaces").under_asha(feasible, args.asha) if args.asha else feasible


def pretrain(args: argparse.Namespace, console: Console) -> int:
    """Pre-train every encoder of a search space, those that something starts from with every
    seed.
    """
    trials = load(args, "pretrain")
    if args.only:
        trials = [trial for trial in trials if trial.system in args.only]
        if not trials:
            raise InputError(
                f"--only {' '.join(args.only)}: no pre-training of that system in {args.space}"
            )
    run_pretrainings(args, console, "Pre-training", trials)
    further = further_seeds(args, trials)  # by the first, which have finished
    if further:
        run_pretrainings(args, console, "Pre-training, further seeds", further)
    console.say(f"{len(trials) + len(further)} pre-trainings finished under {args.runs}")
    return 0


def further_seeds(args: argparse.Namespace, pretrainings: list[Trial]) -> list[Trial]:
    """The same pre-trainings with the other seeds of `--pretrain-seeds`, of a sweep the chosen."""
    if args.pretrain_seeds == 1:
        return []
    study, folders = lazy("search.study"), {trial.system_folder for trial in pretrainings}
    # Of the others only what starts from these: what else they start from may not have run yet.
    trials = [
        trial
        for trial in load(args)
        if trial.stage == "pretrain"
        or any(name_parts(start).system_folder in folders for _, start in trial.init_from)
    ]
    trials = study.resolved(trials, args.runs, again=args.choose_again)
    _, *further = study.pretraining_seeds(trials, args.pretrain_seeds)
    return [
        trial
        for pretrainings_of_seed in further
        for trial in pretrainings_of_seed.values()
        if trial.system_folder in folders
    ]


def run_pretrainings(
    args: argparse.Namespace, console: Console, title: str, trials: list[Trial]
) -> None:
    """Run what is not finished of `trials`."""
    work = lazy("training.pretrain").check_all(trials, args.cohort, args.runs, args.workers)
    note_set_aside(console, work.set_aside)
    if work.todo:
        systems = ", ".join(dict.fromkeys(trial.system for trial in work.todo))
        with console.display.stage(f"{title}: {systems}") as notes:
            console.need_ray()
            with lazy("report.track").following(args.runs, args.runs / "aim"):
                rows = lazy("training.pretrain").run_checked(
                    work, device=args.device, precision=args.precision, cache=args.cache
                )
            losses = [row for row in rows if row["metric"] == "loss" and row["split"] == "val"]
            notes.append(", ".join(f"{row['system']} {row['value']:.3f}" for row in losses))


def note_set_aside(console: Console, lines: list[str]) -> None:
    """Say which runs were damaged, on stderr."""
    for line in lines:
        console.note(f"ecgcmr: {line}")


def run_trials(
    args: argparse.Namespace, console: Console, title: str, trials: list[Trial], budget: int | None
) -> int:
    """Run what is not finished of `trials`, in packs; how many were run."""
    work = lazy("search.sweep").check(trials, args.cohort, args.runs)
    note_set_aside(console, work.set_aside)
    count = len(work.todo)
    if count:
        with console.display.stage(f"{title}: {count} of {len(trials)} trials") as notes:
            console.need_ray()
            with lazy("report.track").following(args.runs, args.runs / "aim"):
                lazy("search.sweep").run_checked(
                    work,
                    budget=budget,
                    device=args.device,
                    precision=args.precision,
                    concurrency=args.packs,
                )
            notes.append(f"{count} trials")
    return count


def sweep(args: argparse.Namespace, console: Console) -> int:
    """Run the grid of a search space on training and validation rows."""
    trials = grid_of(args, console)
    ran = run_trials(args, console, "Grid", trials, args.budget)
    console.say(
        f"{ran} trials run, {len(trials) - ran} of {len(trials)} were finished or left out by "
        "--budget"
    )
    return 0


def evaluate(args: argparse.Namespace, console: Console) -> int:
    """Run each best configuration with five seeds; these runs alone read the test set."""
    evaluations = evaluation_trials(args, grid_of(args, console))
    ran = run_trials(args, console, "Evaluation", evaluations, None)
    console.say(f"{ran} trials run, {len(evaluations) - ran} of {len(evaluations)} were finished")
    for line in summary(args.runs, evaluations):
        console.say(line)
    return 0


def evaluation_trials(args: argparse.Namespace, grid: list[Trial]) -> list[Trial]:
    """The best configuration of every system and task of a grid, with five seeds, which share the
    pre-trainings.
    """
    evaluations: list[Trial] = lazy("search.spaces").evaluation_trials(
        grid, args.runs, budget=args.budget, again=args.choose_again
    )
    if args.pretrain_seeds == 1:
        return evaluations
    study = lazy("search.study")
    trials = study.resolved(load(args), args.runs)
    return study.over_pretrainings(evaluations, trials, args.pretrain_seeds)


def summary(runs: Path, evaluations: list[Trial]) -> list[str]:
    """One line per system and task: mean ± sd of its metric on the test set over the seeds."""
    rows = store.rows(runs)
    rows = rows[rows.trial.isin([trial.name for trial in evaluations]) & (rows.split == "test")]
    rows = rows[rows.metric.isin(["auroc", "pearson"])]
    lines = []
    for (task, system, metric), group in rows.groupby(["task", "system", "metric"], sort=True):
        mean, sd = group.value.mean(), group.value.std(ddof=1)
        of = f"({len(group)} seeds, n = {group.n.iloc[0]:,})"
        lines.append(f"  {task:8s} {system:14s} test {metric} {mean:.4f} ± {sd:.4f}  {of}")
    return lines


def reproduce(args: argparse.Namespace, console: Console) -> int:
    """Cohort, pre-training, grid, seeds, tables: all in order; what is finished is skipped."""
    args.space = args.space or SPACES / f"{args.scale}.py"
    args.only = None
    trials = load(args)
    if not (args.cohort / "_cohort.json").exists() or args.subjects:
        cohorts.synth(args, console)
    lazy("search.spaces").check_labels(
        trials, lazy("cohort.dataset").open(args.cohort), ("train", "val", "test")
    )
    if any(trial.stage == "pretrain" for trial in trials):
        pretrain(args, console)
    grid = grid_of(args, console)
    run_trials(args, console, "Grid", grid, args.budget)
    evaluations = evaluation_trials(args, grid)
    run_trials(args, console, "Evaluation", evaluations, None)
    return results.report(args, console)


def plan(args: argparse.Namespace, console: Console) -> int:
    """Print what would run, and what it would cost, before anything starts."""
    estimate = lazy("search.plan").estimate(
        load(args),
        args.cohort,
        args.runs,
        calibrate=not args.no_calibration,
        pretrain_seeds=args.pretrain_seeds,
    )
    for line in lazy("commands.bill").lines(estimate):
        console.say(line)
    return 0


def seed_count(text: str) -> int:
    """How many seeds pre-training runs with: every one is the start of an evaluation run."""
    count = whole(text)
    if count > len(paper.SEEDS):
        raise argparse.ArgumentTypeError(
            f"an evaluation has {len(paper.SEEDS)} seeds and can start from no more "
            f"pre-trainings; give at most {len(paper.SEEDS)}"
        )
    return count


def grid_grammar(parser: argparse.ArgumentParser) -> None:
    """Add how the trials of a grid run."""
    parser.add_argument(
        "--packs",
        type=whole,
        help="at once (default: one per GPU, else by cores; more share a GPU)",
    )
    parser.add_argument(
        "--budget",
        type=whole,
        help="configurations per system and task, by TPE (default: the whole grid)",
    )
    words = (
        "stop trials early: at each of three rungs the best one in N goes on (the paper runs "
        "all; results say so)"
    )
    parser.add_argument("--asha", type=whole, metavar="N", help=words)


def grammar(commands: Any) -> None:
    """Add what runs a search space."""
    space: dict[str, Any] = {"space": True, "trains": True}
    pre = command(
        commands,
        "pretrain",
        pretrain,
        "pre-train the encoders of a search space",
        EXAMPLES,
        **space,
    )
    pre.add_argument("--only", nargs="+", metavar="SYSTEM", help="only these systems, e.g. mae")
    grid = command(commands, "sweep", sweep, "run the grid of a search space", EXAMPLES, **space)
    evaluation = command(
        commands,
        "evaluate",
        evaluate,
        "run the best configurations with five seeds, on test",
        EXAMPLES,
        **space,
    )
    every = command(commands, "reproduce", reproduce, "all of it, in order", EXAMPLES, trains=True)
    every.add_argument("--scale", choices=cohorts.SCALES, default="toy")
    every.add_argument("--space", type=Path, help="search-space file (default: by scale)")
    every.add_argument(
        "--subjects", type=whole, help="of the synthetic cohort, if it has to be made"
    )
    every.add_argument("--seed", type=int, default=0, help="of the synthetic cohort")
    for parser in (pre, every):
        parser.add_argument("--workers", type=whole, default=1, help="Ray Train workers")
        words = "where rows stay after an epoch of pre-training (auto: what fits)"
        parser.add_argument("--cache", choices=CACHES, default="auto", help=words)
    for parser in (grid, evaluation, every):
        grid_grammar(parser)
    bill = command(
        commands, "plan", plan, "what would run and what it would cost", EXAMPLES, space=True
    )
    for parser in (pre, grid, evaluation, every):
        parser.add_argument(
            "--choose-again",
            action="store_true",
            help=(
                "replace a written choice that finished runs contradict, e.g. of a grid widened "
                "since"
            ),
        )
    for parser in (pre, evaluation, every, bill):
        parser.add_argument(
            "--pretrain-seeds",
            type=seed_count,
            default=1,
            metavar="N",
            help="pre-train with N seeds; evaluation seed i starts from pre-training i mod N, "
            "grids from the first (default: 1, as in the paper)",
        )
    bill.add_argument(
        "--no-calibration", action="store_true", help="do not time a few steps on this machine"
    )
