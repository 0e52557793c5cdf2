"""
How fast this tree is beside an earlier commit, both measured in one run.

``make bench-ratio`` compares with the commit before, and ends with 1 if anything takes more than 1 / 0.7 of its earlier time.
Two processes, one for each tree, time the same call in turn, so a slow machine is slow for both. It takes about two minutes.
Changes that are not committed are measured too.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from sb3_fcdl.evaluation.markdown import markdown

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Comparison:
    """
    :param quantity: what was measured
    :param before: seconds of each call at the earlier commit
    :param now: of each call of this tree, made next to the one of ``before``
    """

    quantity: str
    before: Sequence[float]
    now: Sequence[float]

    @property
    def ratio(self) -> float:
        """How many times as fast as before, the median of the pairs."""
        return statistics.median(old / new for old, new in zip(self.before, self.now, strict=True))


class Worker:
    """
    A process that times calls of one source tree; use it as a context manager.

    :param tree: root of the source tree
    """

    def __init__(self, tree: Path) -> None:
        command = [sys.executable, str(HERE / "ratio_worker.py"), str(tree)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.kill()
        self.process.communicate()

    def read(self) -> str:
        """
        :return: the next line of the process
        :raises RuntimeError: if it ended
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("a process that measures ended early; above is what it wrote")
        return line

    def quantities(self) -> list[str]:
        """What it can time. To be called once, and first."""
        names: list[str] = json.loads(self.read())
        return names

    def time(self, quantity: str) -> float:
        """:return: seconds of one call"""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{quantity}\n")
        self.process.stdin.flush()
        return float(self.read())


def check_out(commit: str, folder: Path) -> Path:
    """
    The files of a commit. No branch and no work tree of the repository is touched.

    :param commit: what git calls it
    :param folder: where to
    :return: root of the source tree
    :raises subprocess.CalledProcessError: if there is no such commit
    """
    archive = folder / "tree.zip"
    subprocess.run(["git", "archive", "--format=zip", f"--output={archive}", commit], cwd=HERE.parent, check=True)
    tree = folder / "tree"
    with zipfile.ZipFile(archive) as files:
        files.extractall(tree)
    return tree


def compare(before: Worker, now: Worker, n_rounds: int) -> list[Comparison]:
    """
    What both can do, each pair of calls one after the other and the order changing from pair to pair.

    :param before: of the earlier commit
    :param now: of this tree
    :param n_rounds: number of pairs, after one that does not count
    """
    known = before.quantities()
    comparisons = []
    for quantity in now.quantities():
        if quantity not in known:
            print(f"the earlier commit has no {quantity!r}", file=sys.stderr)
            continue
        times: dict[Worker, list[float]] = {before: [], now: []}
        for index in range(n_rounds + 1):
            for worker in (before, now) if index % 2 else (now, before):
                times[worker].append(worker.time(quantity))
        comparisons.append(Comparison(quantity, times[before][1:], times[now][1:]))
    return comparisons


def table(comparisons: Sequence[Comparison]) -> str:
    """Markdown, medians in ms of processor time."""
    lines = [
        [each.quantity, *(f"{1000 * statistics.median(times):.2f}" for times in (each.before, each.now)), f"{each.ratio:.2f}"]
        for each in comparisons
    ]
    return markdown(["", "before, ms", "now, ms", "times as fast"], lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", default="HEAD~1", metavar="COMMIT", help="(default: %(default)s)")
    parser.add_argument("--fail-below", type=float, default=0.0, metavar="RATIO", help="end with 1 if a ratio is lower")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="pairs of calls (default: %(default)s)")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        tree = check_out(arguments.against, Path(folder))
        with Worker(tree) as before, Worker(HERE.parent) as now:
            comparisons = compare(before, now, arguments.rounds)
    print(table(comparisons))
    slow = [each.quantity for each in comparisons if each.ratio < arguments.fail_below]
    if slow:
        print(f"\nSlower than {arguments.fail_below} of what they were: {'; '.join(slow)}", file=sys.stderr)
    if slow or not comparisons:
        sys.exit(1)


if __name__ == "__main__":
    main()
