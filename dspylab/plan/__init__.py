"""From an `Experiment` to its runs. Pure: no file, clock or network is touched."""
