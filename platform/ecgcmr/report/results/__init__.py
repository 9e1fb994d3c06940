"""What the evaluation runs showed: values per seed, answers, comparisons, verdicts."""
