r"""Pedestrians seen from above: the ETH and UCY recordings, cut into windows by the two protocols of the literature.

Every recording is a plain text of rows `frame id x y`, metres, frames 10 apart (0.4 s). A window is 8 observed and 12
future frames. Test is one scene whole; training is the first 80 % of the listed frames of all other recordings,
validation their rest.

    agentformer   every frame, numbered 10 apart, begins a window; a sample is one pedestrian (the ego, who alone is
                  judged) present throughout, with up to N - 1 of the others: all of them if the window has fewer than N
                  pedestrians, else the nearest within 5 m at the last observed frame. Windows with one pedestrian
                  count. N is 1 (eth, hotel, zara2), 2 (univ) or 3 (zara1). Used by AgentFormer, EqMotion, LED, GeoTDM.
    sgan          every 20 consecutive listed frames are a window; a sample is all pedestrians present throughout, at
                  least two, all judged. Used by Social GAN and its descendants.

Numbers of the two must not be compared: ETH has 364 test pedestrians in the first and 181 in the second.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...modalities.trajectories.records import TrajectoryRecord
from ..errors import DataError
from ..fetch import RemoteFile, data_root, fetch
from .collection import TrajectoryData
from .cutting import spread

__all__ = ["RECORDINGS", "SCENES", "Recording", "load_pedestrians", "read_recording", "windows"]

_ADDRESS = (
    "https://raw.githubusercontent.com/StanfordASL/Trajectron-plus-plus/40dec06e9cfef9e0d5f5ec69da2c4058a556bba9/"
    "experiments/pedestrians/raw/raw/all_data/"
)

#: sha256 of the text of each recording.
RECORDINGS = {
    "biwi_eth": "cf8d3fd342a15f409ebc2a1fc76b91a0f06390bd21f1e11410f3859331ab082b",
    "biwi_hotel": "9caa771bb9153d6b809dd0916b6f86761b641e6bbb15e766c1de3133fbbb7fcf",
    "crowds_zara01": "1147a1962a09abfb86f28c6cddcac862e095a0cf129b3016385b69eacdd09d85",
    "crowds_zara02": "8a649d0f8c9ae75c87c4d23a85f892786b0aa30266e996c7be03e69dafff22ff",
    "crowds_zara03": "16b3e899932c4baacd07f45013d5b921f90bc5a29eb2b0fe42f4d7c904ac3108",
    "students001": "a6d87f278d94136fe39b8be91555487a29ac77259ae403b9dba2d5c18caf7b5b",
    "students003": "e25798b660634330aa89f8bb259425de720e84d0873902726c1d1f4ccff21d6c",
    "uni_examples": "61f432c0ab3070ed0ef150fbeabcd7baf839cab5495a46e6105bd747f0a092a7",
}


@dataclass(frozen=True)
class Scene:
    """A test scene: its recordings, pedestrians per sample, and the division by which GeoTDM tests it."""

    test: tuple[str, ...]
    num_agents: int
    published_test_scale: float = 1.0


#: The five leave-one-out scenes.
SCENES = {
    "eth": Scene(("biwi_eth",), 1, 1.4),
    "hotel": Scene(("biwi_hotel",), 1),
    "univ": Scene(("students001", "students003"), 2),
    "zara1": Scene(("crowds_zara01",), 3),
    "zara2": Scene(("crowds_zara02",), 1),
}

_REACH = 5.0


@dataclass(frozen=True)
class Recording:
    """Rows of a recording, sorted by frame and then as listed.

    Args:
        name: of the recording.
        frames: frame number per row, `(R,)`.
        ids: pedestrian per row, `(R,)`.
        places: `(R, 2)`, metres.
    """

    name: str
    frames: NDArray[np.int64]
    ids: NDArray[np.int64]
    places: NDArray[np.float64]

    def between(self, start: float, stop: float) -> Recording:
        """The rows of the frames in `[start, stop)`."""
        keep = (self.frames >= start) & (self.frames < stop)
        return Recording(self.name, self.frames[keep], self.ids[keep], self.places[keep])

    def split(self, share: float = 0.8) -> tuple[Recording, Recording]:
        """The first `share` of the listed frames and the rest."""
        listed = np.unique(self.frames)
        cut = listed[int(len(listed) * share)]
        return self.between(-np.inf, cut), self.between(cut, np.inf)


def read_recording(path: str | Path) -> Recording:
    """Reads rows `frame id x y`, separated by blanks or tabs, plain or gzipped.

    Raises:
        DataError: not four numbers per row, values that are not finite, or a pedestrian listed twice in a frame.
    """
    path = Path(path)
    name = path.name.removesuffix(".gz").removesuffix(".txt")
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
        rows = np.loadtxt(io.StringIO(text), ndmin=2, dtype=np.float64)
    except (OSError, EOFError, UnicodeDecodeError, ValueError) as error:
        raise DataError(f"{path}: not rows of `frame id x y` ({error})") from error
    if rows.size == 0 or rows.shape[1] != 4:
        raise DataError(f"{path}: expected four columns `frame id x y`, found {rows.shape[1] if rows.size else 0}")
    if not np.isfinite(rows).all():
        raise DataError(f"{path}: row {int(np.argmin(np.isfinite(rows).all(1))) + 1} holds a value that is not finite")
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    keys, counts = np.unique(rows[:, :2], axis=0, return_counts=True)
    if (counts > 1).any():
        frame, agent = keys[np.argmax(counts > 1)]
        raise DataError(f"{path}: pedestrian {agent:g} is listed more than once in frame {frame:g}")
    return Recording(name, np.round(rows[:, 0]).astype(np.int64), np.round(rows[:, 1]).astype(np.int64), rows[:, 2:])


def windows(
    recording: Recording,
    protocol: Literal["agentformer", "sgan"],
    *,
    num_agents: int = 1,
    observed_frames: int = 8,
    future_frames: int = 12,
    frame_step: int = 10,
    scale: float = 1.0,
) -> list[TrajectoryRecord]:
    """Cuts a recording into samples.

    Args:
        recording: of any scene.
        protocol: "agentformer" or "sgan", see the head of this module.
        num_agents: N of the first; the second takes everybody.
        observed_frames: frames up to and with "now".
        future_frames: frames after it.
        frame_step: difference of two consecutive frame numbers.
        scale: places are divided by it.
    """
    match protocol:
        case "agentformer":
            index = (recording.frames - recording.frames.min()) // frame_step
            if ((recording.frames - recording.frames.min()) % frame_step).any():
                raise DataError(f"{recording.name}: frame numbers are not {frame_step} apart")
        case "sgan":
            index = np.unique(recording.frames, return_inverse=True)[1]
        case _:
            raise DataError(f"unknown protocol {protocol!r}; known are agentformer, sgan")
    length = observed_frames + future_frames
    first = {agent: row for row, agent in reversed(list(enumerate(recording.ids.tolist())))}
    agents = np.array(sorted(first, key=first.__getitem__))
    number = {agent: i for i, agent in enumerate(agents.tolist())}
    who = np.array([number[agent] for agent in recording.ids.tolist()])
    steps = int(index.max()) + 1
    if steps < length:
        return []
    places = np.full((len(agents), steps, 2), np.nan)
    places[who, index] = recording.places / scale
    there = np.asarray(np.isfinite(places[..., 0]))
    whole = np.all(np.lib.stride_tricks.sliding_window_view(there, length, axis=1), axis=-1)
    samples = []
    for start in np.flatnonzero(whole.any(0)):
        present = np.flatnonzero(whole[:, start])
        part = places[present, start : start + length].astype(np.float32)
        name = f"{recording.name} window {start}"
        if protocol == "sgan":
            if len(present) >= 2:
                samples.append(TrajectoryRecord(part, name=name, units="m"))
            continue
        for ego, others in _neighbours(part[:, observed_frames - 1] * scale, num_agents):
            judged = np.arange(1 + len(others)) == 0
            samples.append(
                TrajectoryRecord(
                    part[[ego, *others]], ego=judged, name=f"{name} pedestrian {agents[present[ego]]}", units="m"
                )
            )
    return samples


def load_pedestrians(
    scene: str,
    root: str | Path | None = None,
    *,
    protocol: Literal["agentformer", "sgan"] = "agentformer",
    test_scale: float = 1.0,
    num_agents: int | None = None,
    observed_frames: int = 8,
    future_frames: int = 12,
    sizes: Sequence[int] | None = None,
) -> TrajectoryData:
    """One of the five leave-one-scene-out splits.

    The recordings are looked for as `NAME.txt` or `NAME.txt.gz` below `root`, `root/eth_ucy` and
    `root/trajectories/eth_ucy`, else downloaded there; they carry no explicit licence and do not come with the package.

    Args:
        scene: "eth", "hotel", "univ", "zara1" or "zara2".
        root: data root.
        protocol: "agentformer" or "sgan".
        test_scale: divide test places by this (GeoTDM: 1.4 for eth; EqMotion: 1.6) and multiply errors back; 1 keeps
            metres.
        num_agents: pedestrians per sample under "agentformer"; default: the published number of the scene.
        observed_frames: 8 in every publication.
        future_frames: 12 in every publication.
        sizes: keep at most so many training, validation and test samples, evenly spread over the recordings.

    Raises:
        DataError: an unknown scene or protocol, damaged files, or files that are neither here nor reachable.
    """
    if scene not in SCENES:
        raise DataError(f"unknown scene {scene!r}; known are {', '.join(SCENES)}")
    if protocol not in ("agentformer", "sgan"):
        raise DataError(f"unknown protocol {protocol!r}; known are agentformer, sgan")
    if test_scale <= 0:
        raise DataError(f"test_scale must be positive, got {test_scale}")
    facts = SCENES[scene]
    agents = facts.num_agents if num_agents is None else num_agents
    if agents < 1:
        raise DataError(f"num_agents must be at least 1, got {agents}")

    def cut(recording: Recording, scale: float = 1.0) -> list[TrajectoryRecord]:
        return windows(
            recording,
            protocol,
            num_agents=agents,
            observed_frames=observed_frames,
            future_frames=future_frames,
            scale=scale,
        )

    train: list[TrajectoryRecord] = []
    validation: list[TrajectoryRecord] = []
    test: list[TrajectoryRecord] = []
    for name in RECORDINGS:
        recording = read_recording(_find(name, root))
        if name in facts.test:
            test += cut(recording, test_scale)
        else:
            early, late = recording.split()
            train += cut(early)
            validation += cut(late)
    parts = [train, validation, test]
    if sizes is not None:
        if len(sizes) != 3 or min(sizes) < 1:
            raise DataError(f"sizes must be three positive numbers (train, validation, test), got {tuple(sizes)}")
        parts = [spread(part, size) for part, size in zip(parts, sizes, strict=True)]
    unit = "one pedestrian per sample judged" if protocol == "agentformer" else "all pedestrians of a window judged"
    company = f"up to {agents} pedestrian(s) per sample" if protocol == "agentformer" else "at least 2 pedestrians"
    return TrajectoryData(
        name=scene,
        train=parts[0],
        validation=parts[1],
        test=parts[2],
        observed_frames=observed_frames,
        protocol=f"ETH/UCY {scene}, protocol {protocol}: leave one scene out, {len(parts[0])}/{len(parts[1])}/"
        f"{len(parts[2])} windows, {company}, {unit}, {observed_frames} -> {future_frames} frames of 0.4 s, metres, "
        f"test_scale {test_scale:g}",
        units="m",
        kind="pedestrians",
        test_scale=test_scale,
        licence="recordings by ETH (Pellegrini et al. 2009) and UCY (Lerner et al. 2007); no explicit licence",
    )


def _neighbours(now: NDArray[np.floating], num_agents: int) -> Iterator[tuple[int, list[int]]]:
    count = len(now)
    distances = np.linalg.norm(now[:, None] - now[None], axis=-1)
    for ego in range(count):
        others = [i for i in range(count) if i != ego]
        if count >= num_agents:
            near = [i for i in others if distances[ego, i] <= _REACH]
            others = sorted(near, key=lambda i: distances[ego, i])[: num_agents - 1]
        yield ego, others


def _find(name: str, root: str | Path | None) -> Path:
    base = data_root(root)
    for folder in (base, base / "eth_ucy", base / "trajectories" / "eth_ucy"):
        for path in (folder / f"{name}.txt", folder / f"{name}.txt.gz"):
            if path.is_file():
                return path
    file = RemoteFile(f"trajectories/eth_ucy/{name}.txt", (f"{_ADDRESS}{name}.txt",), RECORDINGS[name])
    return fetch(file, root)
