"""How good generated graphs and molecules are, with floors, baselines and intervals."""

from .baselines import erdos_renyi_like, shuffled_like
from .descriptors import clustering_coefficients, describe
from .evaluation import ERDOS_RENYI, FLOOR, SHUFFLED, Evaluation, evaluate_graphs, evaluate_molecules
from .fcd import fcd_available
from .intervals import Interval, share_interval
from .isomorphism import graph_hash, isomorphic, isomorphism_classes
from .mmd import Kernels, average, kernels, mmd
from .molecules import Judged, judge, molecules_of, smiles_set
from .nspdk import nspdk_features, nspdk_mmd
from .orbits import orbit_counts
from .vun import VUN, is_connected, vun

__all__ = [
    "ERDOS_RENYI",
    "FLOOR",
    "SHUFFLED",
    "VUN",
    "Evaluation",
    "Interval",
    "Judged",
    "Kernels",
    "average",
    "clustering_coefficients",
    "describe",
    "erdos_renyi_like",
    "evaluate_graphs",
    "evaluate_molecules",
    "fcd_available",
    "graph_hash",
    "is_connected",
    "isomorphic",
    "isomorphism_classes",
    "judge",
    "kernels",
    "mmd",
    "molecules_of",
    "nspdk_features",
    "nspdk_mmd",
    "orbit_counts",
    "share_interval",
    "shuffled_like",
    "smiles_set",
    "vun",
]
