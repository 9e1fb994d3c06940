"""What a model looks at, as files: a similarity map of a pair, and attention over the leads and
times of ECGs.

`inference.pairs` and `inference.attention` compute, `plots.heatmaps` and `plots.recordings` draw;
here it is decided what lies beside what on disk.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from ecgcmr import files
from ecgcmr.inference import attention, pairs, predict
from ecgcmr.inference.model import Model
from ecgcmr.paper import TITLES
from ecgcmr.report.plots import heatmaps, recordings
from ecgcmr.signals import ecg


def draw_pair(pair: pairs.Pair, system: str, caption: str) -> Figure:
    """The pair's ECG, its mid-phase frame, and the frame under the similarities, −1 to 1.

    Args:
        pair: by `pairs.of_subject` or `pairs.of_files`.
        system: which one, as trials call it.
        caption: its first line names the pair, further lines describe it.
    """
    span = f"similarity {pair.similarity.min():.2f} to {pair.similarity.max():.2f}".replace(
        "-", "−"
    )
    maps = {TITLES.get(system, system): pair.similarity}
    return heatmaps.figure6(
        [heatmaps.Case(f"{caption}\n{span}", pair.ecg, ecg.RATE_HZ, pair.image[1], maps)]
    )


def draw_attention(
    model: Model, paths: Iterable[Path], out: Path, refuse: Callable[[str, str], None]
) -> dict[str, pd.DataFrame]:
    """Write `<key>.png`, `<key>.csv` and `<key>.json` for every ECG of files and folders.

    Args:
        model: with an ECG encoder.
        paths: files and folders of recordings of any known formats.
        out: the folder; made where something is written.
        refuse: told the source and the reason of a recording that cannot serve.

    Returns:
        key -> `attention.table` of its weights.

    Raises:
        InputError: see `attention.rollout`.
    """
    tables: dict[str, pd.DataFrame] = {}
    for recording in (
        recording
        for batch in predict.prepared_in_batches(predict.recordings(paths))
        for recording in batch
    ):
        if isinstance(recording, predict.Refused):
            refuse(recording.source, recording.reason)
        elif recording.key in tables:
            refuse(
                recording.source, "another recording of this name was drawn; give it another --out"
            )
        else:
            weights = attention.rollout(model, recording.ecg[None])[0]
            tables[recording.key] = attention.table(weights, model.patch_s)
            title = f"{recording.key}, as prepared for {model.run.name}, and its attention"
            figure = recordings.attended_ecg(
                recording.ecg, ecg.RATE_HZ, weights, model.patch_s, title
            )
            recordings.save(figure, out / f"{recording.key}.png")
            _write(
                out / recording.key,
                tables[recording.key],
                {"recording": recording.key, "run": model.run.name, "patch_s": model.patch_s},
            )
    return tables


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
