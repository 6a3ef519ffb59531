"""Turn pip's resolution report into a constraints file: one `name==version` line per distribution, sorted.

`make lock` pipes `pip install --dry-run --report - '.[test]'` into this script, once per supported Python.
"""

import json
import sys


def main() -> None:
    """Read the JSON report on stdin, write the pins to stdout: without the project itself, without addresses."""
    report = json.load(sys.stdin)
    version = report["environment"]["python_version"]
    print(f"# All of sparsejax[test] on Python {version}. Written by `make lock`, installed by `make` and CI.")
    pins = {entry["metadata"]["name"].lower().replace("_", "-"): entry["metadata"] for entry in report["install"]}
    for name in sorted(pins):
        if name != "sparsejax":
            print(f"{name}=={pins[name]['version']}")


if __name__ == "__main__":
    main()
