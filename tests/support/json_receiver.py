"""The receiver with a log in JSON, although it shows the banner by which the tests find it."""

from receiver import commands
from receiver.telemetry import logs

if __name__ == "__main__":
    configure = logs.configure
    logs.configure = lambda level, _form="text": configure(level, "json")
    commands.main()
