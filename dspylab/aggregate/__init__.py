"""From the rows of runs to `summary.json`, and to what the results say. No model is called.

`collect`, `contrast`, `checking` and `decision` read the rows that they are about; all else is pure.
"""
