"""A running receiver as its machine sees it: its stage, its run folder, and how others find it.

``lifecycle.py`` is memory that its processes share, ``run_folder.py`` is its folder, ``running.py`` finds the receivers
that run here, ``folders.py`` opens folders that nobody can swap, and ``disk.py`` measures free space.
"""
