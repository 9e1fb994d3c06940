"""Make a folder of a model that can be handed on.

Command: ray job submit --working-dir . -- python jobs/share.py --help
Cost: seconds.
Expect: a folder with weights and calibration.
"""

import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1] / "platform")
)  # the submitted copy, installed or not

from ecgcmr import cli

if __name__ == "__main__":
    sys.exit(cli.main(["share", *sys.argv[1:]]))
