import copy

import pytest
import torch as th

from sb3_fcdl.dynamics.graph.quantizer import Codebook, GraphQuantizer, LatentQuantizer


def every(n_rows: int) -> th.Tensor:
    """All rows count."""
    return th.ones(n_rows, dtype=th.bool)


def make_codebook(embedding: list[list[float]], decay: float = 0.9) -> Codebook:
    return Codebook(th.tensor(embedding), decay)


def test_nearest_code_by_distance_lowest_index_on_ties():
    codebook = make_codebook([[0.0, 0.0], [4.0, 0.0], [4.0, 0.0]])
    assert codebook.nearest(th.tensor([[1.0, 5.0], [3.0, 0.0], [2.0, 0.0]])).tolist() == [0, 1, 0]


def test_two_updates_by_hand():
    codebook = make_codebook([[0.0], [10.0]])
    codebook.update(th.tensor([[1.0], [3.0], [8.0]]), th.tensor([0, 0, 1]), every(3))
    # counts: 0.9 * 1 + 0.1 * (2, 1); sums: 0.9 * (0, 10) + 0.1 * (4, 8)
    th.testing.assert_close(codebook.counts, th.tensor([1.1, 1.0]))
    th.testing.assert_close(codebook.embedding, th.tensor([[0.4 / 1.1], [9.8]]))
    codebook.update(th.tensor([[2.0]]), th.tensor([0]), every(1))
    # counts: 0.9 * (1.1, 1.0) + 0.1 * (1, 0); sums: 0.9 * (0.4, 9.8) + 0.1 * (2, 0)
    th.testing.assert_close(codebook.counts, th.tensor([1.09, 0.9]))
    th.testing.assert_close(codebook.embedding, th.tensor([[0.56 / 1.09], [8.82 / 0.9]]))


def test_unused_code_stays_where_it_is():
    codebook = make_codebook([[0.0], [10.0]])
    for _ in range(20):
        codebook.update(th.zeros(4, 1), th.zeros(4, dtype=th.int64), every(4))
    th.testing.assert_close(codebook.embedding[1], th.tensor([10.0]))


def test_dead_code_moves_to_a_point_of_the_batch():
    codebook = make_codebook([[0.0], [10.0]])
    for _ in range(23):
        # 0.9 ** 22 < 0.1: the code has died by then.
        codebook.update(th.full((4, 1), 0.5), th.zeros(4, dtype=th.int64), every(4))
    assert codebook.embedding[1].item() == 0.5


def make_quantizer() -> LatentQuantizer:
    th.manual_seed(0)
    return LatentQuantizer(input_dim=8, n_logits=3, n_codes=4, code_dim=2, ema_decay=0.99)


def make_graph_quantizer() -> GraphQuantizer:
    th.manual_seed(0)
    return GraphQuantizer(input_dim=8, n_logits=3, n_codes=4, ema_decay=0.99)


def test_gradient_passes_the_codebook_to_the_encoder():
    quantizer = make_quantizer().eval()
    inputs, weights, last = th.randn(10, 8), th.randn(10, 3), quantizer.encoder[-1].weight
    quantized = quantizer(inputs, every(len(inputs)))
    straight_through = th.autograd.grad((quantized.log_odds * weights).sum(), last)[0]
    # By hand: the slope of the decoder at the code, times the slope of the encoder.
    chosen = quantizer.codebook.embedding[quantized.code].requires_grad_()
    slope = th.autograd.grad((quantizer.decoder(chosen, quantizer.codebook) * weights).sum(), chosen)[0]
    expected = th.autograd.grad((quantizer.encoder(inputs) * slope).sum(), last)[0]
    th.testing.assert_close(straight_through, expected)


def test_graph_of_a_code_is_the_same_in_training_and_planning_whatever_the_batch():
    quantizer = make_quantizer().train()
    graphs = quantizer.graph_log_odds()
    for inputs in (th.randn(5, 8), 3 + th.randn(40, 8)):
        quantized = copy.deepcopy(quantizer)(inputs, every(len(inputs)))
        th.testing.assert_close(quantized.log_odds, graphs[quantized.code])
    th.testing.assert_close(quantizer.eval().graph_log_odds(), graphs)


def test_decoder_normalises_over_the_codebook_as_a_batch_norm_over_its_use():
    quantizer = make_quantizer()
    codebook, decoder = quantizer.codebook, quantizer.decoder
    codebook.counts.copy_(th.tensor([1.0, 2.0, 3.0, 4.0]))
    batch = codebook.embedding.repeat_interleave(th.tensor([1, 2, 3, 4]), dim=0)
    hidden = th.nn.functional.batch_norm(decoder.hidden(batch), None, None, training=True)
    expected = decoder.output(th.nn.functional.leaky_relu(hidden))
    th.testing.assert_close(decoder(batch, codebook), expected)


@pytest.mark.parametrize("make", [make_quantizer, make_graph_quantizer])
def test_codebook_moves_only_in_training(make):
    quantizer = make()
    before = quantizer.codebook.embedding.clone()
    quantizer.eval()(th.randn(32, 8), every(32))
    assert th.equal(before, quantizer.codebook.embedding)
    quantizer.train()(th.randn(32, 8), every(32))
    assert not th.equal(before, quantizer.codebook.embedding)


def test_a_code_is_a_typical_graph_and_a_row_belongs_to_the_nearest():
    quantizer = make_graph_quantizer().eval()
    inputs = th.randn(10, 8)
    quantized = quantizer(inputs, every(len(inputs)))
    graphs, codes = quantized.log_odds.sigmoid(), quantizer.codebook.embedding
    distances = th.cdist(graphs, codes)
    assert th.equal(quantized.code, distances.argmin(-1)) and th.equal(quantizer.code(inputs), quantized.code)
    # the mean over rows and entries
    th.testing.assert_close(quantized.commitment.mean(), distances.min(-1).values.square().mean() / 3)
    th.testing.assert_close(quantizer.graph_log_odds().sigmoid(), codes)


def test_a_row_trains_its_own_graph():
    quantizer = make_graph_quantizer().eval()
    inputs = th.randn(10, 8, requires_grad=True)
    quantizer(inputs, every(len(inputs))).log_odds[3].sum().backward()
    assert inputs.grad[3].any() and not inputs.grad[:3].any() and not inputs.grad[4:].any()


def test_log_odds_of_a_code_stay_finite():
    quantizer = make_graph_quantizer()
    quantizer.codebook.embedding[0] = th.tensor([0.0, 1.0, 0.5])
    assert quantizer.graph_log_odds()[0].isfinite().all()
