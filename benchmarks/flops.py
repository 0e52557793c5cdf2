"""
Work of FCDL on categorical variables, by formula: of the dense network, and of the tables that stand for it.

Only what the result needs is counted, in multiply-adds. What an implementation does besides (gathering, padding, the parts of
a gradient that are thrown away) counts as time lost, not as work.
"""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Work:
    """
    Multiply-adds of a model with the prior ``"order"`` and two predictor layers. A row is one state and one action.

    :param n_objects: state variables, ``V``; the action is one parent more
    :param n_colors: values of each of them; an action paints one object with one of them
    :param hidden_dim: width of the features and of every layer
    :param n_codes: number of contexts
    :param code_dim: width of a code
    """

    n_objects: int = 10
    n_colors: int = 5
    hidden_dim: int = 128
    n_codes: int = 16
    code_dim: int = 16

    ENCODER_DIM: ClassVar[int] = 64
    DECODER_DIM: ClassVar[int] = 32

    @property
    def _columns(self) -> int:
        """Of all parents together: as many for the action as for the objects."""
        return 2 * self.n_objects * self.n_colors

    @property
    def _edges(self) -> int:
        return self.n_objects * (self.n_objects + 1)

    @property
    def _ancestors(self) -> int:
        """Pairs of a child and an object that the prior lets through: the lower triangle with the diagonal."""
        return self.n_objects * (self.n_objects + 1) // 2

    @property
    def _decoder(self) -> int:
        n_free = self._ancestors - self.n_objects
        return self.code_dim * self.DECODER_DIM + self.DECODER_DIM * n_free

    @property
    def _shared(self) -> int:
        """Of a row after the layers that read features, on either path, without the decoder."""
        context = self.hidden_dim * self.ENCODER_DIM + self.ENCODER_DIM * self.code_dim + self.n_codes * self.code_dim
        predictor = 2 * self.hidden_dim**2 + self.hidden_dim * self.n_colors
        return context + self.n_objects * predictor

    @property
    def dense_row(self) -> int:
        """Features, the encoder's first layer, masking and aggregation as matrix products, and the rest."""
        features = self._columns * self.hidden_dim
        first_layer = (self.n_objects + 1) * self.hidden_dim**2
        aggregation = self._edges * (self.hidden_dim + self.hidden_dim**2)
        return features + first_layer + aggregation + self._shared + self._decoder

    @property
    def table_row(self) -> int:
        """The same with table rows, weighted and added; a graph is decoded once a code and not counted here."""
        return (self.n_objects + 1 + self._edges) * self.hidden_dim + self._shared

    @property
    def tables(self) -> int:
        """Building the tables of one version of the weights: a row for each child, parent and category, and the encoder's."""
        n_rows = self._ancestors * self.n_colors + self.n_objects**2 * self.n_colors
        return (n_rows + self._columns) * self.hidden_dim**2

    def dense_update(self, batch_size: int = 256, horizon: int = 3) -> int:
        """Of an update: forward, and backward at twice its work."""
        return 3 * batch_size * horizon * self.dense_row

    def table_update(self, batch_size: int = 256, horizon: int = 3) -> int:
        """Of an update; the gradient through the sampled states of all steps but the first has tables of its own."""
        forward = self.tables + batch_size * horizon * (self.table_row + self._decoder)
        slopes = (self._ancestors + self.n_objects) * self.n_colors
        tangents = slopes * self.n_colors * self.hidden_dim**2
        return 3 * forward + tangents + batch_size * (horizon - 1) * slopes * self.hidden_dim

    def dense_plan(self, n_rows: int) -> int:
        """:param n_rows: how many rows go through the model in a plan"""
        return n_rows * self.dense_row

    def table_plan(self, n_rows: int) -> int:
        """:param n_rows: how many rows go through the model in a plan"""
        return self.tables + self.n_codes * self._decoder + n_rows * self.table_row
