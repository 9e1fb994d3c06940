"""Arrays of ECGs as the authors' code stores them, and what must not pass for one."""

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from test_raw_wfdb import beats

from ecgcmr.cohort import prepare
from ecgcmr.errors import Excluded, InputError
from ecgcmr.raw import READERS, declaration, normalised, plain_array, records, tensors
from ecgcmr.signals import HEART, SIGNALS, ecg

STACK = np.stack([beats(1, seed) for seed in range(3)]).astype(np.float32)
MV = declaration(500, "mV")


def stored(path: Path, what) -> str:
    if path.suffix == ".pt":
        torch.save(what, path)
    elif path.suffix == ".npz":
        np.savez(path, **what) if isinstance(what, dict) else np.savez(path, what)
    else:
        np.save(path, what)
    return str(path)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("x.npy", STACK),
        ("x.npy", STACK.astype(np.float64)),
        ("x.npz", STACK),
        ("x.npz", {"ecg": STACK, "labels": np.zeros(3)}),
        ("x.pt", torch.from_numpy(STACK)),
        ("x.pt", list(torch.from_numpy(STACK))),
        ("x.pt", [torch.from_numpy(one.copy()) for one in STACK]),
    ],
)
def test_several_recordings(tmp_path, name, what):
    path = stored(tmp_path / name, what)
    sources = tensors.find(path)
    assert sources == [f"{path}#{i}" for i in range(3)]
    assert tensors.find(str(tmp_path)) == sources
    for i, source in enumerate(sources):
        record = tensors.read(source, MV)
        assert np.array_equal(record.signal, STACK[i])
        assert (record.key, record.rate_hz, record.leads, record.repairs) == (
            f"x-{i}",
            500.0,
            ecg.LEADS,
            (plain_array.STANDARD,),
        )
        assert ecg.prepare(record.signal, record.rate_hz, record.leads)[1] == ()
    with pytest.raises(Excluded, match="no such row"):
        tensors.read(f"{path}#3")


@pytest.mark.parametrize("name", ["one.npy", "one.npz", "one.pt"])
def test_one_recording(tmp_path, name):
    path = stored(tmp_path / name, torch.from_numpy(STACK[1]) if name.endswith("pt") else STACK[1])
    assert tensors.find(path) == [path]
    assert np.array_equal(tensors.read(path, MV).signal, STACK[1])
    assert tensors.read(path, MV).key == "one"


def test_half_precision(tmp_path):
    path = stored(tmp_path / "h.pt", torch.from_numpy(STACK).bfloat16())
    assert np.abs(tensors.read(f"{path}#0", MV).signal - STACK[0]).max() < 0.02


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="says which files are mapped")
@pytest.mark.parametrize("name", ["m.npy", "m.pt"])
def test_a_row_costs_no_more_than_itself(tmp_path, name):
    """The file is mapped: what is read does not depend on what else it holds."""
    path = stored(tmp_path / name, torch.from_numpy(STACK) if name == "m.pt" else STACK)
    tensors.read(f"{path}#1", MV)
    assert path in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_normalised_files_are_refused(tmp_path, dtype):
    """What the authors call noBase_gn: a heart of 0.3 mV is as high there as one of 3 mV."""
    cleaned = torch.from_numpy(np.stack([ecg.clean(one) for one in STACK]))
    by_group = ecg.normalise(cleaned).numpy().astype(dtype)
    by_lead = (
        ((cleaned - cleaned.mean(-1, keepdim=True)) / cleaned.std(-1, keepdim=True))
        .numpy()
        .astype(dtype)
    )
    by_range = (STACK[:1] - STACK[0].min()) / np.ptp(STACK[0])
    for wrong, how in ((by_group, "lead group"), (by_lead, "lead"), (by_range, "range")):
        path = stored(tmp_path / f"{how}.npy", wrong[:1])
        with pytest.raises(Excluded, match=f"^normalised by {how}, the millivolts are lost"):
            tensors.read(path)
        assert not normalised.suits(
            Path(path), records.head(Path(path))
        )  # only where it is asked for
        if how != "lead group":
            with pytest.raises(Excluded, match="not normalised by lead group"):
                normalised.read(path)
    path = stored(tmp_path / "c.npy", cleaned.numpy()[:1])
    assert tensors.read(path, MV).signal.shape == (12, 5000)


def test_normalised_files_reach_the_network_as_they_are(tmp_path):
    cleaned = np.stack([ecg.clean(one) for one in STACK])
    held = ecg.normalise(torch.from_numpy(cleaned)).numpy()
    path = stored(tmp_path / "ecgs_noBase_gn.pt", torch.from_numpy(held))
    assert normalised.find(path) == [f"{path}#{i}" for i in range(3)]
    for i, source in enumerate(normalised.find(path)):
        record = normalised.read(source)
        assert record.repairs == (normalised.WORDS,)
        # The laws give back the limb leads but for one factor.
        found, truth = (
            np.diff(record.signal[:6]),
            np.diff(cleaned[i, :6]),
        )  # each lead's level is the baseline's
        factor = (found * truth).sum() / (truth**2).sum()
        assert np.abs(found - factor * truth).max() < 0.02 * np.abs(factor * truth).max()
        prepared = SIGNALS["ecg"].prepare(record, HEART)
        assert prepared.repairs == ()
        read = ecg.normalise(torch.from_numpy(prepared.array)).numpy()
        assert np.abs(read - held[i]).max() < 0.01  # float16
        judged = prepare._judge("ecg", f"normalised:{source}", HEART)
        assert (judged.reason, judged.repairs) == ("", (normalised.WORDS,))
    turned = held[:1].copy()
    turned[:, 3:6] *= -1
    with pytest.raises(Excluded, match="Einthoven's law violated"):
        normalised.read(stored(tmp_path / "t.npy", turned))


@pytest.mark.parametrize(
    ("name", "what", "reason"),
    [
        ("a.npy", STACK[:, :8], "no array of 12 leads"),
        ("a.npy", STACK[:, :, :12], "no array of 12 leads"),
        ("a.npy", STACK[:1] > 0, "not an array of real numbers"),
        ("a.npy", STACK[:1].astype(np.complex64), "not an array of real numbers"),
        ("a.npy", STACK[:0], "no array of 12 leads"),
        ("a.npy", np.array([{"Jane": "Roe"}], dtype=object), "unreadable array file"),
        ("a.npz", {"a": STACK, "b": STACK}, "several arrays"),
        ("a.npz", {"a": np.zeros(3)}, "no array of 12 leads"),
        ("a.pt", [0, 1, 1], "no array of 12 leads"),
        ("a.pt", {"model": {"w": torch.zeros(3)}}, "no array of 12 leads"),
        ("a.pt", [torch.zeros(3, 210, 210)], "no array of 12 leads"),
        ("a.pt", torch.from_numpy(STACK > 0), "not an array of real numbers"),
        ("a.pt", torch.from_numpy(STACK).to_sparse(), "no array of 12 leads"),
        ("a.pt", torch.zeros(1).expand(10**9, 12, 5000), "unreadable array file"),
        ("a.pt", Path("x"), "not plain tensors"),
    ],
)
def test_other_contents(tmp_path, name, what, reason):
    path = stored(tmp_path / name, what)
    with pytest.raises(Excluded, match=reason):
        tensors.read(path)


def test_images_and_labels_beside_the_ecgs_are_passed_over(tmp_path):
    path = stored(tmp_path / "ecgs.pt", torch.from_numpy(STACK))
    stored(tmp_path / "images.pt", [torch.zeros(3, 210, 210)])
    stored(tmp_path / "labels.pt", [0, 1, 1])
    stored(tmp_path / "phenotypes.npy", np.zeros((2000, 61)))
    stored(tmp_path / "diseases.npy", np.zeros((2000, 3)))
    (tmp_path / "broken.pt").write_bytes(b"PK\x03\x04 cut short")
    assert tensors.find(str(tmp_path)) == [
        str(tmp_path / "broken.pt"),
        *(f"{path}#{i}" for i in range(3)),
    ]
    with pytest.raises(Excluded, match="unreadable array file"):
        tensors.read(str(tmp_path / "broken.pt"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no array of ECGs"):
        tensors.find(str(tmp_path / "empty"))


class Bad:
    def __reduce__(self):
        return (Path.touch, (Path("pickle-ran"),))


def test_no_code_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save([Bad()], "a.pt")
    np.save("b.npy", np.array([Bad()], dtype=object), allow_pickle=True)
    Path("c.pt").write_bytes(pickle.dumps(Bad()))
    Path("d.npy").write_bytes(pickle.dumps(Bad()))
    for name in ("a.pt", "b.npy", "c.pt", "d.npy"):
        with pytest.raises(Excluded, match=r"not plain tensors|unreadable array file"):
            tensors.read(name)
    assert not Path("pickle-ran").exists()


def _repacked(source: Path, target: Path, change) -> str:
    """An archive with each member's content changed, deflated."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member.filename, change(member.filename, old.read(member)))
    return str(target)


def test_headers_that_lie(tmp_path):
    npy = Path(stored(tmp_path / "a.npy", STACK))
    npy.write_bytes(npy.read_bytes().replace(b"(3, 12", b"(9, 12"))
    npz = Path(stored(tmp_path / "b.npz", STACK))
    npz = _repacked(
        npz, tmp_path / "c.npz", lambda _, content: content.replace(b"(3, 12", b"(9, 12")
    )
    packed = _repacked(
        Path(stored(tmp_path / "d.pt", torch.from_numpy(STACK))), tmp_path / "e.pt", lambda _, c: c
    )
    for path, reason in ((npy, "unreadable"), (npz, "file too large"), (packed, "unreadable")):
        with pytest.raises(Excluded, match=reason):
            tensors.read(str(path))


def test_bytes_inserted_into_an_array_are_noticed(tmp_path):
    path = Path(stored(tmp_path / "a.npy", STACK))
    content = path.read_bytes()
    path.write_bytes(
        content[:200_000] + bytes(4) + content[200_000:]
    )  # every later sample one place on
    with pytest.raises(Excluded, match="unreadable array file"):
        tensors.read(str(path))


def test_samples_of_a_tensor_that_were_changed_are_noticed(tmp_path):
    """PyTorch writes checksums and reads without them."""
    path = Path(stored(tmp_path / "a.pt", torch.from_numpy(beats().astype(np.float32))))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 64
    path.write_bytes(content)
    assert torch.load(path, weights_only=True).shape == (12, 5000)
    with pytest.raises(Excluded, match="array file differs from its checksums"):
        tensors.read(f"{path}")


def test_a_header_that_is_no_python_is_nobodys(tmp_path):
    """numpy parses the header as Python, whose tokenizer raises errors of its own."""
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00\x76\x00" + b"{" + b"(" * 117)
    assert not tensors.suits(path, path.read_bytes())
    with pytest.raises(Excluded, match="unreadable array file"):
        tensors.read(str(path))


def test_whose_file_it_is(tmp_path):
    assert READERS["ecg"]["tensors"] is tensors
    for name, what, ours in (
        ("a.npy", STACK, True),
        ("b.npy", STACK[0], True),
        ("c.npy", np.zeros((3, 210, 210)), False),
        ("d.npz", STACK, True),
        ("e.pt", torch.from_numpy(STACK), True),
    ):
        path = Path(stored(tmp_path / name, what))
        assert tensors.suits(path, records.head(path)) is ours
    for name, content in (
        ("f.npy", b""),
        ("g.npy", b"\x93NUMPY\x01\x00\xff\xff"),
        ("h.pt", b"x"),
        ("i.zip", b"PK"),
    ):
        (tmp_path / name).write_bytes(content)
        assert not tensors.suits(tmp_path / name, content)
