"""Answer ECG files with a finished model.

Command: ray job submit --working-dir . -- python jobs/predict.py --help
Cost: seconds per hundred ECGs on two cores.
Expect: a table on stdout, and the files that were asked for.
"""

import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1] / "platform")
)  # the submitted copy, installed or not

from ecgcmr import cli

if __name__ == "__main__":
    sys.exit(cli.main(["predict", *sys.argv[1:]]))
