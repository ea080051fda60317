"""The checks of receiver conformance, from their registry."""

from docs.generate.sources import registry


def checks() -> str:
    """Return the tables of checks and of the Java service's deviations, without the heading of their file."""
    return registry.markdown_table().partition("\n")[2]
