"""The bill that `ecgcmr plan` prints: an estimate in words, sizes and times."""

from collections import Counter

from ecgcmr import paper
from ecgcmr.commands.progress import duration
from ecgcmr.search import plan
from ecgcmr.search.plan import Estimate


def lines(estimate: Estimate) -> list[str]:
    """An estimate for a person to read."""
    counts = f"{'trials':>8s}{'packs':>7s}{'steps':>12s}"
    title = f"{'stage':11s}{'task':10s}{counts}{'disk':>10s}{'time':>16s}"
    return [
        _summary(estimate),
        *(
            f"{part:9s}{grid:8,} grid trials, {evaluation:,} evaluation trials"
            for part, grid, evaluation in plan.parts(estimate.trials)
        ),
        *(f"left out, {n} trials: {reason}" for reason, n in estimate.left_out.items()),
        title,
        *(_line(line, estimate.has_times) for line in estimate.lines),
        f"disk: {_size(estimate.bytes)} for runs, {_size(estimate.free_bytes)} free; "
        "finished trials are skipped",
        *([_time(estimate)] if estimate.has_times else []),
    ]


def _summary(estimate: Estimate) -> str:
    stages = Counter(trial.stage for trial in estimate.trials)
    count = estimate.pretrain_seeds
    seeds = f" ({count} seeds of what trials start from)" if count > 1 else ""
    presets = ", ".join(sorted({trial.preset for trial in estimate.trials}))
    return (
        f"preset {presets}; cohort of {estimate.rows:,} rows, {_size(estimate.cohort_bytes)}; "
        f"{stages['pretrain']} pre-trainings{seeds}, {stages['grid']:,} grid trials, "
        f"{estimate.questions * len(paper.SEEDS)} evaluation trials"
    )


def _line(line: plan.StageEstimate, has_times: bool) -> str:
    counts = f"{line.stage:11s}{line.task:10s}{line.trials:8,}{line.packs:7,}{line.steps:12,}"
    return f"{counts}{_size(line.bytes):>10s}{duration(line.seconds) if has_times else '—':>16s}"


def _time(estimate: Estimate) -> str:
    hours = f"{estimate.seconds / 3600:.3g} {estimate.device.upper()}-hours"
    return (
        f"time: {duration(estimate.seconds)} ({hours}) of training on this machine, "
        "if no trial stops early"
    )


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
