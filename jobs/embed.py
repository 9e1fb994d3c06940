"""Write embeddings of a cohort, or of ECG files, as Parquet.

Command: ray job submit --working-dir . -- python jobs/embed.py --help
Cost: one pass over the shards; with the encoder of the toy scale seconds per thousand rows.
Expect: a Parquet file per shard, and _embeddings.json last.
"""

import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1] / "platform")
)  # the submitted copy, installed or not

from ecgcmr import cli

if __name__ == "__main__":
    sys.exit(cli.main(["embed", *sys.argv[1:]]))
