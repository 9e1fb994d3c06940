"""Draw what a run looks at: attention in ECG files, or similarity of an ECG and a CMR image.

Command: ray job submit --working-dir . -- python jobs/explain.py --help
Cost: seconds per recording, no Ray.
Expect: a picture, and for attention a table beside it.
"""

import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1] / "platform")
)  # the submitted copy, installed or not

from ecgcmr import cli

if __name__ == "__main__":
    sys.exit(cli.main(["explain", *sys.argv[1:]]))
