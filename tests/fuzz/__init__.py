"""Fuzzing: ``python -m tests.fuzz`` lets libFuzzer look for inputs that break a promise (``make fuzz``)."""
