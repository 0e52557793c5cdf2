import torch as th

from sb3_fcdl.dynamics.quantizer import Codebook, Quantizer


def make_codebook(embedding: list[list[float]], decay: float = 0.9) -> Codebook:
    codebook = Codebook(len(embedding), len(embedding[0]), decay)
    codebook.embedding.copy_(th.tensor(embedding))
    codebook.sums.copy_(codebook.embedding)
    return codebook


def test_nearest_code_by_distance_lowest_index_on_ties():
    codebook = make_codebook([[0.0, 0.0], [4.0, 0.0], [4.0, 0.0]])
    assert codebook.nearest(th.tensor([[1.0, 5.0], [3.0, 0.0], [2.0, 0.0]])).tolist() == [0, 1, 0]


def test_two_updates_by_hand():
    codebook = make_codebook([[0.0], [10.0]])
    codebook.update(th.tensor([[1.0], [3.0], [8.0]]), th.tensor([0, 0, 1]))
    # counts: 0.9 * 1 + 0.1 * (2, 1); sums: 0.9 * (0, 10) + 0.1 * (4, 8)
    th.testing.assert_close(codebook.counts, th.tensor([1.1, 1.0]))
    th.testing.assert_close(codebook.embedding, th.tensor([[0.4 / 1.1], [9.8]]))
    codebook.update(th.tensor([[2.0]]), th.tensor([0]))
    # counts: 0.9 * (1.1, 1.0) + 0.1 * (1, 0); sums: 0.9 * (0.4, 9.8) + 0.1 * (2, 0)
    th.testing.assert_close(codebook.counts, th.tensor([1.09, 0.9]))
    th.testing.assert_close(codebook.embedding, th.tensor([[0.56 / 1.09], [8.82 / 0.9]]))


def test_unused_code_stays_where_it_is():
    codebook = make_codebook([[0.0], [10.0]])
    for _ in range(20):
        codebook.update(th.zeros(4, 1), th.zeros(4, dtype=th.int64))
    th.testing.assert_close(codebook.embedding[1], th.tensor([10.0]))


def test_dead_code_moves_to_a_point_of_the_batch():
    codebook = make_codebook([[0.0], [10.0]])
    for _ in range(23):
        # 0.9 ** 22 < 0.1: the code has died by then.
        codebook.update(th.full((4, 1), 0.5), th.zeros(4, dtype=th.int64))
    assert codebook.embedding[1].item() == 0.5


def test_gradient_passes_the_codebook_to_the_encoder():
    th.manual_seed(0)
    quantizer = Quantizer(input_dim=8, n_logits=3, n_codes=4, code_dim=2, ema_decay=0.99).eval()
    inputs = th.randn(10, 8)
    quantized = quantizer(inputs)
    assert th.equal(quantized.embedding, quantizer.codebook.embedding[quantized.code])
    weights = th.randn(10, 2)
    by_code = th.autograd.grad((quantized.embedding * weights).sum(), quantizer.encoder[-1].weight)[0]
    by_point = th.autograd.grad((quantizer.encoder(inputs) * weights).sum(), quantizer.encoder[-1].weight)[0]
    th.testing.assert_close(by_code, by_point)


def test_graph_of_a_code_is_the_same_in_training_and_evaluation():
    quantizer = Quantizer(input_dim=8, n_logits=3, n_codes=4, code_dim=2, ema_decay=0.99)
    assert th.equal(quantizer.train().graph_logits(), quantizer.eval().graph_logits())


def test_codebook_moves_only_in_training():
    quantizer = Quantizer(input_dim=8, n_logits=3, n_codes=4, code_dim=2, ema_decay=0.99)
    before = quantizer.codebook.embedding.clone()
    quantizer.eval()(th.randn(32, 8))
    assert th.equal(before, quantizer.codebook.embedding)
    quantizer.train()(th.randn(32, 8))
    assert not th.equal(before, quantizer.codebook.embedding)
