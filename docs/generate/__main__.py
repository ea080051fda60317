"""``python -m docs.generate``: write the generated parts of docs/reference anew; ``--check`` only compares."""

import sys

from docs import generate


def main() -> int:
    """Renew or compare every page; return the exit status."""
    old = []
    for page in generate.pages():
        text = page.read_text()
        renewed = generate.renewed(text)
        if renewed != text:
            old.append(page)
            if "--check" not in sys.argv:
                page.write_text(renewed)
    if "--check" not in sys.argv:
        print("\n".join(f"renewed {page}" for page in old) or "nothing to renew")
        return 0
    for page in old:
        print(f"{page} is not what the code says: run make reference")
    return 1 if old else 0


if __name__ == "__main__":
    sys.exit(main())
