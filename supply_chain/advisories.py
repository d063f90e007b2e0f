"""Are vulnerabilities known in the locked packages? Judged from stored answers, so that it works without a network.

`advisories.json` has, for each package, the version asked about, the day, who was asked, and the records in OSV's form
that it had. A version that was never asked about is named, never counted as good. `accepted.toml` names records that
do not matter here, each with its reason.

usage: python -m supply_chain.advisories [--strict | --refresh]
"""

import argparse
import json
import sys
import tomllib
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from supply_chain.lock import EVERYTHING, Locked, locked

STORED = Path(__file__).with_name("advisories.json")
ACCEPTED = Path(__file__).with_name("accepted.toml")
#: Days after which an answer is old: advisories for a package come a few times a year.
OLD_DAYS = 90
#: Source: https://google.github.io/osv.dev/api/.
OSV = "https://api.osv.dev/v1"
#: Seconds for one answer of OSV's.
PATIENCE = 30

Answers = Mapping[str, Any]


@dataclass(slots=True)
class Judgement:
    """What stored answers say of locked packages: `bad` fails, `unknown` and `old` are warnings unless strict."""

    asked: int = 0
    bad: list[str] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    old: list[str] = field(default_factory=list)
    age_days: int = 0


def judge(packages: Sequence[Locked], answers: Answers, accepted: Mapping[str, str], today: date) -> Judgement:
    """Return what stored answers say of locked packages.

    Args:
        packages: the locked packages.
        answers: for each name, `version`, `asked` (a day, ISO 8601) and `vulns` (records of OSV).
        accepted: the reason for each record that does not matter here, by its id or an alias.
        today: the day that ages are counted to.
    """
    found = Judgement()
    for package in packages:
        answer = answers.get(package.name)
        if answer is None or answer["version"] != package.version:
            found.unknown.append(package.name)
            continue
        found.asked += 1
        age = (today - date.fromisoformat(answer["asked"])).days
        found.age_days = max(found.age_days, age)
        if age > OLD_DAYS:
            found.old.append(package.name)
        for record in answer["vulns"]:
            names = {record["id"], *record.get("aliases", [])}
            known = f"{package.name} {package.version}: {', '.join(sorted(names))}"
            (found.accepted if names & accepted.keys() else found.bad).append(known)
    return found


def report(found: Judgement, *, strict: bool) -> int:
    """Print a judgement; return the exit code: 1 for what is known and not accepted, and where nothing was asked about."""
    total = found.asked + len(found.unknown)
    print(
        f"vulnerabilities: {found.asked} of {total} packages asked about, the oldest answer is {found.age_days} days old"
    )
    for line in found.accepted:
        print(f"  accepted: {line}")
    if found.unknown:
        print(f"  warning: never asked about in this version (make advisories asks): {', '.join(found.unknown)}")
    if found.old:
        print(f"  warning: older than {OLD_DAYS} days (make advisories asks again): {', '.join(found.old)}")
    for line in found.bad:
        print(f"  KNOWN: {line}")
    return 1 if found.bad or not found.asked or (strict and (found.unknown or found.old)) else 0


def ask(path: str, body: object = None) -> Any:
    """Return an answer of OSV's; raises OSError where it cannot be reached."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{OSV}/{path}", data=data)  # noqa: S310 - the address stands above
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310
        return json.load(answer)


def refreshed(packages: Sequence[Locked], today: date, ask: Callable[..., Any] = ask) -> dict[str, Any]:
    """Return new answers for all packages; raises OSError, or ValueError for an answer that is not whole."""
    questions = [
        {"package": {"name": package.name, "ecosystem": "PyPI"}, "version": package.version} for package in packages
    ]
    results = ask("querybatch", {"queries": questions})["results"]
    answers = {}
    for package, result in zip(packages, results, strict=True):
        if result.get("next_page_token"):
            raise ValueError(f"OSV has more records of {package.name} than one answer holds")
        answers[package.name] = {
            "version": package.version,
            "asked": today.isoformat(),
            "source": OSV,
            "vulns": [ask(f"vulns/{record['id']}") for record in result.get("vulns", [])],
        }
    return answers


def main(arguments: Sequence[str]) -> int:
    """Ask or judge; return the exit code."""
    parser = argparse.ArgumentParser(description="Are vulnerabilities known in the locked packages?")
    parser.add_argument("--strict", action="store_true", help="fail for packages never asked about, and old answers")
    parser.add_argument("--refresh", action="store_true", help="ask OSV about every package, then judge")
    given = parser.parse_args(arguments)
    packages, today = locked(EVERYTHING), datetime.now(UTC).date()
    if given.refresh:
        try:
            answers = refreshed(packages, today)
        except (OSError, ValueError) as error:
            print(f"{OSV} could not be asked, and nothing was changed: {error}", file=sys.stderr)
            return 1
        STORED.write_text(json.dumps(answers, indent=1, sort_keys=True) + "\n")
    accepted = tomllib.loads(ACCEPTED.read_text())
    return report(judge(packages, json.loads(STORED.read_text()), accepted, today), strict=given.strict)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
