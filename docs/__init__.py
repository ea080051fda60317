"""The manual, and what checks and builds it."""
