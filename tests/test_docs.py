import json
import re
from pathlib import Path

import numpy
import pyarrow.parquet
import pytest
import yaml

from ecgcmr import __version__
from ecgcmr.cohort import dataset, shards
from ecgcmr.raw import network_card

ROOT = Path(__file__).resolve().parents[1]
FORMAT = ROOT / "docs" / "data-format.md"


def test_the_three_lines_read_a_shard(small_cohort):
    (code,) = re.findall(r"```python\n(.*?)```", FORMAT.read_text(), re.DOTALL)
    assert len(code.strip().splitlines()) == 3
    index = small_cohort.rows("train")
    first = index[index.shard == index.shard.iloc[0]]
    for name in ("ecg", "cmr"):
        path = str(small_cohort.path / first.shard.iloc[0])
        names = {"pyarrow": pyarrow, "numpy": numpy, "json": json}
        exec(
            code.replace("cohort/train/shard-00000.parquet", path).replace('"ecg"', f'"{name}"'),
            names,
        )
        present = first[first[f"has_{name}"]]
        assert numpy.array_equal(names["ecg"], small_cohort.load(present, (name,))[name])


def test_the_page_names_every_field_of_the_manifest_and_the_index(small_cohort):
    text = FORMAT.read_text()
    missing = [name for name in {*small_cohort.manifest} - {"request"} if f"`{name}`" not in text]
    assert not missing, f"docs/data-format.md does not explain {missing} of {dataset.MANIFEST}"
    missing = [
        name
        for name in small_cohort.rows().columns
        if name not in small_cohort.columns and f"`{name}`" not in text
    ]
    assert not missing, f"docs/data-format.md does not explain {missing} of {dataset.INDEX}"
    for signal in shards.SIGNALS.values():
        assert all(f"`{key}`" in text for key in signal.metadata)


def test_the_card_of_a_network_that_the_page_shows_can_be_read(tmp_path):
    text = (ROOT / "docs" / "formats.md").read_text()
    (card,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    (tmp_path / "net.json").write_text(card)
    network_card.read(tmp_path / "net.json")
    words = [*network_card.FIELDS, *network_card.TURNS, network_card.DISPLAYED]
    assert [word for word in words if f"`{word}`" not in text] == []


@pytest.mark.parametrize(
    "page",
    sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")], key=str),
)
def test_links_between_the_pages_hold(page):
    for address in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        if not re.match(r"[a-z]+:", address):
            assert (page.parent / address).exists(), (
                f"{page.relative_to(ROOT)} links to {address}, which is not there"
            )


def test_every_benchmark_is_in_the_list_and_the_other_way():
    text = (ROOT / "benchmarks" / "README.md").read_text()
    listed = set(re.findall(r"(benchmarks/[\w/]+\.py)", text))
    assert listed == {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "benchmarks").rglob("*.py")
    }


def test_the_citation_names_this_version_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert citation["license"] == "Apache-2.0"
    paper = citation["preferred-citation"]
    assert paper["authors"][0]["family-names"] == "Turgut"
    assert "arXiv:2308.05764" in [identifier["value"] for identifier in paper["identifiers"]]


def test_the_licence_is_apaches():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
