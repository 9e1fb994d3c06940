"""Results as tables: the paper's own, and what reviewers ask for."""
