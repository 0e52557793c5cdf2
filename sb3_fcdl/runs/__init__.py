"""What training runs and evaluations leave behind: checkpoints, records and tables."""

from sb3_fcdl.runs.table import Run, append_csv, check_csv, format_table, read_csv

__all__ = ["Run", "append_csv", "check_csv", "format_table", "read_csv"]
