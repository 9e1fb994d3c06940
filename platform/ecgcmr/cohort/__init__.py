"""Which people, which signals, which labels: a cohort is built, opened, checked, and left."""
