"""The published settings of GDSS by data set, and the node counts of the training sets.

Samplers are those of the authors' configuration files; the counts are of the published training splits (nodes with at
least one edge: graphs are told by their edges alone). Grid's are the law of its generator, m n with m, n uniform in
10..19. The ZINC250k subset is not redistributable here: give your own sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["ATOMS", "NODE_COUNTS", "SAMPLERS", "published_sampler"]


def _sampler(predictor: str, corrector: str | None, snr: float, scale_eps: float, use_ema: bool) -> dict[str, Any]:
    return {
        "predictor": predictor,
        "corrector": corrector,
        "snr": snr,
        "scale_eps": scale_eps,
        "n_steps": 1,
        "use_ema": use_ema,
    }


SAMPLERS: dict[str, dict[str, Any]] = {
    "community_small": _sampler("Euler", "Langevin", 0.05, 0.7, False),
    "ego_small": _sampler("Euler", None, 0.0, 0.0, False),
    "ENZYMES": _sampler("S4", "Langevin", 0.15, 0.7, True),
    "grid": _sampler("Reverse", "Langevin", 0.1, 0.7, True),
    "QM9": _sampler("Reverse", "Langevin", 0.2, 0.7, False),
    "ZINC250k": _sampler("Reverse", "Langevin", 0.2, 0.9, False),
    "ZINC250k_v2": _sampler("Reverse", "Langevin", 0.2, 0.8, False),
}

ATOMS: dict[str, list[str]] = {
    "QM9": ["C", "N", "O", "F"],
    "ZINC250k": ["C", "N", "O", "F", "P", "S", "Cl", "Br", "I"],
}

NODE_COUNTS: dict[str, dict[int, int]] = {
    "community_small": {12: 21, 14: 20, 16: 15, 18: 13, 20: 11},
    "ego_small": {4: 56, 5: 32, 6: 20, 7: 16, 8: 9, 9: 6, 10: 5, 11: 4, 12: 3, 13: 3, 14: 1, 16: 5},
    "ENZYMES": {
        10: 2,
        11: 5,
        12: 12,
        13: 6,
        14: 11,
        15: 8,
        16: 6,
        17: 4,
        18: 13,
        19: 10,
        20: 13,
        21: 14,
        22: 13,
        23: 8,
        24: 18,
        25: 15,
        26: 19,
        27: 19,
        28: 16,
        29: 10,
        30: 10,
        31: 5,
        32: 12,
        33: 10,
        34: 12,
        35: 6,
        36: 8,
        37: 9,
        38: 13,
        39: 13,
        40: 16,
        41: 13,
        42: 19,
        43: 5,
        44: 18,
        45: 4,
        46: 9,
        47: 4,
        48: 13,
        49: 3,
        50: 8,
        51: 5,
        52: 7,
        54: 2,
        55: 3,
        56: 2,
        57: 3,
        58: 1,
        60: 4,
        62: 2,
        64: 1,
        66: 3,
        74: 1,
        96: 1,
        121: 1,
        123: 1,
        125: 1,
    },
    "grid": {
        100: 1,
        110: 2,
        120: 2,
        121: 1,
        130: 2,
        132: 2,
        140: 2,
        143: 2,
        144: 1,
        150: 2,
        154: 2,
        156: 2,
        160: 2,
        165: 2,
        168: 2,
        169: 1,
        170: 2,
        176: 2,
        180: 4,
        182: 2,
        187: 2,
        190: 2,
        192: 2,
        195: 2,
        196: 1,
        198: 2,
        204: 2,
        208: 2,
        209: 2,
        210: 2,
        216: 2,
        221: 2,
        224: 2,
        225: 1,
        228: 2,
        234: 2,
        238: 2,
        240: 2,
        247: 2,
        252: 2,
        255: 2,
        256: 1,
        266: 2,
        270: 2,
        272: 2,
        285: 2,
        288: 2,
        289: 1,
        304: 2,
        306: 2,
        323: 2,
        324: 1,
        342: 2,
        361: 1,
    },
    "QM9": {2: 4, 3: 8, 4: 26, 5: 112, 6: 548, 7: 2845, 8: 16141, 9: 98230},
}


def published_sampler(data: str, node_network: str, stored: Mapping[str, Any]) -> dict[str, Any] | None:
    """Settings of a published model.

    Args:
        data: name of its data set.
        node_network: published name of its node network; tells the second ZINC250k model from the first.
        stored: the model's own configuration, for data sets that are not in the table.

    Returns:
        Settings, or None if neither the table nor the file has any.
    """
    name = f"{data}_v2" if data == "ZINC250k" and node_network == "ScoreNetworkX_GMH" else data
    if name in SAMPLERS:
        return dict(SAMPLERS[name])
    own, sample = stored.get("sampler"), stored.get("sample", {})
    if not own:
        return None
    corrector = None if own.get("corrector") in (None, "None") else own["corrector"]
    settings = _sampler(own["predictor"], corrector, own["snr"], own["scale_eps"], bool(sample.get("use_ema", False)))
    return {**settings, "n_steps": int(own.get("n_steps", 1))}
