"""Checks that the bill of materials has every package of the lock file; exit code 1: one is missing."""

import json
import re
import sys
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Compare the bill with the lock file; return the exit code."""
    bill = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    listed = {_name(each["name"]): each["version"] for each in bill["components"]}
    lines = (ROOT / "requirements/runtime.txt").read_text("utf-8").splitlines()
    pinned = [Requirement(line.removesuffix("\\")) for line in lines if re.match(r"[\w.-]+==", line)]
    # One lock file serves all supported versions of Python; markers select the packages for this one.
    locked = [(each.name, str(each.specifier)[2:]) for each in pinned if not each.marker or each.marker.evaluate()]
    missing = [f"{name}=={version}" for name, version in locked if listed.get(_name(name)) != version]
    print(f"{len(listed)} components", *(f"\nnot in the bill: {each}" for each in missing))
    return 1 if missing else 0


def _name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main())
