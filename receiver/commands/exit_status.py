"""The exit statuses of ``receiver`` besides 0 (done), 1 (failed) and 2 (usage error): sysexits.h."""

EX_TEMPFAIL = 75  # an address is taken: a start may succeed later, and systemd tries again
EX_CONFIG = 78  # the settings or keys are wrong
