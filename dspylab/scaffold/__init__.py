"""Make a laboratory: its files from the templates, its repository, a first experiment for a program."""
