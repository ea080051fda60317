"""Key files, and loading them."""

from pathlib import Path

from receiver.keys import keyring
from receiver.mock_platform import keyfiles
from receiver.secret import Secret
from receiver.settings import Settings


def load(variables, directory="/no/such/directory", **more):
    """Load the keys of ``variables`` (name to text) and ``directory``, as settings tell of them."""
    texts = {name: Secret(text) for name, text in variables.items()}
    return keyring.load(Settings(key_texts=texts, keys=Path(directory), **more))


def put(folder, store):
    """Write the files of the keys of ``store`` that a receiver needs into ``folder``."""
    for path in keyfiles.write(folder, store):
        if path.name.startswith("mock-"):
            path.unlink()


def write_private(path, text):
    """Write what a private key's file holds, for its owner only."""
    path.touch(mode=0o600)
    path.write_text(text)
    return path
