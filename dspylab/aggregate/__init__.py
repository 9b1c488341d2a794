"""From the rows of runs to `summary.json`. Pure: no model, file, clock or network is touched."""
