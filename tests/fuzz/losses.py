"""Batches of losses by their seed, in one mode."""

import traceback
from dataclasses import replace

import numpy as np

from tests.fuzz.judge import Verdict, judge
from tests.fuzz.layouts import Laid, lay_out
from tests.fuzz.modes import MODES, Runner
from tests.fuzz.scenes import Scene, draw_scene
from tests.fuzz.setups import COMPILED, EXPORTED, Setup, any_setup

FIXED = {"compiled": COMPILED, "exported": EXPORTED, "onnx": EXPORTED}


class Losses:
    """A function of a seed; what was compiled or exported is kept for other batches of the same setup."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.runners: dict[Setup, Runner] = {}

    def draw(self, seed: int) -> tuple[str, Setup, Scene, Laid]:
        """The batch in words, what is prepared for it, and the batch."""
        rng = np.random.default_rng(seed)
        setup = self._setup(seed, rng)
        scene = draw_scene(self._resized(setup, rng), rng)
        layout, laid = lay_out(setup, scene.rows, rng)
        words = f"{scene.setup} {layout}: {scene.drawn}, {len(scene.rows.image)} rows"
        return words, setup, scene, laid

    def __call__(self, seed: int) -> tuple[str, Verdict]:
        words, setup, scene, laid = self.draw(seed)
        try:
            outcome = self._runner(setup)(scene, laid[0])
        except Exception as error:
            return words, Verdict(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
        return words, judge(scene, laid, outcome)

    def _setup(self, seed: int, rng: np.random.Generator) -> Setup:
        fixed = FIXED.get(self.mode)
        return any_setup(rng) if fixed is None else fixed[seed % len(fixed)]

    def _resized(self, setup: Setup, rng: np.random.Generator) -> Setup:
        """Exported graphs take batches of any size."""
        return replace(setup, batch_size=int(rng.integers(1, 4))) if self.mode in ("exported", "onnx") else setup

    def _runner(self, setup: Setup) -> Runner:
        if self.mode == "eager":
            return MODES[self.mode](setup)
        if setup not in self.runners:
            self.runners[setup] = MODES[self.mode](setup)
        return self.runners[setup]
