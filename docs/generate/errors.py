"""Errors: a section for each status, and the words for why a request was refused."""

from docs.generate.markdown import described, exactly, table
from docs.generate.sources import problems

STATUSES = described("errors", "statuses")
REASONS = described("errors", "reasons")


def kinds() -> list[type[problems.Problem]]:
    """Return the classes of problems."""
    every = [kind for kind in vars(problems).values() if isinstance(kind, type) and issubclass(kind, problems.Problem)]
    return [kind for kind in every if kind is not problems.Problem]


def problems_table() -> str:
    """Return a section for each status; raises LookupError when one is not described."""
    named = {kind.status for kind in kinds()} | set(problems._MESSAGES)
    exactly(STATUSES, sorted(named), "STATUSES of errors")
    return "\n\n".join(_section(status) for status in STATUSES)


def reasons_table() -> str:
    """Return the table of reasons; raises LookupError when one is not described."""
    exactly(REASONS, problems.REASONS, "REASONS of errors")
    rows = ((f"`{reason}`", *told.values()) for reason, told in REASONS.items())
    return table(("reason", "status", "meaning", "what to do"), rows)


def link(status: int) -> str:
    """Return a link to the section of ``status``, from a page beside."""
    return f"[{status}](errors.md#{status}-{STATUSES[status]['name'].lower().replace(' ', '-')})"


def _section(status: int) -> str:
    told = STATUSES[status]
    classes = ", ".join(f"`{kind.__name__}`" for kind in kinds() if kind.status == status)
    lines = [
        f"### {status} {told['name']}",
        f"> {problems.message_of(status)}",
        f"- **When**: {told['when']}",
        f"- **The platform**: {told['platform']}",
        f"- **You**: {told['you']}",
    ]
    lines += [f"- **In the code**: {classes}"] if classes else []
    return "\n\n".join(lines[:2]) + "\n\n" + "\n".join(lines[2:])
