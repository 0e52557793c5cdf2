"""Causal graphs with names, and how far they are from the true ones."""

from sb3_fcdl.graphs.evidence import EdgeEvidence
from sb3_fcdl.graphs.graph import CausalGraph, GraphDiff
from sb3_fcdl.graphs.score import EdgeScore, GraphScore, f1_score, hamming_distance, wrong_edges

__all__ = [
    "CausalGraph",
    "EdgeEvidence",
    "EdgeScore",
    "GraphDiff",
    "GraphScore",
    "f1_score",
    "hamming_distance",
    "wrong_edges",
]
