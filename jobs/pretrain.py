"""Pre-train the encoders of a search space, streamed by Ray Data into Ray Train.

Command: ray job submit --working-dir . -- python jobs/pretrain.py --help
Cost: hours on one GPU at the paper's size (ecgcmr plan says how many).
Expect: an encoder per trial under runs/<space>/pretrain.
"""

import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1] / "platform")
)  # the submitted copy, installed or not

from ecgcmr import cli

if __name__ == "__main__":
    sys.exit(cli.main(["pretrain", *sys.argv[1:]]))
