"""Lists what each program is installed from, in CycloneDX's form: name, version, licence, hashes, what asks for what.

Nothing in it depends on when or where it is made. The image has a list of its own, with the system's packages in it.

usage: python -m supply_chain.sbom FOLDER
"""

import json
import sys
from pathlib import Path

from enclave_signer import __version__
from image.sbom import SPEC_VERSION
from supply_chain.lock import PROGRAMS, Locked, licence, locked


def sbom(program: str) -> bytes:
    """Return the list of one of `PROGRAMS`."""
    packages = locked(PROGRAMS[program])
    references = {package.name: package.purl for package in packages}
    asked_by: dict[str, list[str]] = {package.purl: [] for package in packages}
    direct = [package.purl for package in packages if program_asks(package)]
    for package in packages:
        for other in package.via:
            if other in references:
                asked_by[references[other]].append(package.purl)
    listed = {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": program, "name": program, "version": __version__}},
        "components": [_component(package) for package in packages],
        "dependencies": [
            {"ref": program, "dependsOn": direct},
            *({"ref": ref, "dependsOn": others} for ref, others in asked_by.items()),
        ],
    }
    return json.dumps(listed, indent=1).encode() + b"\n"


def program_asks(package: Locked) -> bool:
    """Whether the project itself asks for a package."""
    return "enclave-signer" in package.via


def _component(package: Locked) -> dict[str, object]:
    named = licence(package.name)
    return {
        "type": "library",
        "bom-ref": package.purl,
        "purl": package.purl,
        "name": package.name,
        "version": package.version,
        **({"licenses": [{"expression": named}]} if named else {}),
        # One hash for each file that the package's version was published as.
        "externalReferences": [
            {
                "type": "distribution",
                "url": f"https://pypi.org/project/{package.name}/{package.version}/",
                "hashes": [{"alg": "SHA-256", "content": digest}],
            }
            for digest in package.hashes
        ],
    }


def main(folder: Path) -> None:
    """Write a list for each program."""
    folder.mkdir(parents=True, exist_ok=True)
    for program in PROGRAMS:
        path = folder / f"{program}.cdx.json"
        path.write_bytes(sbom(program))
        print(f"{path}\t{len(locked(PROGRAMS[program]))} packages")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
