"""Real cine stacks through the CMR path: cohort, SimCLR, and ventricular volumes as regression targets.

    python benchmarks/studies/sunnybrook.py --stacks DICOM --patients scd_patientdata.csv --statistics SCD-PatientStat.csv
                                    --synthetic COHORT --work FOLDER

Builds a cohort of the Sunnybrook stacks with the published EDV, ESV, SV, EF and CO as phenotypes, and checks it. Three
persons cannot fill three splits with the two that a regression needs, so they are pooled with synthetic subjects of COHORT
(two persons to learn from, one to be tested on); SimCLR is pre-trained on the pool's images and fine-tuned on the task
`lv`, once. Prints one line of JSON: the rows, the losses, and measured beside predicted for the real person of the test
split. Of one person nothing can be concluded; what is shown is that real stacks and their targets go all the way.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecgcmr import tasks
from ecgcmr.cohort import build, check, dataset, linkage, shards, staging
from ecgcmr.runtime import cluster
from ecgcmr.search import study
from ecgcmr.training import finetune, pretrain
from ecgcmr.trial import Trial

COLUMNS = {"EDV": "LVEDV", "ESV": "LVESV", "SV": "LVSV", "EF": "LVEF", "CO": "LVCO"}
POOL = 240  # synthetic subjects
LEARNT = 2  # real persons in the training split


def labels(patients: Path, statistics: Path, out: Path) -> Path:
    """The published numbers by the name of each stack; line i of the statistics is patient i."""
    people = pd.read_csv(patients, encoding="utf-8-sig")
    numbers = (
        pd.read_csv(statistics, encoding="utf-8-sig").set_index("Patient").rename(columns=COLUMNS)
    )
    table = numbers.reindex(range(1, len(people) + 1))[list(COLUMNS.values())].reset_index(
        drop=True
    )
    table.insert(0, "cmr", people["PatientID"])
    table.to_csv(out, index=False)
    return out


def rows_of(made: dataset.Cohort, index: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Rows as `shards.write_shard` takes them."""
    signals = made.load(index, ("cmr",))["cmr"]
    names = [name for name in shards.default_labels() if name in index]
    for i, row in enumerate(index.to_dict("records")):
        yield {
            "subject": row["subject"],
            "split": row["split"],
            "ecg": None,
            "cmr": signals[i],
            **{name: row[name] for name in names if pd.notna(row[name])},
        }


def pool(out: Path, real: dataset.Cohort, synthetic: dataset.Cohort) -> dataset.Cohort:
    """One cohort of the real persons and of synthetic subjects whose phenotypes are known."""
    mine = real.rows().reset_index(drop=True)
    mine["split"] = ["train"] * LEARNT + ["test"] * (len(mine) - LEARNT)
    index = synthetic.rows()
    others = index[index["LVEDV"].notna()].groupby("split").head(POOL // len(linkage.SPLITS))
    rows = [*rows_of(real, mine), *rows_of(synthetic, others)]
    recipe = build.recipe_of("sunnybrook+synthetic", {})
    request = {"source": "sunnybrook+synthetic", "seed": 0, "recipe_hash": dataset.digest(recipe)}
    parts = []
    with staging.building(out, request):
        for split in linkage.SPLITS:
            chunk = [row for row in rows if row["split"] == split]
            path = f"{split}/shard-00000.parquet"
            summary = shards.write_shard(out / path, chunk, shards.default_labels())
            parts.append(
                {**summary, "path": path, "has": {"ecg": "0" * len(chunk), "cmr": "1" * len(chunk)}}
            )
        account: dict[str, Any] = {"flow": [], "exclusions": [], "repairs": []}
        return staging.finish(out, request, recipe, parts, shards.default_labels(), account)


def trials() -> tuple[Trial, Trial]:
    """SimCLR on the images, and the fine-tuning that starts from it."""
    shared: dict[str, Any] = {
        "space": "sunnybrook",
        "modality": "cmr",
        "network": study.TOY.network,
        "batch": 16,
    }
    before = Trial(
        stage="pretrain",
        task="cmr",
        system="cmr-simclr",
        method="simclr",
        epochs=10,
        eval_every=5,
        knobs=(("lr", 1e-3),),
        **shared,
    )
    after = Trial(
        stage="evaluation",
        task="lv",
        system="cmr-simclr",
        method="supervised",
        init_from=(("cmr", before.name),),
        epochs=20,
        eval_every=5,
        knobs=(("lr", 3e-3),),
        **shared,
    )
    return before, after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("stacks", "patients", "statistics", "synthetic", "work"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    known = labels(args.patients, args.statistics, args.work / "labels.csv")
    with cluster.running():
        real = build.build(args.work / "real", cmr=f"dicom:{args.stacks}", labels=known)
        faults = [str(fault) for fault in check.check(real.path)]
        pooled = pool(args.work / "pooled", real, dataset.open(args.synthetic))
        before, after = trials()
        scores = pretrain.run_all([before], pooled.path, args.work / "runs", device="cpu")
    (result,) = finetune.fit([after], pooled, args.work / "runs", device="cpu")
    found = result.predictions[result.predictions["subject"].isin(real.rows()["subject"])]
    columns = [
        name for name in tasks.TASKS["lv"].columns if np.isfinite(found[f"target:{name}"]).all()
    ]
    line = {
        "benchmark": "sunnybrook",
        "flow": [(step["step"], step["n"]) for step in real.manifest["flow"]],
        "faults": faults,
        "rows": pooled.manifest["rows"],
        "real_in_training": LEARNT,
        "simclr_val_loss": next(round(r["value"], 4) for r in scores if r["metric"] == "loss"),
        "test_r": next(
            round(v, 4) for s, m, v, _ in result.scores if (s, m) == ("test", "pearson")
        ),
        "real_test_persons": len(found),
        **{
            name: {
                "published": [round(float(x), 1) for x in found[f"target:{name}"]],
                "predicted": [round(float(x), 1) for x in found[f"output:{name}"]],
            }
            for name in columns
        },
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
