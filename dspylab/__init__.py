"""dspylab: one YAML file into a DVC pipeline that runs, meters and compares DSPy programs.

The package is a chain of stages, each of which knows only those before it: ``config`` → ``plan`` →
``pipeline`` → ``execute`` → ``record`` → ``aggregate`` → ``report``. ``commands`` puts them together and
``cli`` is the door. Importing this module loads none of them.
"""

__version__ = "0.1.0"
