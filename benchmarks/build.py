"""How many recordings a second does `ecgcmr cohort build` judge and write, in what memory, and does a kill cost anything?

    python benchmarks/build.py [--recordings 3000] [--folder FOLDER]

Makes a folder of WFDB recordings (120 kB each, from 40 synthetic hearts at other sizes, shifts and noise; one of fifty is
cut short, one repeats another), then runs the command itself four times: undisturbed, for its speed and memory; undisturbed
on a third of the recordings, for how memory grows; and once each killed (SIGKILL, the whole group) in the survey and in
the writing, and run again. One line of JSON: recordings/s of either part by the times of the parts' files, the largest
resident memory that the driver and any one worker reach, and whether cohorts that were killed equal the other byte for
byte, with the share of the parts that the second run found done.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import wfdb

from ecgcmr.cohort import build
from ecgcmr.raw.synthetic import subject
from ecgcmr.signals import ecg

HEARTS = 40
ROWS = {"survey": build.SURVEY, "train-shard": build.SHARD_ROWS}  # of one part
SHORT, COPY = 49, 48  # of every fifty, which is cut and which repeats the one before


def recordings(folder: Path, count: int) -> None:
    """Write the recordings, if they are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    hearts = [subject.subject(i, 0) for i in range(HEARTS)]
    for i in range(count):
        heart = hearts[i % HEARTS]
        eight = np.roll(heart.ecg[[0, 1, *range(6, 12)]], int(random.integers(5000)), axis=1)
        eight = random.uniform(0.8, 1.2) * eight + 0.005 * random.standard_normal(eight.shape)
        one, two = eight[:2]
        leads = np.stack(
            [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, *eight[2:]]
        )
        name, before = f"r{i:06d}", f"r{i - 1:06d}"
        if i % 50 == COPY:
            shutil.copy(folder / f"{before}.dat", folder / f"{name}.dat")
            (folder / f"{name}.hea").write_text(
                (folder / f"{before}.hea").read_text().replace(before, name)
            )
            continue
        kept = leads[:, :2000] if i % 50 == SHORT else leads
        wfdb.wrsamp(
            name,
            fs=ecg.RATE_HZ,
            units=["mV"] * 12,
            sig_name=list(ecg.LEADS),
            p_signal=kept.T.astype(np.float64),
            fmt=["16"] * 12,
            adc_gain=[1000] * 12,
            baseline=[0] * 12,
            write_dir=str(folder),
            comments=[
                f"Age: {heart.age:.0f}",
                "Sex: Male" if heart.sex else "Sex: Female",
                "Dx: 426783006",
            ],
        )


class Memory(threading.Thread):
    """The largest resident set of each kind of process below one, in MiB."""

    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self.root, self.most, self.ended = (
            psutil.Process(root),
            {"driver": 0.0, "worker": 0.0},
            threading.Event(),
        )

    def run(self) -> None:
        """Look four times a second, until told to end; shared memory (Ray's store) is not counted."""
        while not self.ended.wait(0.25):
            try:
                self._look("driver", self.root)
                for child in self.root.children(recursive=True):
                    if child.name().startswith("ray::"):
                        self._look("worker", child)
            except psutil.Error:
                continue

    def _look(self, kind: str, process: psutil.Process) -> None:
        held = process.memory_info()
        self.most[kind] = max(self.most[kind], (held.rss - held.shared) / 2**20)


def started(source: Path, out: Path, key: Path) -> subprocess.Popen:
    """The command, in a process group of its own."""
    words = [
        "cohort",
        "build",
        "--ecg",
        f"wfdb:{source}",
        "--cohort",
        out,
        "--runs",
        out.with_name("runs"),
        "--key",
        key,
    ]
    command = [sys.executable, "-m", "ecgcmr.cli", *map(str, words)]
    return subprocess.Popen(
        command,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def undisturbed(source: Path, out: Path, key: Path) -> dict:
    """Build; seconds of both parts by when their files appear, and memory."""
    process = started(source, out, key)
    memory = Memory(process.pid)
    memory.start()
    begun = time.monotonic()
    seen: dict[str, list[tuple[float, int]]] = {part: [] for part in ROWS}
    while process.poll() is None:
        for part, marks in seen.items():
            found = len(list((out / ".build").glob(f"{part}*.json")))
            if found and (not marks or found > marks[-1][1]):
                marks.append((time.monotonic(), found))
        time.sleep(0.1)
    memory.ended.set()
    flow = process.stdout.read().strip().partition(": ")[2]
    if process.returncode:
        raise SystemExit(f"the build ended with {process.returncode}")
    return {
        "seconds": round(time.monotonic() - begun, 1),
        "flow": flow,
        **rates(seen),
        "memory_mib": {kind: round(mib) for kind, mib in memory.most.items()},
    }


def killed(source: Path, out: Path, key: Path, part: str, parts: float) -> dict:
    """Kill the build when so many files of a part are there, run it again, and count what was not made anew."""
    process = started(source, out, key)
    while process.poll() is None and len(list((out / ".build").glob(f"{part}*.json"))) < max(
        1, parts
    ):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = {
        path.name: path.stat().st_mtime_ns
        for path in (out / ".build").glob("*.json")
        if path.name != "request.json"
    }
    again = started(source, out, key)
    kept: set[str] = set()
    while again.poll() is None:
        held = {path.name: path.stat().st_mtime_ns for path in (out / ".build").glob("*.json")}
        kept |= {name for name, when in before.items() if held.get(name) == when}
        time.sleep(0.2)
    return {"parts_before_the_kill": len(before), "kept": len(kept), "exit": again.returncode}


def tree(path: Path) -> str:
    """A hash of all files below a folder, names and bytes."""
    total = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        total.update(file.relative_to(path).as_posix().encode())
        with file.open("rb") as opened:
            total.update(hashlib.file_digest(opened, "sha256").digest())
    return total.hexdigest()


def rates(seen: dict[str, list[tuple[float, int]]]) -> dict[str, float | None]:
    """Recordings judged and rows written per second, from the first file of a part to the last."""
    spans = {
        part: (marks[-1][1] - marks[0][1], marks[-1][0] - marks[0][0])
        for part, marks in seen.items()
        if marks
    }
    return {
        f"{part}_per_s": round(ROWS[part] * n / seconds, 1) if seconds else None
        for part, (n, seconds) in spans.items()
    }


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recordings", type=int, default=3000)
    parser.add_argument(
        "--folder",
        type=Path,
        help="where to work (default: a temporary folder); emptied at the end",
    )
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="build-", dir=args.folder))
    try:
        recordings(work / "all", args.recordings)
        recordings(work / "third", args.recordings // 3)
        third = undisturbed(work / "third", work / "c" / "third", work / "third.key")
        key = work / "all.key"
        whole = undisturbed(work / "all", work / "a" / "made", key)
        surveys = args.recordings / build.SURVEY
        kills = {
            "survey": killed(work / "all", work / "b" / "made", key, "survey", 0.5 * surveys),
            "writing": killed(
                work / "all",
                work / "d" / "made",
                key,
                "train-shard",
                0.35 * args.recordings / build.SHARD_ROWS,
            ),
        }
        same = tree(work / "a" / "made")
        equal = {
            part: tree(work / at / "made") == same
            for part, at in (("survey", "b"), ("writing", "d"))
        }
        line = {
            "recordings": args.recordings,
            "cpus": os.cpu_count(),
            **whole,
            "of_a_third": third,
            "kills": kills,
            "byte_for_byte": equal,
        }
        print(json.dumps(line, ensure_ascii=False))
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
