"""`python -m dspylab` is the same as `dspylab`."""

from dspylab.cli import main

main()
