"""Results that are computed once and then looked up."""

from collections.abc import Callable

import torch as th


class Memo:
    """
    Answers to numbered questions. Each is computed when it is first asked, together with all others that are new.

    The function that computes them is not stored: its owner holds the memo, and a reference cycle would delay freeing both.
    """

    def __init__(self) -> None:
        # The row of each question, -1 where it has not been asked. int32: reading this table costs the time, so it is small.
        self._rows = th.empty(0, dtype=th.int32)
        self._answers = th.empty(0)
        self.n_answers = 0

    @property
    def answers(self) -> th.Tensor:
        """A row for each question that has been asked, ``[n_answers, *]``."""
        return self._answers[: self.n_answers]

    def rows(self, question: th.Tensor, n_questions: int, compute: Callable[[th.Tensor], th.Tensor]) -> th.Tensor:
        """
        :param question: int64, of any shape
        :param n_questions: how many questions there are by now
        :param compute: from different questions, int64 ``[N]``, to their answers, ``[N, *]``; always the same function
        :return: the row of ``answers`` of each, int32, of the same shape
        """
        n_known = len(self._rows)
        if n_known < n_questions:
            self._rows = enlarged(self._rows, max(n_questions, 2 * n_known))
            self._rows[n_known:] = -1
        rows = self._rows[question]
        is_unknown = rows < 0
        if is_unknown.any():
            unknown = question[is_unknown].unique()
            self._add(unknown, compute(unknown))
            rows = self._rows[question]
        return rows

    def _add(self, question: th.Tensor, answers: th.Tensor) -> None:
        n_answers = self.n_answers + len(answers)
        if not self.n_answers:
            self._answers = answers
        else:
            if n_answers > len(self._answers):
                self._answers = enlarged(self._answers, 2 * n_answers)
            self._answers[self.n_answers : n_answers] = answers
        self._rows[question] = th.arange(self.n_answers, n_answers, dtype=th.int32)
        self.n_answers = n_answers


def enlarged(table: th.Tensor, n_rows: int) -> th.Tensor:
    """The same table with rows of any content added, ``n_rows`` in all."""
    # th.cat would also write the new rows, and most of the time would go there.
    larger = table.new_empty(n_rows, *table.shape[1:])
    larger[: len(table)] = table
    return larger
