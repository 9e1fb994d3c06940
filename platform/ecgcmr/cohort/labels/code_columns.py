"""Where in a table the codes of each source that counts stand, and their dates."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ecgcmr.cohort.labels import first_occurrences, ukbb_tables
from ecgcmr.cohort.labels.entries import CodeColumns
from ecgcmr.cohort.labels.sources import FIRST, HOSPITAL, SOURCES
from ecgcmr.errors import InputError

Fields = Mapping[str, ukbb_tables.Column]


def find(
    path: Path,
    names: Sequence[str],
    fields: Fields,
    prefixes: Mapping[str, tuple[str, ...]],
    lists: str,
) -> tuple[CodeColumns, ...]:
    """The columns with codes of diseases, and with their dates.

    Args:
        path: of the table.
        names: of its columns.
        fields: those that are UK Biobank's.
        prefixes: source -> codes that are asked for; other sources are not read.
        lists: column with a list of ICD-10 codes in each cell.

    Raises:
        InputError: dates stand there without their codes, or a line for each code of what no
            definition counts.
    """
    if groups := _records(path, names, prefixes):
        return groups
    groups = ()
    for source in SOURCES:
        if source not in prefixes:
            continue
        if source == FIRST:
            groups += _first_occurrences(names, fields, prefixes[source])
        elif SOURCES[source].at_visits or SOURCES[source].has_one_date:
            groups += _by_instance(source, fields)
        else:
            list_name = lists if source == HOSPITAL and lists in names else None
            groups += _by_index(path, source, fields, list_name)
    return groups


def _records(
    path: Path, names: Sequence[str], prefixes: Mapping[str, tuple[str, ...]]
) -> tuple[CodeColumns, ...]:
    """A table with a line for each code."""
    groups: list[CodeColumns] = []
    idle_titles = []
    for name, source in SOURCES.items():
        code = next((word for word in source.record_codes if word in names), None)
        if code is None:
            continue
        if name not in prefixes:
            idle_titles += [source.title] if code not in ("icd9", "opcs4") else []
            continue
        date = next((word for word in source.record_dates if word in names), None)
        dates = {(0, 0): date} if date else {}
        groups.append(CodeColumns(name, {(0, 0): code}, dates, is_long=True))
    if idle_titles and not groups:
        raise InputError(
            f"{path}: a line for each of {' and '.join(idle_titles)}, which no definition counts; "
            "leave it out, or count them in a file of --diseases"
        )
    return tuple(groups)


def _by_index(
    path: Path, source: str, fields: Fields, list_name: str | None
) -> tuple[CodeColumns, ...]:
    """Codes whose dates have the same array index."""
    (field,), date_field = SOURCES[source].fields, SOURCES[source].date_field
    codes, dates = _arrays(fields, field), _arrays(fields, date_field)
    code_list = next(iter(_lists(fields, field)), list_name)
    if dates and not codes and not code_list:
        raise InputError(
            f"{path}: dates of diagnoses (field {date_field}) without their codes ({field}); "
            "export both together"
        )
    if code_list:
        return (CodeColumns(source, dates=dates, code_list=code_list),)
    return (CodeColumns(source, codes, dates),) if codes else ()


def _by_instance(source: str, fields: Fields) -> tuple[CodeColumns, ...]:
    """Codes of a visit each, or of a death, whose date is that of all its causes."""
    groups = []
    for field in SOURCES[source].fields:
        field_columns = {name: column for name, column in fields.items() if column.field == field}
        for instance in sorted({column.instance or 0 for column in field_columns.values()}):
            here = {name: c for name, c in field_columns.items() if (c.instance or 0) == instance}
            dates = {
                place: name
                for place, name in _arrays(fields, SOURCES[source].date_field, blank=0).items()
                if place[0] == instance
            }
            visit = str(instance) if SOURCES[source].at_visits else ""
            code_list = next(iter(_lists(here, field)), None)
            if code_list and SOURCES[source].at_visits:
                groups.append(CodeColumns(source, {}, dates, code_list, visit=visit))
            else:
                codes = _arrays(here, field, blank=0)
                groups.append(CodeColumns(source, codes, dates, visit=visit))
    return tuple(groups)


def _first_occurrences(
    names: Sequence[str], fields: Fields, codes: tuple[str, ...]
) -> tuple[CodeColumns, ...]:
    """Columns of dates, each of the first of a code that is asked for."""
    events = {}
    for name in names:
        field = fields[name].field if name in fields else None
        code = first_occurrences.code_of(field, name)
        if code in codes:
            events[name] = code
    return (CodeColumns(FIRST, events=events),) if events else ()


def _lists(fields: Fields, field: int) -> list[str]:
    """The columns of a field that have many codes in a cell.

    The platform's are without an array index; with UKB-FORMAT names the same is `41270-0.0`.
    """
    columns = {name: column for name, column in fields.items() if column.field == field}
    without_index = [name for name, column in columns.items() if column.array is None]
    return without_index or ([*columns] if [c.array for c in columns.values()] == [0] else [])


def _arrays(
    fields: Fields, field: int | None, blank: int | None = None
) -> dict[tuple[int, int], str]:
    """(instance, array index) -> column of a field; `blank` is the index where a name has none."""
    places = {}
    for name, column in fields.items():
        array = blank if column.array is None else column.array
        if column.field == field and array is not None:
            places[column.instance or 0, array] = name
    return places
