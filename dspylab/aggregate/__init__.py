"""From the rows of runs to `summary.json`. No model is called; all but `collect` is pure."""
