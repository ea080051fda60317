"""What the operator sees: ``logs.py``, ``metrics.py``, and ``tracing.py``, the notes that each request leaves for both.

``log_output.py`` writes lines without blocking, ``log_losses.py`` counts the dropped ones, and ``standard_error.py``
puts both in the place of ``sys.stderr``.
"""
