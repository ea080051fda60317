"""A running receiver as its machine sees it: how far it has come, the folder it keeps, and how others find it.

``lifecycle.py`` is shared by its processes, ``run_folder.py`` is its folder, ``running.py`` finds those of others, and
``folders.py`` opens folders so that nobody can swap them.
"""
