"""Write what a run learnt as safetensors, in the published layout, or as ONNX.

Command: ray job submit --working-dir . -- python jobs/export.py --help
Cost: seconds, no Ray.
Expect: one file that says what it is.
"""

import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1] / "platform")
)  # the submitted copy, installed or not

from ecgcmr import cli

if __name__ == "__main__":
    sys.exit(cli.main(["export", *sys.argv[1:]]))
