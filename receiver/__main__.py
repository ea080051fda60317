"""``python -m receiver`` runs the ``receiver`` command."""

from receiver.commands import main

if __name__ == "__main__":
    main()
