"""What a model looks at, as files: a similarity map of a pair, and attention over the leads and times of ECGs.

`explain` computes, `plots.heatmaps` and `plots.recordings` draw; here it is decided what lies beside what on disk.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from ecgcmr import files
from ecgcmr.inference import explain, predict
from ecgcmr.inference.model import Model
from ecgcmr.paper import TITLES
from ecgcmr.report.plots import heatmaps, recordings
from ecgcmr.signals import ecg


def pair(found: explain.Pair, label: str, caption: str) -> Figure:
    """The pair's ECG, its mid-phase frame, and the frame under the similarities, −1 to 1.

    Args:
        found: by `explain.pair` or `explain.pair_of_files`.
        label: of the system.
        caption: its first line names the pair, further lines describe it.
    """
    span = f"similarity {found.similarity.min():.2f} to {found.similarity.max():.2f}".replace(
        "-", "−"
    )
    maps = {TITLES.get(label, label): found.similarity}
    return heatmaps.figure6(
        [heatmaps.Case(f"{caption}\n{span}", found.ecg, ecg.RATE_HZ, found.image[1], maps)]
    )


def attention(
    model: Model, paths: Iterable[Path], out: Path, refuse: Callable[[str, str], None]
) -> dict[str, pd.DataFrame]:
    """Write `<key>.png`, `<key>.csv` and `<key>.json` for every ECG of files and folders.

    Args:
        model: with an ECG encoder.
        paths: files and folders of recordings of any known formats.
        out: the folder; made where something is written.
        refuse: told the source and the reason of a recording that cannot serve.

    Returns:
        key -> `explain.table` of its weights.

    Raises:
        InputError: see `explain.attention`.
    """
    written: dict[str, pd.DataFrame] = {}
    for one in (
        one for batch in predict.prepared_in_batches(predict.recordings(paths)) for one in batch
    ):
        if isinstance(one, predict.Refused):
            refuse(one.source, one.reason)
        elif one.key in written:
            refuse(one.source, "another recording of this name was drawn; give it another --out")
        else:
            weights = explain.attention(model, one.ecg[None])[0]
            written[one.key] = explain.table(weights, model.patch_s)
            title = f"{one.key}, as prepared for {model.run.name}, and its attention"
            drawn = recordings.attended_ecg(one.ecg, ecg.RATE_HZ, weights, model.patch_s, title)
            recordings.save(drawn, out / f"{one.key}.png")
            _write(
                out / one.key,
                written[one.key],
                {"recording": one.key, "run": model.run.name, "patch_s": model.patch_s},
            )
    return written


def _write(stem: Path, table: pd.DataFrame, notes: dict[str, object]) -> None:
    files.write_whole(
        stem.with_name(f"{stem.name}.csv"), lambda aside: table.round(6).to_csv(aside, index=False)
    )
    records = table.round(6).to_dict("records")
    files.write_json(stem.with_name(f"{stem.name}.json"), {**notes, "weights": records})


def most(table: pd.DataFrame, count: int = 3) -> str:
    """`V2 8 to 9 s (8.1 times the average), …`: the patches of greatest weight."""
    top = table.assign(times=table["weight"] / table["weight"].mean()).nlargest(count, "times")
    rows = zip(*(top[name] for name in ("lead", "start_s", "end_s", "times")))
    return ", ".join(
        f"{lead} {start:g} to {end:g} s ({times:.1f} times the average)"
        for lead, start, end, times in rows
    )
