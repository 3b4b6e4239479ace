"""The report: findings on a terminal or as JSON, and the command line."""

import argparse
import json
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from .checker import check
from .findings import ERROR, WARNING, join_items
from .servers import server_features


def print_findings(findings, colour):
    """Print each finding, and how many there are.

    Args:
        findings: a list of ``Finding``.
        colour: whether the terminal shows ANSI colours.
    """
    codes = {ERROR: "\033[31m", WARNING: "\033[33m"} if colour else {}
    for x in findings:
        code, reset = codes.get(x.severity, ""), "\033[0m" if colour else ""
        print(f"{code}{x.severity:<8}{reset}{x.place}  {x.field}")
        print(f"  found     {x.found}")
        print(f"  expected  {x.expected}")
        print(f"  fix       {x.fix}")
        print(f"  see       {x.link}")
    counts = Counter(x.severity for x in findings)
    totals = [f"{counts[x]} {x}{'s' * (counts[x] != 1)}" for x in (ERROR, WARNING)]
    print(", ".join(totals))


def main(arguments=None):
    """Command line; returns 1 where there is an error, 0 otherwise."""
    parser = argparse.ArgumentParser(
        prog="python -m repository_check",
        description="Say what is wrong with a model repository before a server does.",
    )
    parser.add_argument("repository", type=Path)
    parser.add_argument("models", nargs="*", help="check these only")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--server",
        choices=["any", "embedded", "container"],
        default="any",
        help="what it is checked for",
    )
    options = parser.parse_args(arguments)
    try:
        server = server_features(options.server)
        findings = check(options.repository, options.models or None, server)
        unknown = [x for x in options.models if not (options.repository / x).is_dir()]
        if unknown:
            parser.error(f"{options.repository} holds no model {join_items(unknown)}")
    except NotADirectoryError as error:
        parser.error(str(error))
    if options.json:
        print(json.dumps([asdict(x) for x in findings], indent=1))
    else:
        print_findings(findings, sys.stdout.isatty())
    return int(any(x.severity == ERROR for x in findings))
