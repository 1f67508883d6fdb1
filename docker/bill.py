"""Adds the Debian packages of this file system to a CycloneDX bill of materials, and checks the whole.

python bill.py PYTHON.json OUT.json
"""

import json
import subprocess
import sys
from pathlib import Path

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

_FIELDS = "${Package}\t${Version}\t${Architecture}\n"


def main(source: Path, out: Path) -> None:
    """Read one bill, write the larger one; ends with what is wrong if the schema does not take it."""
    bill = Bom.from_json(json.loads(source.read_text()))
    listed = subprocess.run(("dpkg-query", "--show", "-f", _FIELDS), check=True, capture_output=True, text=True)
    for line in listed.stdout.splitlines():
        name, version, architecture = line.split("\t")
        url = PackageURL("deb", "debian", name, version, {"arch": architecture})
        bill.components.add(
            Component(type=ComponentType.LIBRARY, name=name, version=version, purl=url, bom_ref=str(url))
        )
    text = make_outputter(bill, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=1)
    fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if fault is not None:
        sys.exit(f"{out}: {fault}")
    out.write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
