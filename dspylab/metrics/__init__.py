"""From a prediction, or from all rows of a run, to named numbers of quality."""
