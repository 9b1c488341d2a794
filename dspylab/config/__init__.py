"""From a path to a validated, frozen `Experiment`, or to every finding with its file and line."""
