"""Black-box checks of any receiver, given its URL and its keys. Imports only itself and the simulated platform.

``registry.py`` defines what a check is, ``checks/`` holds the checks by subject, ``trial.py`` is what a check works
with, ``run.py`` runs the checks, and the other modules write the reports. CHECKS.md is the table of all checks.
"""
