"""DSPy's optimizers: make one from its entry, give it its metric, keep the program that it compiles."""
