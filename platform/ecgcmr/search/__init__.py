"""Which trials: the study, search-space files, their cost, and the grid on Ray Tune."""
