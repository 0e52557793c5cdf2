"""The quantizer: from a state and an action to a context, and from a context to a graph."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch as th
from torch import nn
from torch.nn import functional as F

from sb3_fcdl.dynamics.norms import batch_norm
from sb3_fcdl.dynamics.rows import drawn_rows, masked


class Codebook(nn.Module):
    """
    ``K`` code vectors. Each follows the moving average of the points that it stands for:

        ``n_k <- d n_k + (1 - d) |rows of k|``, ``m_k <- d m_k + (1 - d) sum(rows of k)``, ``e_k = m_k / n_k``

    A code that nothing has been assigned to for long is dead: it is moved to a point of the current batch.

    :param embedding: the codes to begin with, ``[K, C]``
    :param decay: of the moving averages, per training batch
    """

    embedding: th.Tensor
    counts: th.Tensor
    sums: th.Tensor

    # Rows a batch, averaged: about 230 batches without a single row at the default decay.
    DEAD_BELOW = 0.1

    def __init__(self, embedding: th.Tensor, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("embedding", embedding)
        self.register_buffer("counts", th.ones(len(embedding)))
        self.register_buffer("sums", embedding.clone())

    def nearest(self, points: th.Tensor) -> th.Tensor:
        """
        :param points: ``[R, C]``
        :return: index of the nearest code, the lowest of equals, ``[R]``, int64
        """
        # |p - e|^2 without |p|^2, which does not depend on the code.
        distances = self.embedding.square().sum(-1) - 2 * points @ self.embedding.T
        return distances.argmin(-1)

    @th.no_grad()
    def update(self, points: th.Tensor, codes: th.Tensor, valid: th.Tensor) -> None:
        """
        Move the codes towards a batch.

        :param points: ``[R, C]``
        :param codes: what each point was assigned to, ``[R]``
        :param valid: which points count, ``[R]``, bool
        """
        assigned = masked(F.one_hot(codes, len(self.counts)).to(points.dtype), valid)
        self.counts.lerp_(assigned.sum(0), 1 - self.decay)
        self.sums.lerp_(assigned.T @ points, 1 - self.decay)
        chosen = points[drawn_rows(valid, len(self.counts))]
        is_dead = self.counts < self.DEAD_BELOW
        self.counts.masked_fill_(is_dead, 1.0)
        self.sums.copy_(th.where(is_dead.unsqueeze(-1), chosen, self.sums))
        # A new tensor: the old one may still be needed for the gradient of the step that used it.
        self.embedding = self.sums / self.counts.unsqueeze(-1)


class GraphDecoder(nn.Module):
    """
    From a code vector to the log-odds of the edges that are free to be learned.

    Normalises over the codebook, each code weighted by its share of use. The published decoder normalises over the batch: the
    graph of a code then depends on the other codes in the batch, and training differs from planning. A layer norm has no such
    statistics, but does not set the codes apart: contexts did not form with it.

    :param code_dim: ``C``
    :param n_logits: number of free edges
    :param hidden_dim: width of the layer between (published: 32)
    """

    def __init__(self, code_dim: int, n_logits: int, hidden_dim: int = 32) -> None:
        super().__init__()
        self.hidden = nn.Linear(code_dim, hidden_dim, bias=False)
        self.scale = nn.Parameter(th.ones(hidden_dim))
        self.shift = nn.Parameter(th.zeros(hidden_dim))
        self.output = nn.Linear(hidden_dim, n_logits)

    def forward(self, points: th.Tensor, codebook: Codebook) -> th.Tensor:
        """
        :param points: ``[R, C]``
        :param codebook: the codes to normalise over
        :return: ``[R, n_logits]``
        """
        codes = self.hidden(codebook.embedding)
        shares = (codebook.counts / codebook.counts.sum()).unsqueeze(-1)
        mean = (shares * codes).sum(0)
        variance = (shares * (codes - mean).square()).sum(0)
        normalised = (self.hidden(points) - mean) * (variance + 1e-5).rsqrt()
        return self.output(F.leaky_relu(normalised * self.scale + self.shift))


class Quantized(NamedTuple):
    """
    :param code: ``[R]``, int64
    :param log_odds: of the free edges, as they are to be trained with, ``[R, n_logits]``
    :param commitment: squared distance of what was quantized from its code, ``[R, C]``
    """

    code: th.Tensor
    log_odds: th.Tensor
    commitment: th.Tensor


class Quantizer(nn.Module, ABC):
    """
    From what is known of a row to its context, and to the graph of each context.

    The first layer of the encoder reads the parents' features and lives in ``ParentLinear``; here is the rest.

    :param input_dim: width of what that layer gives
    :param code_dim: ``C``, width of a code
    """

    codebook: Codebook

    # Width of the encoder's second layer, as published.
    ENCODER_DIM = 64

    def __init__(self, input_dim: int, code_dim: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            batch_norm(input_dim),
            nn.LeakyReLU(),
            nn.Linear(input_dim, self.ENCODER_DIM, bias=False),
            batch_norm(self.ENCODER_DIM),
            nn.LeakyReLU(),
            nn.Linear(self.ENCODER_DIM, code_dim),
        )

    @abstractmethod
    def forward(self, inputs: th.Tensor, valid: th.Tensor) -> Quantized:
        """
        In train mode the codebook moves, after its codes have been used.

        :param inputs: ``[R, input_dim]``
        :param valid: which rows move the codebook, ``[R]``, bool
        """

    @abstractmethod
    def code(self, inputs: th.Tensor) -> th.Tensor:
        """
        :param inputs: ``[R, input_dim]``
        :return: the context of each row, ``[R]``, int64
        """

    @abstractmethod
    def graph_log_odds(self) -> th.Tensor:
        """The free graph entries of every code, ``[K, n_logits]``."""


class GraphQuantizer(Quantizer):
    """
    Infers a graph for each row, and quantizes these graphs: a code is a typical graph, ``C = n_logits`` probabilities.

    Training draws the edges of a row from its own graph. What a row gains by an edge then moves its own log-odds, and not
    those of the rows that happen to share its code: contexts come apart where different graphs predict well. Planning uses
    the graph of the code.

    :param input_dim: width of what the encoder's first layer gives
    :param n_logits: number of free entries of a graph
    :param n_codes: ``K``
    :param ema_decay: of the codebook
    """

    # Keeps the log-odds of a code finite: within +-9.2.
    MIN_PROBABILITY = 1e-4

    def __init__(self, input_dim: int, n_logits: int, n_codes: int, ema_decay: float) -> None:
        super().__init__(input_dim, n_logits)
        self.codebook = Codebook(th.randn(n_codes, n_logits).sigmoid(), ema_decay)

    def forward(self, inputs: th.Tensor, valid: th.Tensor) -> Quantized:
        """See ``Quantizer.forward``."""
        log_odds = self.encoder(inputs)
        graphs = log_odds.sigmoid()
        codes = self.codebook.nearest(graphs.detach())
        chosen = self.codebook.embedding[codes]
        if self.training:
            self.codebook.update(graphs.detach(), codes, valid)
        return Quantized(codes, log_odds, (graphs - chosen).square())

    def code(self, inputs: th.Tensor) -> th.Tensor:
        """See ``Quantizer.code``."""
        return self.codebook.nearest(self.encoder(inputs).sigmoid())

    def graph_log_odds(self) -> th.Tensor:
        """See ``Quantizer.graph_log_odds``."""
        return self.codebook.embedding.logit(self.MIN_PROBABILITY)


class LatentQuantizer(Quantizer):
    """
    Quantizes a latent vector and decodes a graph from its code (FCDL paper, section 4.2; Eq. 7 with the codebook moved by
    averages). The gradient of the graph passes straight through the codebook to the encoder.

    :param input_dim: width of what the encoder's first layer gives
    :param n_logits: number of free entries of a graph
    :param n_codes: ``K``
    :param code_dim: ``C``
    :param ema_decay: of the codebook
    """

    def __init__(self, input_dim: int, n_logits: int, n_codes: int, code_dim: int, ema_decay: float) -> None:
        super().__init__(input_dim, code_dim)
        self.codebook = Codebook(th.randn(n_codes, code_dim), ema_decay)
        self.decoder = GraphDecoder(code_dim, n_logits)

    def forward(self, inputs: th.Tensor, valid: th.Tensor) -> Quantized:
        """See ``Quantizer.forward``."""
        points = self.encoder(inputs)
        codes = self.codebook.nearest(points.detach())
        chosen = self.codebook.embedding[codes]
        log_odds = self.decoder(chosen + (points - points.detach()), self.codebook)
        if self.training:
            self.codebook.update(points.detach(), codes, valid)
        return Quantized(codes, log_odds, (points - chosen).square())

    def code(self, inputs: th.Tensor) -> th.Tensor:
        """See ``Quantizer.code``."""
        return self.codebook.nearest(self.encoder(inputs))

    def graph_log_odds(self) -> th.Tensor:
        """See ``Quantizer.graph_log_odds``."""
        return self.decoder(self.codebook.embedding, self.codebook)
