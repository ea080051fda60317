"""Stop the build when the file of the first argument is not valid CycloneDX."""

import sys
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

mistake = JsonStrictValidator(SchemaVersion.V1_6).validate_str(Path(sys.argv[1]).read_text())
if mistake:
    sys.exit(f"{sys.argv[1]}: {mistake}")
