"""Chaos: faults injected under load, every acknowledgement checked: ``make chaos``, ``python -m tests.chaos --list``.

- ``load`` sends what the simulated platform sends, in processes of its own, and keeps a ``journal``.
- ``subject`` is what is under test: a store (``stores``) and one or two receivers, kept running as a service manager does.
- ``faults`` are what is injected, by a ``schedule`` that comes from a seed. A module there registers classes with ``@fault``.
- ``model`` knows from the journal what a store may hold; ``checks`` find what breaks a promise; ``final`` asks every worker.
- ``defects`` are put in on purpose (``launch``), to show that the harness finds them.
- ``run`` does one run, ``plan`` says which, ``report``, ``timeline`` and ``page`` tell of them.

The tests here that pytest finds are of the harness itself, and of outages and large stores (``make outages``).
"""
