"""All benchmarks, or those that are named; the figures go to `tests/benchmarks/results/latest.json` too."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path

import psutil

from tests.benchmarks import dashboards, failover, idle, loading, sessions, streaming, tokens
from tests.benchmarks.figures import Report
from tests.benchmarks.peers import version_of

RESULTS = Path(__file__).parent / "results" / "latest.json"
PARTS = ("tokens", "loading", "streaming", "sessions", "failover", "idle", "dashboards")


def main() -> int:
    """Run what was asked for; 1 if something was wrong or missed its target."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all, if none is named")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, for a first look")
    options = parser.parse_args()
    parts = options.parts or PARTS
    if unknown := set(parts) - set(PARTS):
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    report = Report()
    report.versions["python"] = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    for distribution in ("aiohttp", "msgspec", "ipykernel", "ipython"):
        report.versions[distribution] = version_of(sys.executable, distribution)
    print(", ".join(f"{name} {version}" for name, version in report.versions.items()))
    print(f"{psutil.cpu_count()} cores, load {psutil.getloadavg()[0]:.1f}")
    if "tokens" in parts:
        tokens.run(report, runs=3 if options.quick else 11)
    if "loading" in parts:
        loading.run(report, kernels=1 if options.quick else 5)
    if "streaming" in parts:
        streaming.run(report, lengths=(200, 2000) if options.quick else (2000, 20_000))
    if "sessions" in parts:
        sessions.run(report, runs=20 if options.quick else 200, kernels=1 if options.quick else 5)
    if "failover" in parts:
        failover.run(report, runs=1 if options.quick else 5)
    if "idle" in parts:
        idle.run(report, seconds=10 if options.quick else 60)
    if "dashboards" in parts:
        dashboards.run(report, seconds=2 if options.quick else 10)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report.as_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    missed = [figure.name for figure in report.figures if figure.met is False]
    print(f"\n{len(report.figures)} figures, {len(missed)} missed, {len(report.failures)} checks failed; {RESULTS}")
    for line in (*missed, *report.failures):
        print(f"  {line}")
    return 1 if missed or report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
