"""The files of a new laboratory: from the templates, or a first experiment for a program that exists."""
