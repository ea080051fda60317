"""The HTTP server: the one folder that uses gunicorn, and its internals (tests/server/test_gunicorn_contract.py).

``application.py`` configures gunicorn, ``arbiter.py`` is its master, ``worker.py`` serves. A request passes
``connection.py``, ``heads.py``, ``uploads.py``, the application, then ``sending.py`` and ``replies.py``.
"""
