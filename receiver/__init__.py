"""The External Storage receiver: keeps the states of Flow apps where their owner wants them."""

__version__ = "1.0.0"
