"""Tables of diagnoses and measurements as labels, one value per person or recording.

`rules` and `definitions` say what is asked for; `layout` and `code_columns` where it stands in a
table; `label_file` reads that (`cells`, `dates`, `entries`) as a `section`, by its `visits`.
`diagnoses` are those of all files; `onsets` makes the columns of diseases of them, `survival` those
of follow-up; `merge` puts all together for `lookup`, `output` and `audit`.
"""
