"""
The tables of the docs that follow from the result files: ``make tables`` prints each anew between its two comments,

``<!-- table: models_60k.csv --where rule=full_chain -->`` and ``<!-- end of table -->``.

What stands behind ``table:`` are the arguments of ``sb3-fcdl table``, with files of ``benchmarks/results``.
"""

import re
import shlex
from pathlib import Path

from sb3_fcdl.cli.options import make_parser
from sb3_fcdl.cli.tables import table_of

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), RESULTS / "README.md"]
# Comment, table, comment. A comment may go over several lines.
MARKED = re.compile(r"<!-- table: (.*?)-->\n(.*?)<!-- end of table -->", re.DOTALL)


def with_tables(text: str) -> str:
    """
    :param text: of a page
    :return: the same, with its tables as the result files have them now
    """

    def printed(found: re.Match[str]) -> str:
        table = table_of(make_parser().parse_args(["table", *shlex.split(found[1])]), RESULTS)
        return f"<!-- table: {found[1]}-->\n\n{table}\n\n<!-- end of table -->"

    # In a block of code it is an example.
    parts = re.split(r"(```.*?```)", text, flags=re.DOTALL)
    return "".join(part if part.startswith("```") else MARKED.sub(printed, part) for part in parts)


def main() -> None:
    for page in PAGES:
        before = page.read_text()
        after = with_tables(before)
        if after != before:
            page.write_text(after)
            print(f"changed: {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
