"""One file a command: load, call, write. Only these modules and `cli.py` print."""
