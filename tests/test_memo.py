import torch as th

from sb3_fcdl.memo import Memo


def test_each_question_is_computed_once_and_answers_stay_as_they_were():
    asked = []

    def square(question: th.Tensor) -> th.Tensor:
        asked.append(question.tolist())
        return question.unsqueeze(-1).double() ** 2

    memo = Memo()
    for question, n_questions in (([[3, 1], [3, 0]], 4), ([1, 3], 4), ([9, 1, 5, 9], 10), (list(range(100)), 100)):
        question = th.tensor(question)
        rows = memo.rows(question, n_questions, square)
        assert rows.shape == question.shape
        assert th.equal(memo.answers[rows, 0], question.double() ** 2)
    assert asked == [[0, 1, 3], [5, 9], [number for number in range(100) if number not in (0, 1, 3, 5, 9)]]
    assert memo.n_answers == len(memo.answers) == 100
