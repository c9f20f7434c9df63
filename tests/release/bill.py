"""Whether the bill of materials has every package that the wheel is locked to; exit 1: it has not."""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Compare the bill with the lock file."""
    bill = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    listed = {_name(each["name"]): each["version"] for each in bill["components"]}
    locked = re.findall(
        r"^([\w.-]+)==([\w.+!]+)", (ROOT / "requirements/runtime.txt").read_text("utf-8"), re.MULTILINE
    )
    missing = [f"{name}=={version}" for name, version in locked if listed.get(_name(name)) != version]
    print(f"{len(listed)} components", *(f"\nnot in the bill: {each}" for each in missing))
    return 1 if missing else 0


def _name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main())
