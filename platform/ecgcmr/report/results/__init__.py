"""What the final runs showed: values per seed, answers, comparisons, verdicts."""
