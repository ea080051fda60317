"""Black-box checks of any receiver, by its URL and its keys. Imports nothing of the rest but the mock platform.

`registry.py` is what a check is, `checks/` holds them by group, `trial.py` is what they work with, `run.py` runs
them, and the other modules write reports. The table of all checks is CHECKS.md.
"""
