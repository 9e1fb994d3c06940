"""Embeddings of ECG files: `PART` recordings become one file; one part needs no Ray."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ecgcmr import raw
from ecgcmr.cohort import dataset
from ecgcmr.files import write_json
from ecgcmr.inference import embed_parts, embeddings
from ecgcmr.inference.embeddings import REQUEST
from ecgcmr.inference.encoder import Encoder, open_encoder
from ecgcmr.inference.predict import Refused
from ecgcmr.raw import search
from ecgcmr.runs import check_prepared_alike
from ecgcmr.signals import ecg

FILE, FILES = "embeddings.parquet", "embeddings-{:05d}.parquet"  # of one part, and of several
PART = 256  # recordings; some seconds of work


def of_files(
    folder: Path | str,
    sources: Sequence[tuple[str, str] | Refused],
    out: Path,
    *,
    declaration: raw.Declaration = raw.UNDECLARED,
    device: str | None = None,
    cpus: int | None = None,
    tick: Callable[[int], None] = lambda count: None,
) -> list[Refused]:
    """Embed ECG files into Parquet with `key`, `source` and `embedding`; goes on where it was
    interrupted.

    Args:
        folder: of the run, see `open_encoder`.
        sources: of `predict.recordings`.
        out: a folder for `embeddings.parquet`, or, of more than `PART` recordings, for
            `embeddings-00000.parquet` and on.
        declaration: rate, unit and leads of recordings that do not state them.
        device: of the encoder; on GPUs one worker each.
        cpus: of a local Ray, if it has to be started, which it is for more than `PART`.
        tick: is told how many files are done.

    Returns:
        Files that could not be served. If there is no other, nothing is written.

    Raises:
        InputError: see `open_encoder`; signals of another recipe; `out` holds something else.
    """
    encoder = open_encoder(folder, "ecg", device)
    check_prepared_alike(encoder.run.run, {"ecg": ecg.RECIPE}, ("ecg",))
    refusals = [source for source in sources if isinstance(source, Refused)]
    files = [source for source in sources if not isinstance(source, Refused)]
    request = {
        **embeddings.description(encoder),
        "recordings": len(files),
        "files": dataset.digest([_stamp(source) for _, source in files]),
    }
    declared_json = declaration.as_json()
    request |= {"declared": declared_json} if declared_json else {}
    parts = _parts(files)
    if not embeddings.ready(out, request) and files:
        write_json(out / REQUEST, request)
        absent = len(refusals)
        _write(out, encoder, parts, declaration, device, cpus, lambda count: tick(absent + count))
    refusals += [refusal for name in parts for refusal in embed_parts.refusals_in(out / name)]
    if len(refusals) == len(sources):
        for name in (*parts, REQUEST):
            (out / name).unlink(missing_ok=True)
        if files:
            out.rmdir()
    elif (out / REQUEST).exists():
        rows = len(sources) - len(refusals)
        embeddings.finish(out, {**request, "rows": rows, "width": encoder.width})
    return refusals


def _parts(files: Sequence[tuple[str, str]]) -> dict[str, Sequence[tuple[str, str]]]:
    """The recordings of each file that is written, by its name."""
    parts = [files[start : start + PART] for start in range(0, len(files), PART)]
    names = [FILE] if len(parts) == 1 else [FILES.format(n) for n in range(len(parts))]
    return dict(zip(names, parts, strict=True))


def _write(
    out: Path,
    encoder: Encoder,
    parts: Mapping[str, Sequence[tuple[str, str]]],
    declaration: raw.Declaration,
    device: str | None,
    cpus: int | None,
    tick: Callable[[int], None],
) -> None:
    """Write every part that is not there yet: one here, several with Ray."""
    if len(parts) == 1:
        ((name, files),) = parts.items()
        embed_parts.write_files(out / name, encoder, files, declaration, tick)
        return
    common = {"declared": json.dumps(declaration.as_json())}
    jobs = [
        {"part": name, "rows": len(files), "files": files, **common}
        for name, files in parts.items()
    ]
    embed_parts.make(jobs, embed_parts.options(encoder, out, device), cpus, tick)


def _stamp(source: str) -> list[str | int]:
    """What tells a recording from one that has taken its place."""
    state = search.file_of(source).stat()
    return [source, state.st_size, state.st_mtime_ns]
