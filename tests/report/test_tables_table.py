import csv
import io

import pytest

from ecgcmr.report.tables.table import Table, Word, interval, latex, mean_sd, p_value, signed, span

NAN = float("nan")


def table(**changes):
    """Two systems and a foot, one word of each kind of trouble."""
    given = {
        "stem": "t",
        "title": "Table X. 100 % & more.",
        "header": ("Model", "MDM", "CAD", "Why"),
        "kind": ("name", "mark", "number", "text"),
        "rows": (
            (
                Word("A_1"),
                Word("✓"),
                Word("69.20 ± 0.16", 1, ("[66.1, 72.3]", "3 of 5 seeds")),
                Word("long words " * 8),
            ),
            (Word("B|b"), Word("✗"), Word("6.20 ± 0.16", 2), Word("")),
            (Word("Test subjects"), Word(""), Word("6,007"), Word("")),
        ),
        "foot": 1,
        "notes": ("A note.", "−0.5 ≥ x"),
        "records": ({"a": 1.0 / 3, "b": NAN}, {"a": None, "b": "x,y"}),
    }
    return Table(**{**given, **changes})


def test_a_terminal_shows_columns_marks_small_print_and_the_foot_below_a_rule():
    lines = table().text().splitlines()
    top = next(i for i, line in enumerate(lines) if line.startswith("───"))
    a, small, lack, b = (lines[top + i] for i in (1, 2, 3, 4))
    right = a.index("69.20 ± 0.16¹") + len("69.20 ± 0.16")
    assert a[right] == "¹"
    assert small.index("[66.1, 72.3]") + len("[66.1, 72.3]") == right
    assert lack.index("3 of 5 seeds") + len("3 of 5 seeds") == right
    assert b.index("6.20 ± 0.16²") + len("6.20 ± 0.16") == right
    assert lines[top + 5].startswith("───")
    assert lines[top + 6].startswith("Test subjects")
    assert "¹ best, ² second best" in lines
    assert lines[-2:] == ["A note.", "−0.5 ≥ x"]


def test_a_table_without_places_has_no_legend_and_long_notes_are_broken():
    plain = table(rows=((Word("A"), Word(""), Word("1"), Word("")),), foot=0, notes=("word " * 60,))
    assert "best" not in plain.text()
    assert max(len(line) for line in plain.text().splitlines()) <= 90


def test_text_columns_break_and_keep_every_word():
    shown = table().text()
    assert shown.count("long") == 8
    assert max(map(len, shown.splitlines())) < 100


def test_markdown_marks_places_and_keeps_its_columns():
    shown = table().markdown()
    assert "**69.20 ± 0.16**<br><small>[66.1, 72.3]</small><br><small>3 of 5 seeds</small>" in shown
    assert "<ins>6.20 ± 0.16</ins>" in shown
    assert "B\\|b" in shown
    rows = [line for line in shown.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {5}
    assert rows[1] == "| :-- | :-: | --: | :-- |"


def test_latex_is_plain_ascii_with_small_print_in_rows_of_its_own():
    shown = table().latex()
    assert shown.isascii()
    assert r"\textbf{69.20 $\pm$ 0.16}" in shown
    assert r"\underline{6.20 $\pm$ 0.16}" in shown
    assert r" &  & {\footnotesize [66.1, 72.3]} & " in shown
    assert r"Table X. 100 \% \& more." in shown
    assert r"A\_1" in shown
    assert shown.count(r"\midrule") == 2
    assert {line.count(" & ") for line in shown.splitlines() if line.endswith(r"\\")} == {3}


def test_latex_breaks_a_long_table_over_pages():
    row = (Word("A"), Word(""), Word("1"), Word(""))
    shown = table(rows=(row,) * 31, foot=0).latex()
    assert r"\begin{longtable}{lcrp{" in shown
    assert r"\endhead" in shown
    assert r"\begin{table}" not in shown


def test_latex_escapes_each_character_once():
    assert latex("a\\b_{c}^~ <±>") == r"a\textbackslash{}b\_\{c\}\^{}\~{} $<$$\pm$$>$"


def test_csv_keeps_ten_digits_and_leaves_out_what_is_unknown():
    lines = list(csv.DictReader(io.StringIO(table().csv())))
    assert float(lines[0]["a"]) == pytest.approx(1 / 3, rel=1e-9)
    assert lines[0]["b"] == ""
    assert lines[1] == {"a": "", "b": "x,y"}
    assert table(records=()).csv() == ""


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (-1.234, ".2f", "−1.23"),
        (1.2, "+.1f", "+1.2"),
        (-0.001, ".2f", "0.00"),
        (0.001, "+.2f", "0.00"),
        (0.5, ".2f", "0.50"),
    ],
)
def test_numbers_have_a_true_minus_and_no_sign_before_zero(value, form, text):
    assert signed(value, form) == text


def test_words_of_numbers():
    assert mean_sd(71.708, 0.361) == "71.71 ± 0.36"
    assert mean_sd(71.708, NAN) == "71.71 ± —"
    assert mean_sd(NAN, NAN) == "—"
    assert interval(-0.31, 3.4, ".1f") == "[−0.3, 3.4]"
    assert [p_value(p) for p in (NAN, 0.00099, 0.001, 0.0312, 1)] == [
        "—",
        "<0.001",
        "0.001",
        "0.031",
        "1.000",
    ]
    assert [span(counts) for counts in ([], [6007], [238, 239, 240])] == ["—", "6,007", "238–240"]
