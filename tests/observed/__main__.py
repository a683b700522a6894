"""`make panels`: writes the dashboards and the operator's rules, and takes away what isn't made."""

import sys

from tests.observed.drawing import made
from tests.observed.shipped import BOARDS


def main() -> None:
    files = made()
    for path in set(BOARDS.glob("*.json")) - files.keys():
        path.unlink()
    for path, text in files.items():
        path.write_text(text)
    sys.stdout.write(f"{len(files)} files written\n")


if __name__ == "__main__":
    main()
