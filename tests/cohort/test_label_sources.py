"""Each source of diagnoses, in each spelling: who has a disease, since when, and who is not known to be without it."""

import pandas as pd
import pytest

from ecgcmr.cohort.labels import first_occurrences, merge
from ecgcmr.cohort.labels.codings import icd9_read, number_read
from ecgcmr.cohort.labels.icd10 import Reading
from ecgcmr.cohort.labels.merge import read_labels, rules
from ecgcmr.errors import InputError

STYLES = {"rap": "p{0}_i{1}_a{2}", "ukbconv": "{0}-{1}.{2}", "r": "f.{0}.{1}.{2}"}
SECOND, THIRD = "2016-05-05", "2019-06-06"  # the days of visits 2 and 3
# Of the platform: fields with one instance, and with one place in their array.
ONE_INSTANCE = {41270, 41280, 41271, 41281, 41272, 41282, 191, *range(130000, 132606)}
ONE_PLACE = {53, 191, 40000, 40001, *range(130000, 132606)}


def column(style, field, instance=0, array=0):
    """A field as one of UK Biobank's tools names it; the platform leaves out what there is once."""
    name = STYLES[style].format(field, instance, array)
    if style == "rap":
        name = name.replace(f"_i{instance}", "") if field in ONE_INSTANCE else name
        name = name.replace(f"_a{array}", "") if field in ONE_PLACE else name
    return name


def table(path, style, people):
    """A wide table; people: id -> {(field, instance, array): value}; visits 2 and 3 have dates unless they say so."""
    rows = []
    for eid, cells in people.items():
        cells = {(53, 2, 0): SECOND, (53, 3, 0): THIRD} | cells
        rows.append(
            {"f.eid" if style == "r" else "eid": eid}
            | {column(style, *place): value for place, value in cells.items()}
        )
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def asked(folder, text, **options):
    """Rules of a file of definitions; codes that nobody has are accepted."""
    (folder / "diseases.toml").write_text(text)
    options = {"allow_empty": True} | options
    return rules(definitions_file=folder / "diseases.toml", **options)


def at(labels, name, visit):
    """id -> (ever, past, future) at a visit."""
    ever, there = labels.by_visit[""], labels.by_visit[visit]
    return {
        int(key): (
            ever[key].get(name),
            there[key].get(f"{name}_past"),
            there[key].get(f"{name}_future"),
        )
        for key in ever
    }


# -- self-report -------------------------------------------------------------------------------------------------------

TOLD = {
    1: {(20002, 2, 0): 1065, (20008, 2, 0): 2001, (20002, 2, 1): 1075, (20008, 2, 1): 2010.5},
    2: {(20002, 3, 0): 1075, (20008, 3, 0): 2018.5},  # after visit 2
    3: {(20002, 2, 0): 1075, (20008, 2, 0): -1},  # the year is not known: by visit 2
    4: {(20002, 3, 0): 1075, (20008, 3, 0): -3},  # by visit 3
    5: {},
    6: {(20002, 2, 1): 1075, (20008, 2, 1): 2016.9},  # later than the visit at which it was told
    7: {(20002, 2, 0): "heart attack"},
    8: {(20002, 2, 0): 10755, (20008, 2, 0): 2010.5},  # a code is no beginning of another
    9: {(20002, 0, 0): 1075, (20008, 0, 0): -1},  # told at recruitment
    10: {(53, 3, 0): None},  # not asked after visit 2
}


@pytest.mark.parametrize("style", STYLES)
def test_self_report(tmp_path, style):
    path = table(tmp_path / "t.csv", style, TOLD)
    labels = read_labels([path], asked(tmp_path, "[mi]\nself_report = [1075]\n"))
    assert at(labels, "mi", "2") == {
        1: (1, 1, None),
        2: (1, 0, 1),
        3: (1, 1, None),
        4: (1, None, None),
        5: (0, 0, 0),
        6: (1, 1, None),
        7: (None, None, None),
        8: (0, 0, 0),
        9: (1, 1, None),
        10: (0, 0, None),  # nothing is known of after visit 2
    }
    later = at(labels, "mi", "3")
    assert [later[eid] for eid in (2, 4, 5)] == [(1, 1, None), (1, 1, None), (0, 0, None)]


def test_who_was_last_asked_before_the_visit_may_have_got_it_since(tmp_path):
    people = {1: {(20002, 0, 0): 1065}, 2: {(20002, 0, 0): 1075, (20008, 0, 0): 2001.5}}
    path = table(tmp_path / "t.csv", "rap", people)
    labels = read_labels([path], asked(tmp_path, "[mi]\nself_report = [1075]\n"))
    assert at(labels, "mi", "2") == {1: (0, None, None), 2: (1, 1, None)}


def test_a_list_of_illnesses_in_a_cell(tmp_path):
    text = "eid,p53_i2,p20002_i2,p20008_i2_a0,p20008_i2_a1\n"
    text += f'1,{SECOND},"[1065, 1075]",2001.5,2003.5\n2,{SECOND},"[1065]",2001.5,\n3,{SECOND},,,\n'
    (tmp_path / "t.csv").write_text(text)
    labels = read_labels([tmp_path / "t.csv"], asked(tmp_path, "[mi]\nself_report = [1075]\n"))
    assert at(labels, "mi", "2") == {1: (1, 1, None), 2: (0, 0, None), 3: (0, 0, None)}


def test_years_that_are_none_are_refused(tmp_path):
    people = {1: {(20002, 2, 0): 1075, (20008, 2, 0): 61.5}}  # an age, field 20009
    path = table(tmp_path / "t.csv", "rap", people)
    with pytest.raises(InputError, match="'p20008_i2_a0' holds 1 entries that are no years"):
        read_labels([path], asked(tmp_path, "[mi]\nself_report = [1075]\n"))


def test_words_instead_of_numbers_are_refused(tmp_path):
    path = table(tmp_path / "t.csv", "rap", {1: {(20002, 2, 0): "angina"}})
    with pytest.raises(InputError, match="1 of 1 entries are no numbers of illnesses such as 1074"):
        read_labels([path], asked(tmp_path, "[mi]\nself_report = [1075]\n"))


# -- medication --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
def test_medication_is_known_at_its_visit(tmp_path, style):
    people = {
        1: {(20003, 2, 0): 99, (20003, 2, 5): 1140868226},
        2: {(20003, 2, 0): 99, (20003, 3, 0): 1140868226},  # not taken at visit 2
        3: {},
    }
    path = table(tmp_path / "t.csv", style, people)
    labels = read_labels([path], asked(tmp_path, "[aspirin]\nmedication = [1140868226]\n"))
    assert at(labels, "aspirin", "2") == {1: (1, 1, None), 2: (1, 0, 1), 3: (0, 0, 0)}
    assert at(labels, "aspirin", "3") == {1: (1, 1, None), 2: (1, 1, None), 3: (0, 0, None)}


def test_a_medicine_of_the_first_visit_that_was_asked_may_be_older(tmp_path):
    path = table(tmp_path / "t.csv", "rap", {1: {(20003, 3, 0): 7}, 2: {(20003, 3, 0): 8}})
    labels = read_labels([path], asked(tmp_path, "[pill]\nmedication = [7]\n"))
    assert at(labels, "pill", "2") == {1: (1, None, None), 2: (0, 0, 0)}
    assert at(labels, "pill", "3")[1] == (1, 1, None)


# -- first occurrences -------------------------------------------------------------------------------------------------

FIRST = {
    1: {(131306, 0, 0): "2010-01-01"},
    2: {(131306, 0, 0): "2018-01-01"},
    3: {(131298, 0, 0): "2018-01-01", (131306, 0, 0): "2015-01-01"},  # the earliest of both
    4: {(131298, 0, 0): "1900-01-01"},  # no date: who knows since when
    5: {(131298, 0, 0): "1901-01-01"},  # before birth, which cannot be
    6: {(131298, 0, 0): "1902-02-02"},  # on the day of birth
    7: {(131298, 0, 0): "1903-03-03"},  # in the year of birth
    8: {(131298, 0, 0): "1909-09-09"},  # in the future, which cannot be
    9: {(131298, 0, 0): "2037-07-07"},
    10: {(131350, 0, 0): "2010-01-01"},  # I48
    11: {},
    12: {(131298, 0, 0): "2037-07-07", (131306, 0, 0): "2012-01-01"},
}


@pytest.mark.parametrize(
    ("style", "words"),
    [
        ("rap", '["I20-I25"]'),
        ("rap", '["131298", 131306]'),
        ("ukbconv", '["I20-I25"]'),
        ("r", '["131298", 131306]'),
    ],
)
def test_first_occurrences(tmp_path, style, words):
    path = table(tmp_path / "t.csv", style, FIRST)
    labels = read_labels([path], asked(tmp_path, f"[cad]\nfirst_occurrence = {words}\n"))
    assert at(labels, "cad", "2") == {
        1: (1, 1, None),
        2: (1, 0, 1),
        3: (1, 1, None),
        **dict.fromkeys((4, 5, 8, 9), (1, None, None)),
        **dict.fromkeys((6, 7), (1, 1, None)),
        **dict.fromkeys((10, 11), (0, 0, 0)),
        12: (1, 1, None),
    }
    audit = labels.audit
    assert audit["icd10"]["end"] == "2018-01-01"  # the stand-ins are no end of the records
    assert column(style, 131350) in audit["unread"]["t.csv"]
    no_column = audit["icd10"]["diseases"]["cad"]["no_column"]
    assert no_column == (
        [f"first_occurrence I2{n}" for n in (0, 2, 3, 4)] if "I20" in words else []
    )


def test_a_first_occurrence_by_its_title(tmp_path):
    title = "Date A15 first reported (respiratory tuberculosis, bacteriologically confirmed)"
    rows = [{"eid": 1, "p53_i2": SECOND, title: "2001-01-01"}, {"eid": 2, "p53_i2": SECOND}]
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    wanted = asked(tmp_path, '[tb]\nfirst_occurrence = ["A15"]\n', allow_empty=False)
    assert at(read_labels([tmp_path / "t.csv"], wanted), "tb", "2") == {
        1: (1, 1, None),
        2: (0, 0, None),  # the visit is after the end of the records
    }


def test_fields_of_first_occurrences():
    """As scripts of others name them, and Showcase's titles: both ends of each stretch, and between."""
    named = {
        "E10": 130706,
        "E11": 130708,
        "E66": 130792,
        "E78": 130814,
        "F03": 130842,
        "F32": 130894,
        "G20": 131022,
        "G30": 131036,
        "G35": 131042,
        "I10": 131286,
        "I20": 131296,
        "I21": 131298,
        "I25": 131306,
        "I48": 131350,
        "I50": 131354,
        "I60": 131360,
        "I64": 131368,
        "J16": 131452,
        "J18": 131456,
        "M05": 131848,
        "M06": 131850,
        "N18": 132032,
    }
    codes = {code: field for field, code in first_occurrences.CODE_OF.items()}
    assert {code: codes[code] for code in named} == named
    assert len(codes) == len(first_occurrences.CODE_OF)  # no code has two fields


def test_a_code_of_unknown_field_that_no_title_names(tmp_path):
    path = table(tmp_path / "t.csv", "rap", {1: {(130014, 0, 0): "2001-01-01"}})
    text = '[tb]\nfirst_occurrence = ["A15", 130014]\n'
    wanted = asked(tmp_path, text, allow_empty=False)
    words = "no column is of first_occurrence A15: name the field by its number"
    with pytest.raises(InputError, match=words):
        read_labels([path], wanted)
    labels = read_labels([path], asked(tmp_path, "[tb]\nfirst_occurrence = [130014]\n"))
    assert at(labels, "tb", "2") == {1: (1, 1, None)}


def test_a_date_that_is_none_is_refused(tmp_path):
    path = table(tmp_path / "t.csv", "rap", {1: {(131306, 0, 0): "1"}})
    with pytest.raises(InputError, match="'p131306' holds 1 entries that are no dates"):
        read_labels([path], asked(tmp_path, '[cad]\nfirst_occurrence = ["I25"]\n'))


# -- ICD-9, operations, deaths -----------------------------------------------------------------------------------------


ICD9 = ((41271, 41281), '[d]\nicd9 = ["410-414"]\n', ("4109", "4280"))
OPCS4 = ((41272, 41282), '[d]\nopcs4 = ["K40-K46", "K49.1"]\n', ("K401", "K498"))
ICD10 = ((41270, 41280), '[d]\nicd10 = ["I20-I25"]\n', ("I251", "I10"))


@pytest.mark.parametrize(
    ("style", "fields", "text", "codes"),
    [
        ("rap", *ICD9),
        ("ukbconv", *ICD9),
        ("r", *ICD9),
        ("rap", *OPCS4),
        ("r", *OPCS4),
        ("ukbconv", *ICD10),
    ],
)
def test_codes_with_dates_at_their_index(tmp_path, style, fields, text, codes):
    code, other = codes
    people = {
        1: {(fields[0], 0, 0): other, (fields[1], 0, 0): "2001-01-01"}
        | {(fields[0], 0, 1): code, (fields[1], 0, 1): "2018-01-01"},
        2: {(fields[0], 0, 0): code, (fields[1], 0, 0): "2001-01-01"},
        3: {(fields[0], 0, 0): code},
        4: {},
        5: {(fields[0], 0, 0): code[:2] + "?"},
        6: {(fields[0], 0, 0): other, (fields[1], 0, 0): "2020-01-01"},
    }
    labels = read_labels([table(tmp_path / "t.csv", style, people)], asked(tmp_path, text))
    assert at(labels, "d", "2") == {
        1: (1, 0, 1),
        2: (1, 1, None),
        3: (1, None, None),
        4: (0, 0, 0),
        5: (None, None, None),
        6: (0, 0, 0),
    }


def test_a_list_of_the_platform(tmp_path):
    text = "eid,p53_i2,p41271,p41281_a0,p41281_a1,p41272,p41282_a0\n"
    text += f"1,{SECOND},V4581|4140,1990-01-01,2017-01-01,K451,2020-01-01\n2,{SECOND},,,,,\n"
    (tmp_path / "t.csv").write_text(text)
    wanted = asked(tmp_path, '[cad]\nicd9 = ["414"]\n[graft]\nopcs4 = ["K40-K46"]\n')
    labels = read_labels([tmp_path / "t.csv"], wanted)
    assert at(labels, "cad", "2") == {1: (1, 0, 1), 2: (0, 0, 0)}
    assert at(labels, "graft", "2") == {1: (1, 0, 1), 2: (0, 0, 0)}


@pytest.mark.parametrize(
    ("entry", "reading"),
    [
        ("4109", Reading(("4109",))),
        ("410.9", Reading(("4109",))),
        ("410,9", Reading(("4109",))),
        ("4109.0", Reading(("4109",))),  # as a table of numbers has it
        ("v45.81", Reading(("V4581",))),
        ("E8120", Reading(("E8120",))),
        ("ICD-9: 4109", Reading(("4109",))),
        ("4109|4140", Reading(("4109", "4140"))),
        ("410.9 Acute myocardial infarction, unspecified", Reading(("4109",))),
        ("", Reading()),
        ("41?9", Reading(stems=("41",))),
        ("42", Reading(stems=("",))),  # 42, 042, 0042: the zeros may be lost
        ("heart", Reading(stems=("",))),
    ],
)
def test_entries_of_icd9(entry, reading):
    assert icd9_read(entry) == reading


@pytest.mark.parametrize(
    ("entry", "reading"),
    [
        ("1075", Reading(("1075",))),
        ("1075.0", Reading(("1075",))),
        ("1075|1065", Reading(("1075", "1065"))),
        ("['1075', '1065']", Reading(("1075", "1065"))),
        ("NA", Reading()),
        ("-1", Reading(stems=("",))),
        ("angina", Reading(stems=("",))),
        ("1075?", Reading(stems=("",))),
    ],
)
def test_entries_of_numbered_codes(entry, reading):
    assert number_read(entry) == reading


@pytest.mark.parametrize("style", STYLES)
def test_causes_of_death(tmp_path, style):
    people = {
        1: {(40001, 0, 0): "I251", (40000, 0, 0): "2018-01-01"},
        2: {(40001, 0, 0): "C349", (40002, 0, 0): "J449", (40002, 0, 3): "I219"}
        | {(40000, 0, 0): "2018-01-01"},
        3: {(40001, 0, 0): "C349", (40001, 1, 0): "I219"}
        | {(40000, 0, 0): "2018-01-01", (40000, 1, 0): "2018-01-02"},
        4: {(40001, 0, 0): "C349", (40000, 0, 0): "2018-01-01"},
        5: {},
    }
    path = table(tmp_path / "t.csv", style, people)
    labels = read_labels([path], asked(tmp_path, '[cad]\ndeath = ["I20-I25"]\n'))
    expected = {eid: (1, 0, 1) if eid < 4 else (0, 0, 0) for eid in people}
    assert at(labels, "cad", "2") == expected
    assert labels.audit["icd10"]["end"] == "2018-01-02"


# -- record tables -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "hesin_diag."], ids=["portal", "platform"])
def test_icd9_of_hesin_diag(tmp_path, prefix):
    frame = pd.DataFrame(
        {
            "eid": [1, 1, 2, 3],
            "ins_index": [0, 1, 0, 0],
            "diag_icd9": ["4109", None, None, "4280"],
            "diag_icd10": [None, "I10", "I251", None],
        }
    )
    frame.rename(columns=lambda name: prefix + name).to_csv(tmp_path / "d.csv", index=False)
    stays = "eid,ins_index,epistart,admidate\n1,0,1990-01-01,\n1,1,2001-01-01,\n2,0,,2017-01-01\n"
    (tmp_path / "h.csv").write_text(stays + "3,0,1991-01-01,\n")
    (tmp_path / "v.csv").write_text(
        "subject,visit_date\n" + "".join(f"{n},{SECOND}\n" for n in range(1, 5))
    )
    wanted = asked(tmp_path, '[cad]\nicd9 = ["410-414"]\nicd10 = ["I20-I25"]\n')
    labels = read_labels([tmp_path / name for name in ("d.csv", "h.csv", "v.csv")], wanted)
    assert at(labels, "cad", "2") == {1: (1, 1, None), 2: (1, 0, 1), 3: (0, 0, 0), 4: (0, 0, 0)}
    assert labels.audit["icd10"]["diseases"]["cad"]["by_source"] == {"icd9": 1, "icd10": 1}


@pytest.mark.parametrize("prefix", ["", "hesin_oper."], ids=["portal", "platform"])
def test_operations_of_hesin_oper(tmp_path, prefix):
    frame = pd.DataFrame(
        {
            "eid": [1, 2, 3],
            "ins_index": [0, 0, 0],
            "arr_index": [0, 0, 0],
            "opdate": ["2001-01-01", None, "2018-01-01"],
            "oper3": None,
            "oper4": ["K401", "K401", "X998"],
        }
    )
    frame.rename(columns=lambda name: prefix + name).to_csv(tmp_path / "o.csv", index=False)
    (tmp_path / "h.csv").write_text("eid,ins_index,epistart\n2,0,2017-01-01\n")
    main = table(tmp_path / "m.csv", "rap", {eid: {(31, 0, 0): 1} for eid in (1, 2, 3, 4)})
    files = [tmp_path / "o.csv", tmp_path / "h.csv", main]
    labels = read_labels(files, asked(tmp_path, '[graft]\nopcs4 = ["K40-K46"]\n'))
    assert at(labels, "graft", "2") == {
        1: (1, 1, None),
        2: (1, 0, 1),  # without a day of its own it has that of the stay
        3: (0, 0, 0),
        4: (0, 0, 0),
    }
    with pytest.raises(
        InputError, match=r"o\.csv: a line for each of operations, OPCS-4, which no"
    ):
        read_labels(files)


@pytest.mark.parametrize("is_prefixed", [False, True], ids=["portal", "platform"])
def test_tables_of_deaths(tmp_path, is_prefixed):
    causes = pd.DataFrame(
        {
            "eid": [1, 1, 2],
            "ins_index": 0,
            "arr_index": [0, 1, 0],
            "cause_icd10": ["C349", "I251", "C349"],
        }
    )
    deaths = pd.DataFrame(
        {"eid": [1, 2], "ins_index": 0, "date_of_death": ["2018-01-01", "2019-01-01"]}
    )
    for name, frame in (("death_cause", causes), ("death", deaths)):
        words = {word: f"{name}.{word}" for word in frame} if is_prefixed else {}
        frame.rename(columns=words).to_csv(tmp_path / f"{name}.csv", index=False)
    main = table(tmp_path / "m.csv", "rap", {eid: {(41270, 0, 0): "I10"} for eid in (1, 2, 3)})
    files = [tmp_path / "death_cause.csv", tmp_path / "death.csv", main]
    wanted = asked(tmp_path, '[cad]\ndeath = ["I20-I25"]\nicd10 = ["I20-I25"]\n')
    labels = read_labels(files, wanted)
    assert at(labels, "cad", "2") == {1: (1, 0, 1), 2: (0, 0, 0), 3: (0, 0, 0)}
    plain = read_labels([tmp_path / "death.csv", main])
    assert plain.audit["unread"]["death.csv"] == [
        deaths.columns[2] if not is_prefixed else "death.date_of_death"
    ]
    with pytest.raises(InputError, match="deaths without their codes; give death_cause beside it"):
        read_labels([tmp_path / "death.csv"], wanted)


# -- several sources ---------------------------------------------------------------------------------------------------

BOTH = '[cad]\nicd10 = ["I20-I25"]\nself_report = [1075]\ndeath = ["I20-I25"]\n'


def test_the_earliest_of_all_sources_decides(tmp_path):
    people = {
        1: {(41270, 0, 0): "I251", (41280, 0, 0): "2018-01-01"}
        | {(20002, 2, 0): 1075, (20008, 2, 0): 2010.5},  # told before it was seen in hospital
        2: {(41270, 0, 0): "I251", (41280, 0, 0): "2010-01-01"}
        | {(40001, 0, 0): "I251", (40000, 0, 0): "2020-01-01"},
        3: {(40001, 0, 0): "I251", (40000, 0, 0): "2020-01-01"},
        4: {(20002, 3, 0): 1075, (20008, 3, 0): -1},
        5: {(20002, 2, 0): "chest pain"},  # may be anything
        6: {(41270, 0, 0): "I251", (41280, 0, 0): "2018-01-01", (20002, 2, 0): "chest pain"},
        7: {},
        8: {(20002, 2, 0): 1065},
        9: {(20002, 2, 0): 1065},
    }
    path = table(tmp_path / "t.csv", "ukbconv", people)
    labels = read_labels([path], asked(tmp_path, BOTH))
    assert at(labels, "cad", "2") == {
        1: (1, 1, None),
        2: (1, 1, None),
        3: (1, 0, 1),
        4: (1, None, None),
        5: (None, None, None),
        6: (1, None, None),
        **dict.fromkeys((7, 8, 9), (0, 0, 0)),
    }
    account = labels.audit["icd10"]["diseases"]["cad"]
    assert account["by_source"] == {"icd10": 3, "self_report": 2, "death": 2}
    assert account["by_code"]["self_report 1075"] == 2
    assert account["by_code"]["death I25.1"] == 2
    text = "\n".join(merge.audit_lines(labels.audit))
    assert "* cad by source, people: icd10 <5; self_report <5; death <5" in text
    assert "| cad | I20-I25, self_report 1075, death I20-I25 |" in text
    assert "Codes (icd10, death, self_report) of 9 people" in text


def test_sources_that_no_definition_counts_are_named_as_not_read(tmp_path):
    people = {
        1: {
            (41270, 0, 0): "I251",
            (20002, 2, 0): 1075,
            (40001, 0, 0): "I251",
            (131306, 0, 0): SECOND,
        }
    }
    path = table(tmp_path / "t.csv", "rap", people)
    unread = read_labels([path]).audit["unread"]["t.csv"]
    assert unread == ["p20002_i2_a0", "p40001_i0", "p131306"]
    labels = read_labels([path], asked(tmp_path, BOTH))
    assert labels.audit["unread"]["t.csv"] == ["p131306"]


def test_who_is_not_in_the_table_of_a_source_is_not_known_to_be_without(tmp_path):
    hospital = table(
        tmp_path / "h.csv", "rap", {1: {(41270, 0, 0): "I10"}, 2: {}, 3: {(41270, 0, 0): "I251"}}
    )
    (tmp_path / "s.csv").write_text("eid,p20002_i2_a0\n1,1065\n4,1065\n5,1075\n")
    labels = read_labels([hospital, tmp_path / "s.csv"], asked(tmp_path, BOTH))
    ever = {key: row.get("cad") for key, row in labels.by_person.items()}
    assert ever == {"1": 0, "2": None, "3": 1, "4": None, "5": 1}
    assert {key: row.get("af") for key, row in labels.by_person.items()} == {
        "1": 0,
        "2": 0,
        "3": 0,
        "4": None,
        "5": None,
    }


def test_sources_that_no_table_has(tmp_path):
    path = table(tmp_path / "t.csv", "rap", {1: {(41270, 0, 0): "I251"}})
    labels = read_labels([path], asked(tmp_path, BOTH))
    text = "\n".join(merge.audit_lines(labels.audit))
    assert (
        "* cad by source, people: icd10 <5; no column of self_report, death in the tables" in text
    )
    with pytest.raises(
        InputError, match=r"\[dead\]: none of the labels files holds causes of death"
    ):
        read_labels([path], asked(tmp_path, '[dead]\ndeath = ["I25"]\n'))
    path = table(tmp_path / "t.csv", "rap", {1: {(20002, 2, 0): 1075}})
    labels = read_labels([path], asked(tmp_path, "[mi]\nself_report = [1075]\n"))
    assert "cad" not in labels.by_person["1"]
    assert "* cad: no column of icd10 in the tables, so no label" in "\n".join(
        merge.audit_lines(labels.audit)
    )


def test_a_code_of_one_source_that_matches_nobody(tmp_path):
    path = table(tmp_path / "t.csv", "rap", {1: {(41270, 0, 0): "I251", (20002, 2, 0): 1065}})
    text = '[cad]\nicd10 = ["I25"]\nself_report = [1075]\n'
    with pytest.raises(InputError, match=r"\[cad\]: self_report 1075 matches nobody; correct it"):
        read_labels([path], asked(tmp_path, text, allow_empty=False))


def test_the_end_of_the_records_is_that_of_the_sources_that_count(tmp_path):
    """ICD-9 ended in the nineties: who has no code of it later is not known to be without."""
    people = {
        1: {(41271, 0, 0): "4109", (41281, 0, 0): "1995-01-01"},
        2: {(41270, 0, 0): "I10"} | {(41280, 0, 0): "2020-01-01"},
    }
    path = table(tmp_path / "t.csv", "rap", people)
    labels = read_labels([path], asked(tmp_path, '[old]\nicd9 = ["410"]\n'))
    assert at(labels, "old", "2")[2] == (0, 0, None)
    assert at(labels, "af", "2")[2] == (0, 0, 0)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('icd9 = ["I20"]', "'I20' is no ICD-9 code such as 410"),
        ('icd9 = ["414-410"]', "'414-410' is no range: write both ends with as many digits"),
        ("icd9 = [410, 4109]", "'4109' and '410' overlap"),
        ('opcs4 = ["410"]', "'410' is no OPCS-4 code such as K40"),
        ('opcs4 = ["K40123"]', "'K40123' is no OPCS-4 code"),
        ('self_report = ["angina"]', "'angina' is no code: UK Biobank numbers them"),
        ('self_report = ["1074-1076"]', "'1074-1076' is no code"),
        ("self_report = [1074, 1074]", "'1074' and '1074' overlap"),
        ("self_report = [-1]", "'-1' is no code"),
        ("medication = [true]", "True is no code"),
        ('death = ["1074"]', "'1074' is no ICD-10 code"),
        ('first_occurrence = ["I251"]', "'I251' is no three-character ICD-10 code"),
        ("first_occurrence = [131307]", "where a report came from; its date is field 131306"),
        ("first_occurrence = [20002]", "'20002' is no field of a first occurrence"),
        ('first_occurrence = ["I25", 131306]', "'131306' and 'I25' overlap"),
        (
            "self_reported = [1074]",
            "unknown source 'self_reported'; known: death, first_occurrence",
        ),
    ],
)
def test_definitions_of_each_source_that_are_none(tmp_path, line, words):
    with pytest.raises(InputError, match=words) as refused:
        asked(tmp_path, f"[cad]\n{line}\n")
    assert "diseases.toml: [cad]" in str(refused.value)
