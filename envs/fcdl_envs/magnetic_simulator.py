"""
The Magnetic simulator, apart from its Gym class: a robot arm, a ball and a magnetic box on a table, in MuJoCo.

Importing this module chooses EGL for rendering where there is no display, unless ``MUJOCO_GL`` says otherwise.
"""

import ctypes.util
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from fcdl_envs.magnetic_task import STEP_SIZE

# MuJoCo chooses its OpenGL when it is imported, and cannot be imported at all if MUJOCO_GL names one that is missing.
_HAS_DISPLAY = "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
if sys.platform == "linux" and "MUJOCO_GL" not in os.environ and not _HAS_DISPLAY and ctypes.util.find_library("EGL"):
    os.environ["MUJOCO_GL"] = "egl"

try:
    import mujoco
except ModuleNotFoundError as error:
    if error.name != "mujoco":
        raise
    raise ImportError('FCDL/Magnetic-v0 needs MuJoCo: pip install "sb3_fcdl[magnetic]"') from error

BLACK, RED = 0, 1
BALL_RADIUS = 0.03  # [m]
WORKSPACE = np.array([[-0.27, -0.42, 0.80], [0.27, 0.42, 1.05]])  # [m], where the target may be
N_SUBSTEPS = 10  # of 5 ms each: 20 steps a second
IMAGE_SIZE = 480

_STATE = mujoco.mjtState.mjSTATE_INTEGRATION
_RGBA = {BLACK: (0.12, 0.12, 0.13, 1.0), RED: (0.85, 0.12, 0.10, 1.0)}


class MagneticSimulator:
    """
    The physics. All positions are in metres, all velocities in metres a second.

    It is its own perfect model: a planner calls :meth:`set_state` with what :meth:`get_state` returned, then :meth:`step`, as
    often as it likes. That costs little more than the step does.
    """

    def __init__(self) -> None:
        self.model = mujoco.MjModel.from_xml_path(str(Path(__file__).with_name("magnetic.xml")))
        self.data = mujoco.MjData(self.model)
        # Views into the data, which stay valid as long as it lives.
        self._eef = self.data.site("eef").xpos
        self._ball, self._ball_velocity = self.data.joint("ball").qpos, self.data.joint("ball").qvel
        self._box = self.data.mocap_pos[0]
        self._target, self._magnet = self.data.ctrl[:3], self.data.ctrl[6:]
        self._state_size = mujoco.mj_stateSize(self.model, _STATE)
        self._renderer: Any = None
        self.reset(BLACK, BLACK, np.zeros(2), np.zeros(2), np.zeros(2), np.zeros(6))

    @property
    def ball_color(self) -> int:
        return int(self.data.userdata[0])

    @property
    def box_color(self) -> int:
        return int(self.data.userdata[1])

    @property
    def is_magnetic(self) -> bool:
        """Whether the box pulls the ball: both are red."""
        return bool(self._magnet[0])

    @property
    def ball_position(self) -> np.ndarray:
        """``[2]``, x and y"""
        return self._ball[:2].copy()

    @property
    def ball_velocity(self) -> np.ndarray:
        """``[2]``, x and y"""
        return self._ball_velocity[:2].copy()

    @property
    def box_position(self) -> np.ndarray:
        """``[2]``, x and y"""
        return self._box[:2].copy()

    @property
    def eef_position(self) -> np.ndarray:
        """Of the end effector, ``[3]``"""
        return self._eef.copy()

    def reset(
        self,
        ball_color: int,
        box_color: int,
        ball_position: np.ndarray,
        ball_velocity: np.ndarray,
        box_position: np.ndarray,
        joint_offsets: np.ndarray,
    ) -> None:
        """
        Starts anew.

        :param ball_color: ``BLACK`` or ``RED``
        :param box_color: likewise
        :param ball_position: ``[2]``
        :param ball_velocity: ``[2]``; it rolls without slipping
        :param box_position: ``[2]``
        :param joint_offsets: how far the arm's joints are from home, ``[6]``, in radians
        """
        mujoco.mj_resetDataKeyframe(self.model, self.data, 0)
        self.data.qpos[:6] += joint_offsets
        self._ball[:2] = ball_position
        self._ball_velocity[:2] = ball_velocity
        self._ball_velocity[3:5] = -ball_velocity[1] / BALL_RADIUS, ball_velocity[0] / BALL_RADIUS
        self._box[:2] = box_position
        self.data.userdata[:] = ball_color, box_color
        self._magnet[:] = ball_color == box_color == RED
        mujoco.mj_kinematics(self.model, self.data)

    def step(self, action: np.ndarray) -> None:
        """
        Moves the end effector for 50 ms.

        The target is ``STEP_SIZE`` times the action away from where the end effector is, not from the last target: that keeps
        the positions nearly Markov.

        :param action: ``[3]``, clipped to -1 .. 1
        """
        # a quarter of the time of np.clip
        action = np.minimum(np.maximum(action, -1.0), 1.0)
        self._target[:] = np.minimum(np.maximum(self._eef + STEP_SIZE * action, WORKSPACE[0]), WORKSPACE[1])
        mujoco.mj_step(self.model, self.data, N_SUBSTEPS)
        # mj_step leaves the sites where they were before its last substep
        mujoco.mj_kinematics(self.model, self.data)

    def get_state(self) -> np.ndarray:
        """All that decides how the physics goes on, colours included, ``[S]`` float64."""
        state = np.empty(self._state_size)
        mujoco.mj_getState(self.model, self.data, state, _STATE)
        return state

    def set_state(self, state: np.ndarray) -> None:
        """Goes on from what :meth:`get_state` returned, here or in another simulator."""
        mujoco.mj_setState(self.model, self.data, state, _STATE)
        mujoco.mj_kinematics(self.model, self.data)

    def render(self, camera: str) -> np.ndarray:
        """
        A picture of the scene.

        :param camera: ``front`` or ``top``
        :return: ``[480, 480, 3]`` uint8
        :raises RuntimeError: if there is no OpenGL to render with
        """
        if self._renderer is None:
            self._renderer = self._make_renderer()
        self.model.geom("ball").rgba[:] = _RGBA[self.ball_color]
        self.model.geom("box").rgba[:] = _RGBA[self.box_color]
        # what mj_resetData and mj_setState do not place; mj_forward would change how the physics goes on
        mujoco.mj_camlight(self.model, self.data)
        self._renderer.update_scene(self.data, camera)
        return self._renderer.render()

    def close(self) -> None:
        """Frees what rendering took."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _make_renderer(self) -> Any:
        try:
            return mujoco.Renderer(self.model, IMAGE_SIZE, IMAGE_SIZE)
        except Exception as error:  # each OpenGL fails in its own way
            raise RuntimeError(
                f"MuJoCo cannot render with MUJOCO_GL={os.environ.get('MUJOCO_GL', '')!r}: {error}. Without a display it "
                "needs EGL; on Debian: apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri. If EGL is there, set "
                "MUJOCO_GL=egl before the first import of mujoco."
            ) from error

    def __getstate__(self) -> np.ndarray:
        # views and renderers do not survive pickling
        return self.get_state()

    def __setstate__(self, state: np.ndarray) -> None:
        self.__init__()  # type: ignore[misc]
        self.set_state(state)
