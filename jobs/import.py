"""Make a finished pre-training of a weight file, from which trials may start.

Command: ray job submit --working-dir . -- python jobs/import.py --help
Cost: seconds, no Ray.
Expect: a run under runs/<space>/pretrain.
"""

import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1] / "platform")
)  # the submitted copy, installed or not

from ecgcmr import cli

if __name__ == "__main__":
    sys.exit(cli.main(["import", *sys.argv[1:]]))
