"""What cannot be read is counted, is unknown, and is never health; what can be read is read the same everywhere."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecgcmr.cohort.labels import icd10, merge, tables
from ecgcmr.cohort.labels.merge import read_labels, rules
from ecgcmr.errors import InputError

GOOD = [f"{n},I10,E119\n" for n in range(1, 30)]  # among many that can be read


def table(tmp_path, text, name="l.csv"):
    (tmp_path / name).write_text(text)
    return tmp_path / name


def diseases(labels, key):
    row = labels.by_person.get(key, {})
    return tuple(row.get(name) for name in ("cad", "af", "dm"))


@pytest.mark.parametrize(
    ("entry", "codes"),
    [
        ("I25.1†", "I251"),
        ("I25.1 †", "I251"),
        ("I25,1", "I251"),
        ("I48.-", "I48"),
        ("I48-", "I48"),
        ("I48.0!", "I480"),
        ("I48*", "I48"),
        ("I48+", "I48"),
        ("ICD10:I48", "I48"),
        ("ICD-10: I48.0", "I480"),
        ("icd-10-gm I48", "I48"),
        ("I10|I251", "I10 I251"),
        ("I10;I251", "I10 I251"),
        ("I10, I25.1", "I10 I251"),
        ("I10 I251", "I10 I251"),
        ("I10/I251", "I10 I251"),
        ("I25,1,I48", "I251 I48"),
        ("['I10' 'I251']", "I10 I251"),
        ('"I251"', "I251"),
        ("I48\u200b", "I48"),
        ("I21.9 Acute myocardial infarction, unspecified", "I219"),
        ("G20 Parkinson's disease", "G20"),
    ],
)
def test_a_code_in_odd_dress_is_read(entry, codes):
    assert icd10.read(entry) == icd10.Reading(tuple(codes.split()))


@pytest.mark.parametrize(
    ("entry", "stems"),
    [
        ("I2", "I2"),
        ("I2?1", "I2"),
        ("?I48", "I48"),
        ("V.a. I48", "I48"),
        ("I48.0 A", "I48"),  # German: excluded
        ("I20-I25", "I2"),
        ("I48, I25?", "I48 I25"),
        ("XI251", ""),
        ("Ι25.1", ""),  # a Greek iota
        ("4139", ""),
        ("yes", ""),
    ],
)
def test_what_is_no_code_may_be_what_it_begins_like(entry, stems):
    reading = icd10.read(entry)
    assert reading.codes == ()
    assert set(reading.stems) >= set(stems.split() or [""])


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("I25.1†", (1, 0, 0)),
        ("I10|I251", (1, 0, 0)),
        ("I2", (None, 0, 0)),  # one of cad's, of dm's or af's not
        ("I2?1", (None, 0, 0)),
        ("I4§", (0, None, 0)),
        ("E1x?", (0, 0, None)),
        ("E1X", (0, 0, None)),
        ("XI251", (None, None, None)),
        ("heart attack", (None, None, None)),
        ("125.1", (None, None, None)),
        ("J45?", (0, 0, 0)),  # asthma, whatever follows
    ],
)
def test_nobody_is_healthy_by_an_entry_that_cannot_be_read(tmp_path, entry, expected):
    lines = [f"{n},I10,K21\n" for n in range(1, 30)]
    labels = read_labels(
        [table(tmp_path, "eid,p41270_a0,p41270_a1\n" + "".join(lines) + f'99,I10,"{entry}"\n')]
    )
    assert diseases(labels, "99") == expected
    assert diseases(labels, "1") == (0, 0, 0)


def test_a_doubt_takes_no_disease_away_but_hides_when_it_began(tmp_path):
    text = "eid,p53_i2,p41270_a0,p41270_a1,p41280_a0,p41280_a1\n" + "".join(
        f"{n},2016-01-01,I10,,2001-01-01,\n" for n in range(2, 9)
    )
    text += "1,2016-01-01,I251,I2?,2018-01-01,\n9,2016-01-01,I251,I2?,2010-01-01,\n8x,2016-01-01,I10,,2020-01-01,\n"
    rows = read_labels([table(tmp_path, text)]).by_person
    assert rows["1"]["cad"] == 1
    assert "cad_past" not in rows["1"]  # the other entry may be older than the visit
    assert "cad_future" not in rows["1"]
    assert (rows["9"]["cad"], rows["9"]["cad_past"]) == (1, 1)


def test_the_audit_says_how_many_and_what_they_looked_like(tmp_path):
    text = (
        "eid,p41270_a0,p41270_a1\n" + "".join(GOOD) + "97,I10,zz top\n98,I10,I2?7\n99,I10,secret9\n"
    )
    audit = read_labels([table(tmp_path, text)]).audit
    assert audit["icd10"]["no_codes"] == audit["icd10"]["unclear"] == 3
    assert audit["icd10"]["shapes"] == {"aa aaa": 1, "A9?9": 1, "aaaaaa9": 1}
    words = "\n".join(merge.audit_lines(audit))
    assert "Left out: <5 of 64 entries are no ICD-10 codes" in words
    assert "`A9?9` <5" in words
    assert "secret" not in words
    assert "zz" not in words


def test_several_codes_in_an_indexed_cell(tmp_path):
    """RAP's table-exporter with UKB-FORMAT names: the field that is not split is `41270-0.0`."""
    text = "eid,53-2.0,41270-0.0,41280-0.0,41280-0.1\n" + (
        "1,2015-01-01,I10|I251,2001-01-01,2018-01-01\n2,2015-01-01,I480,2003-01-01,\n"
        "3,2015-01-01,,,\n4,2015-01-01,E119,2020-01-01,\n"
    )
    rows = read_labels([table(tmp_path, text)]).by_person
    assert (rows["1"]["cad"], rows["1"]["cad_past"], rows["1"]["cad_future"]) == (1, 0, 1)
    assert diseases(read_labels([tmp_path / "l.csv"]), "3") == (0, 0, 0)
    text = "eid,53-2.0,41270-0.0,41270-0.1,41280-0.0,41280-0.1\n" + (
        "1,2015-01-01,I10|I251,K21,2001-01-01,2018-01-01\n2,2015-01-01,K21,J45,2003-01-01,2020-01-01\n"
    )
    row = read_labels([table(tmp_path, text)]).by_person["1"]
    assert row["cad"] == 1
    assert "cad_past" not in row  # whose of the two codes the cell's date is, nobody knows


LISTS = {
    "pipes": "|".join,
    "json": json.dumps,
    "python": str,
    "numpy": lambda words: str(np.array(words)),
    "numpy, lines": lambda words: str(np.array(words)).replace(" ", "\n "),
    "array": lambda words: repr(np.array(words, dtype=object)),
    "tuple": lambda words: str(tuple(words)),
    "spark": lambda words: f"[{', '.join(words)}]",
    "postgres": lambda words: "{" + ",".join(words) + "}",
    "r": lambda words: "c(" + ", ".join(f'"{word}"' for word in words) + ")",
    "semicolons": "; ".join,
    "commas": ",".join,
}


@pytest.mark.parametrize("spelling", LISTS)
def test_lists_in_any_spelling(spelling):
    words, rows, places, no_list = tables.lists(
        pa.array([LISTS[spelling](["I10", "I251", "E119"]), None, LISTS[spelling](["I48", "J45"])])
    )
    assert not no_list.any()
    read = [code for word in words.to_pylist() for code in icd10.read(word).codes]
    assert read == ["I10", "I251", "E119", "I48", "J45"]
    assert rows.tolist()[0] == 0
    assert rows.tolist()[-1] == 2
    assert places.tolist()[0] == 0


@pytest.mark.parametrize("cell", ["['I10' ... 'I251']", "['I10', 'I251'", "['I10' I251]"])
def test_a_list_that_is_cut_is_nobodys_health(tmp_path, cell):
    text = "eid,p41270\n" + "".join(f"{n},I10|J45\n" for n in range(5)) + f'9,"{cell}"\n'
    assert diseases(read_labels([table(tmp_path, text)]), "9") == (None, None, None)


# -- one table in four spellings ----------------------------------------------------------------------------------------

POOL = ["I251", "I480", "E119", "I10", "J459", "K219", "I209", "E103", "Z951"]


def persons(n=60):
    """(eid, sex, ages of visits 2 and 3, codes with days) of people like UK Biobank's; some have no code."""
    rng = np.random.default_rng(7)
    for i in range(n):
        codes = rng.permutation(POOL)[: rng.integers(0, 5)].tolist()
        days = [
            str(np.datetime64("2005-01-01") + int(d)) for d in rng.integers(0, 6500, len(codes))
        ]
        yield 1_000_000 + i, int(rng.integers(2)), int(rng.integers(45, 80)), list(zip(codes, days))


def spelt(path, name):
    """The main table of `persons` as one of four tools writes it."""
    style, joined = {
        "rap": ("p{f}{i}{a}", json.dumps),
        "ukbconv csv": ("{f}-{i}.{a}", None),
        "ukbconv tab": ("f.{f}.{i}.{a}", None),
        "ukb-format": ("{f}-{i}.{a}", "|".join),
        "spark": ("p{f}{i}{a}", lambda words: str(np.array(words))),
    }[name]

    def column(field, instance=0, array=0):
        if style.startswith("p"):
            once = field in (31, 41270, 41280)
            index = f"_a{array}" if field in (41270, 41280) else ""
            return f"p{field}" + ("" if once else f"_i{instance}") + index
        return style.format(f=field, i=instance, a=array)

    rows = []
    for eid, sex, age, coded in persons():
        row = {"f.eid" if name == "ukbconv tab" else "eid": eid, column(31): sex}
        row |= {column(21003, 2): age, column(21003, 3): age + 5}
        row |= {column(53, 2): "2014-06-01", column(53, 3): "2019-06-01"}
        row |= {column(24100, 2): 150.5, column(24100, 3): 140.25}
        codes = [code for code, _ in coded]
        if joined is None:
            row |= {
                column(41270, 0, at): (codes[at] if at < len(codes) else None) for at in range(4)
            }
        else:
            cell = joined(codes) if codes else None
            row[column(41270).removesuffix("_a0")] = cell
        row |= {
            column(41280, 0, at): (coded[at][1] if at < len(coded) else None) for at in range(4)
        }
        rows.append(row)
    frame = pd.DataFrame(rows)
    frame.to_csv(path, index=False, sep="\t" if name == "ukbconv tab" else ",")
    return path


def test_four_spellings_of_a_main_table_give_equal_labels(tmp_path):
    names = ("rap", "ukbconv csv", "ukbconv tab", "ukb-format", "spark")
    read = {name: read_labels([spelt(tmp_path / f"{i}.csv", name)]) for i, name in enumerate(names)}
    truth = {}
    for eid, sex, age, coded in persons():
        days = [day for code, day in coded if code.startswith("I48")]
        row = {"sex": sex, "age": age, "LVEDV": 150.5, "af": float(bool(days))}
        row["af_past"] = float(bool(days) and min(days) <= "2014-06-01")
        truth[str(eid)] = row
    for name, labels in read.items():
        assert len(labels.by_person) == 60
        for eid, row in truth.items():
            person = labels.by_person[eid]
            assert {column: person.get(column) for column in row} == row, name
        for visit in ("2", "3", ""):
            assert labels.by_visit[visit] == read["rap"].by_visit[visit], name


# -- numbers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["55,1", "55%", "89+", "fifty-five", "55 %", "> 55"])
def test_numbers_that_are_none_are_counted_and_said(tmp_path, bad, caplog):
    lines = "".join(f"{n}\t{50 + n}\n" for n in range(9))
    path = table(tmp_path, "eid\tLVEF (%)\n" + lines + f"99\t{bad}\n", "l.tsv")
    labels = read_labels([path])
    assert labels.by_person["99"] == {}
    assert labels.by_person["3"] == {"LVEF": 53}
    (entry,) = labels.audit["no_numbers"]
    assert (entry["column"], entry["of"], sum(entry["shapes"].values())) == ("LVEF (%)", 10, 1)
    assert "LVEF (%): 1 of 10 entries are no numbers" in caplog.text
    assert "LVEF (%): <5 of 10 entries are no numbers" in "\n".join(merge.audit_lines(labels.audit))
    assert bad not in "\n".join(merge.audit_lines(labels.audit))


def test_a_column_of_decimal_commas_is_refused(tmp_path):
    """Tab-separated from a German Excel: whole numbers alone would be known."""
    text = "eid\tLVEF (%)\tLVEDV (mL)\n1\t55,1\t150,2\n2\t60,3\t140,1\n3\t61\t141\n4\t59,9\t133,5\n"
    with pytest.raises(
        InputError, match=r"LVEF \(%\): 3 of 4 entries are no numbers .*99,9.*decimal point"
    ):
        read_labels([table(tmp_path, text, "heart.tsv")])


def test_a_sex_in_words_that_are_none_is_said(tmp_path, caplog):
    text = "eid,sex,age\n1,Female,60\n2,M,61\n3,divers,62\n"
    labels = read_labels([table(tmp_path, text)])
    assert "sex" not in labels.by_person["3"]
    assert "sex: 1 of 3 entries are no numbers" in caplog.text


def test_semicolons_between_columns(tmp_path):
    labels = read_labels([table(tmp_path, "eid;sex;LVEF\n1;F;55.5\n2;M;60\n")])
    assert labels.by_person == {"1": {"sex": 0, "LVEF": 55.5}, "2": {"sex": 1, "LVEF": 60}}


def test_columns_that_nothing_is_taken_from_are_printed_by_name(tmp_path):
    names = [f"note_{n}" for n in range(20)]
    text = f"eid,cad,{','.join(names)},41202-0.0,41202-0.1\n" + "1,1," + "x," * 20 + ",\n"
    words = "\n".join(merge.audit_lines(read_labels([table(tmp_path, text)]).audit))
    assert (
        f"l.csv: not read: field 41202, main ICD-10 codes, part of 41270 (2 columns), {', '.join(names)}"
        in words
    )


# -- quotation marks ---------------------------------------------------------------------------------------------------


def unquoted(n=12, at=(3,)):
    lines = ["f.eid\tf.31.0.0\tf.41270.0.0\tf.22600.0.0"]
    lines += [
        f"{1000011 + i}\t{i % 2}\t{'I251' if i % 3 == 0 else ''}\t{chr(34) * (i in at)}joiner"
        for i in range(n)
    ]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("at", [(3,), (3, 7), (0,), (11,), (2, 5, 8)])
def test_a_mark_in_a_tab_separated_table_swallows_nobody(tmp_path, at):
    labels = read_labels([table(tmp_path, unquoted(at=at), "ukb.tab")])
    assert len(labels.by_person) == 12
    assert [diseases(labels, str(1000011 + i))[0] for i in range(12)] == [
        float(i % 3 == 0) for i in range(12)
    ]


@pytest.mark.parametrize("at", [(3,), (3, 7), (0, 1)])
def test_a_mark_in_a_comma_separated_table_is_refused(tmp_path, at):
    with pytest.raises(InputError) as refused:
        read_labels([table(tmp_path, unquoted(at=at).replace("\t", ","), "ukb.csv")])
    assert "\n" not in str(refused.value)
    assert "10000" not in str(refused.value)


def test_text_over_several_lines_is_refused(tmp_path):
    text = 'eid,cad,note\n1,1,"two\nlines"\n2,0,plain\n'
    with pytest.raises(
        InputError, match=r"3 lines below the names of the columns, but 2 rows: a quotation mark"
    ):
        read_labels([table(tmp_path, text)])


def test_sound_tables_have_as_many_rows_as_lines(tmp_path):
    for text in (
        'eid,cad,note\n1,1,"a, b"\n2,0,"say ""x"""\n',
        'eid,cad,note\r\n1,1,"a, b"\r\n2,0,x\r\n',
        "eid,cad\n\n1,1\n\n\n2,0",
        '"eid"\t"cad"\t"note"\n"1"\t1\t"a\tb"\n"2"\t0\t"x"\n',  # R quotes names and text
    ):
        assert read_labels([table(tmp_path, text, "l.txt")]).by_person.keys() == {"1", "2"}


def test_lines_are_counted_over_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "BLOCK", 512)
    text = "eid,cad\n" + "".join(f"{n},{n % 2}\n" for n in range(500))
    assert len(read_labels([table(tmp_path, text)]).by_person) == 500


def test_a_range_and_typed_lists_of_parquet(tmp_path):
    pq.write_table(
        pa.table({"eid": [1, 2], "p41270": [["I10", "I25.1"], ["I20-I25"]]}), tmp_path / "l.parquet"
    )
    labels = read_labels([tmp_path / "l.parquet"], rules(["mi=I22"], allow_empty=True))
    assert (labels.by_person["1"]["cad"], labels.by_person["1"]["mi"]) == (1, 0)
    assert "mi" not in labels.by_person["2"]


# -- record tables -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", ["", "hesin"])
def test_hospital_records_as_they_come(tmp_path, names):
    """UK Biobank's `hesin_diag`, and with `hesin` its dates; dx puts the table before each name."""

    def header(table, columns):
        return ",".join(f"{table}.{name}" if names else name for name in columns.split()) + "\n"

    diag = header("hesin_diag", "eid ins_index arr_index level diag_icd9 diag_icd10")
    diag += "1000011,0,0,1,,I251\n1000011,1,0,1,,I480\n1000022,0,0,1,,E119\n1000033,0,0,1,4139,\n"
    diag += "1000044,0,0,1,,I4?\n1000044,1,0,1,,I10\n"
    hesin = header("hesin", "eid ins_index epistart admidate")
    hesin += "1000011,0,2001-02-03,\n1000011,1,,2018-01-01\n1000022,0,2020-01-01,2019-12-31\n"
    one, two = table(tmp_path, diag, "hesin_diag.csv"), table(tmp_path, hesin, "hesin.csv")
    alone = read_labels([one])
    assert [diseases(alone, f"10000{i}{i}") for i in range(1, 5)] == [
        (1, 1, 0),
        (0, 0, 1),
        (0, 0, 0),
        (0, None, 0),
    ]
    assert any(name.endswith("diag_icd9") for name in alone.audit["unread"]["hesin_diag.csv"])
    visits = table(
        tmp_path, "subject,visit_date\n1000011,2015-05-05\n1000022,2015-05-05\n", "v.csv"
    )
    row = read_labels([two, one, visits]).by_person["1000011"]
    assert (row["cad_past"], row["af_past"], row["af_future"]) == (1, 0, 1)
    with pytest.raises(InputError, match="hospital stays without their codes; give hesin_diag"):
        read_labels([two])
    table(tmp_path, hesin + "1000022,0,2020-01-01,\n", "hesin.csv")
    with pytest.raises(InputError, match="1 hospital stays stand in more than one line"):
        read_labels([two, one])
