"""Damaged and lying files, by thousands: every reader ends in a reason or in the recording, whatever it is given.

A reader that joins raw.READERS needs a line in `TABLE`: sound small files of its format and what changes of their fields
may do (fuzz_seeds.py); bytes are damaged for it. What the run has found stands as a test beside the reader's others.
"""

import itertools
from collections import Counter

import fuzz_judge
import fuzz_seeds
import fuzz_stacks
import numpy as np
import pytest

from ecgcmr import raw

TABLE = {
    ("ecg", "wfdb"): fuzz_seeds.wfdb_seeds,
    ("ecg", "dicom"): fuzz_seeds.dicom_seeds,
    ("ecg", "cardiosoft"): fuzz_seeds.cardiosoft_seeds,
    ("ecg", "muse"): fuzz_seeds.muse_seeds,
    ("ecg", "aecg"): fuzz_seeds.aecg_seeds,
    ("ecg", "scp"): fuzz_seeds.scp_seeds,
    ("ecg", "code15"): fuzz_seeds.code15_seeds,
    ("ecg", "tensors"): fuzz_seeds.tensor_seeds,
    ("cmr", "nifti"): fuzz_stacks.nifti_seeds,
    ("cmr", "dicom"): fuzz_stacks.sax_seeds,
}


def seeds() -> dict[str, fuzz_seeds.Seed]:
    """Name -> seed, of every reader in the table."""
    return {f"{kind}/{name}/{i}": seed for (kind, name), make in TABLE.items() for i, seed in enumerate(make())}
