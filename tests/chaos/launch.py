"""``python -m tests.chaos.launch DEFECT serve``: starts the receiver with a defect that was put in on purpose.

The package itself knows nothing of defects: they patch its classes in this process, and its workers are forked from it.
"""

import sys

from receiver.commands import main
from tests.chaos.defects import all_defects

if __name__ == "__main__":
    all_defects()[sys.argv.pop(1)].plant()
    main()
