"""The tasks: what each asks for, and its named quantities that a reward function may read.

A task is one entry of a plain dict. To add one, add an entry to `TASKS` below, or write a file with a `TASKS` of your
own and name it with ``--task_file``. An entry has these fields:

description         what has to be done, in plain language
success             what counts as done, in words, with the axis and the threshold
success_expression  the same as Python over the variables, true when the task is done; it alone decides, whatever the
                    environment reports. A task without a success criterion has neither, and needs --fitness return
variables           the variables that the task has besides its environment's usual ones (see below)
make                how to make the environment: the name of a MetaWorld task, the id of a Gymnasium environment, or a
                    function of `render_mode` that returns one; if left out, the entry's own name is used
human_reward        the source of a human-designed `compute_reward`, if there is one; left out for MetaWorld, where it
                    is taken from the installed package
scene               what a prompt says about the robot and its surroundings, in place of the text for MetaWorld's arm

A variable is a dict, too: `read` (a Python expression over `env`, the unwrapped environment, and `obs`, the
observation after the step, both in float64), `unit` ("m"), `meaning` (in words), `role` (see `tasks.task.ROLES`;
"other"), `aliases` (other names for it) and `at` ("step", or "reset" for a value that is read once, when the episode
begins). A string instead of a dict gives a new meaning to a variable that the task has anyway.

An environment must follow the Gymnasium API, which is checked by one reset and one step: its action space is a Box
with finite bounds, to which actions in [-1, 1] are rescaled, and its observations are numbers. Dict and Tuple
observations are flattened, in the order of `gymnasium.spaces.flatten`; `obs` is the flat vector. A task file may
import the modules next to it.

``python task_specs.py`` lists the tasks, ``python task_specs.py TASK`` shows the variables of one with a live value.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # our modules come first, whatever PYTHONPATH and PYTHONSAFEPATH say
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from workers.packages import require_packages

    require_packages()

import argparse
import functools
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from errors import UsageError, nearest
from tasks.entry import build
from tasks.names import without_version
from tasks.task import ROLES, HumanReward, Input, Task, Variable
from tasks.task_file import load_task_file

__all__ = ["METAWORLD_VARIABLES", "ROLES", "TASKS", "HumanReward", "Input", "Task", "Variable", "get_task"]

# The variables that every MetaWorld task has, under the same names in all of them.
METAWORLD_VARIABLES: dict[str, dict[str, Any]] = {
    "tcp_center": {
        "read": "env.tcp_center",
        "meaning": "the point between the two fingertips",
        "role": "gripper",
        "aliases": ["tcp"],
    },
    "hand": {
        "read": "obs[:3]",
        "meaning": "the robot's hand, about 0.045 above the fingertips",
    },
    "gripper_opening": {
        "read": "obs[3]",
        "unit": "0 to 1",
        "meaning": "how far the gripper is open: 0 closed, 1 wide open",
        "role": "opening",
        "aliases": ["tcp_opened", "tcp_open"],
    },
    "left_pad": {"read": "env.get_body_com('leftpad')", "meaning": "the left finger's pad", "role": "pad"},
    "right_pad": {"read": "env.get_body_com('rightpad')", "meaning": "the right finger's pad", "role": "pad"},
    "obj": {
        "read": "obs[4:7]",
        "meaning": "the object",
        "role": "object",
    },
    "target": {
        "read": "env._target_pos",
        "meaning": "where the object has to go",
        "role": "goal",
        "aliases": ["_target_pos", "target_pos"],
    },
    "init_tcp": {
        "read": "env.init_tcp",
        "meaning": "where tcp_center was when the episode began",
        "role": "gripper_start",
    },
    "init_left_pad": {
        "read": "env.get_body_com('leftpad')",
        "meaning": "where left_pad was when the episode began",
        "role": "pad_start",
        "at": "reset",
    },
    "init_right_pad": {
        "read": "env.get_body_com('rightpad')",
        "meaning": "where right_pad was when the episode began",
        "role": "pad_start",
        "at": "reset",
    },
    "obj_init_pos": {
        "read": "env._get_pos_objects()[:3]",
        "meaning": "where obj was when the episode began",
        "role": "object_start",
        "at": "reset",
    },
}

# Variables that several tasks share, but not all.
_OBJ_INIT_POS = {"read": "env.obj_init_pos"}
_OBJ_QUAT = {"read": "obs[7:11]", "unit": "quaternion", "meaning": "how obj is turned"}
_HAND_INIT_POS = {"read": "env.hand_init_pos", "meaning": "where the hand is sent before the episode begins"}
_PRESS = {
    "obj_to_target_init": {
        "read": "env._obj_to_target_init",
        "meaning": "how far the button had to go when the episode began",
    }
}
_CABINET_POS = {
    "read": "env.obj_init_pos",
    "meaning": "the place in the cabinet that the environment takes for the plate's start; 0.1 from where it was",
}
_REACH = {
    "obj": "an object that does not matter",
    "target": "where the gripper has to go",
    "hand_init_pos": _HAND_INIT_POS,
}
_STICK = {
    "obj": {"meaning": "the stick", "aliases": ["stick"]},
    "obj_init_pos": {"read": "env.stick_init_pos", "aliases": ["stick_init_pos"]},
    "container_init_pos": {
        "read": "env.obj_init_pos",
        "meaning": "where the flask's middle was when the episode began",
    },
}
_WINDOW_HANDLE_POS_INIT = {
    "read": "env.window_handle_pos_init",
    "meaning": "the environment's own note of where the handle was when the episode began; rough",
}

TASKS: dict[str, dict[str, Any]] = {
    "assembly": {
        "description": "Pick up the wrench by its handle and put its ring over the upright peg.",
        "success": "The ring's centre is less than 0.02 m from the target in x and y, and lower than the target in z.",
        "success_expression": "np.linalg.norm((nut_center - target)[:2]) < 0.02 and nut_center[2] < target[2]",
        "variables": {
            "obj": "the wrench's handle",
            "obj_quat": _OBJ_QUAT,
            "target": "the top of the peg",
            "nut_center": {
                "read": "env.data.site('RoundNut').xpos",
                "meaning": "the centre of the wrench's ring",
                "role": "object",
            },
            "nut_init_pos": {
                "read": "env.obj_init_pos",
                "meaning": "where the ring's centre was when the episode began",
            },
        },
    },
    "basketball": {
        "description": "Pick up the basketball and drop it through the hoop.",
        "success": (
            "The ball is within 0.08 m of the point 0.3 m above the floor at the target's x and y, "
            "the difference in z counted twice."
        ),
        "success_expression": (
            "np.linalg.norm((obj - np.array([target[0], target[1], 0.3])) * np.array([1.0, 1.0, 2.0])) <= 0.08"
        ),
        "variables": {
            "obj": "the ball",
            "obj_init_pos": _OBJ_INIT_POS,
            "target": "the hoop",
        },
    },
    "bin-picking": {
        "description": "Pick up the small block in the left bin and put it into the right bin.",
        "success": "The block is within 0.05 m of the target.",
        "success_expression": "np.linalg.norm(obj - target) <= 0.05",
        "variables": {
            "obj": "the block",
            "obj_init_pos": _OBJ_INIT_POS,
            "target": "the middle of the right bin",
            "target_to_obj_init": {
                "read": "env._target_to_obj_init",
                "meaning": "the distance from obj to target after the episode's first step",
            },
        },
    },
    "box-close": {
        "description": "Pick up the lid by its knob and put it on the open box.",
        "success": "The lid is less than 0.08 m from the target.",
        "success_expression": "np.linalg.norm(obj - target) < 0.08",
        "variables": {
            "obj": "the lid",
            "obj_quat": _OBJ_QUAT,
            "target": "where the lid closes the box",
        },
    },
    "button-press": {
        "description": "Press the button on the front of the box, away from the robot.",
        "success": "The button is within 0.02 m of the target along y; x and z do not count.",
        "success_expression": "abs(obj[1] - target[1]) <= 0.02",
        "variables": {"obj": "the button's face", "target": "where the face of the pressed button is"} | _PRESS,
    },
    "button-press-topdown": {
        "description": "Press the button on the top of the box, downwards.",
        "success": "The button is within 0.024 m of the target along z; x and y do not count.",
        "success_expression": "abs(obj[2] - target[2]) <= 0.024",
        "variables": {"obj": "the button's face", "target": "where the face of the pressed button is"} | _PRESS,
    },
    "button-press-topdown-wall": {
        "description": "Reach over the wall and press the button on the top of the box, downwards.",
        "success": "The button is within 0.024 m of the target along z; x and y do not count.",
        "success_expression": "abs(obj[2] - target[2]) <= 0.024",
        "variables": {"obj": "the button's face", "target": "where the face of the pressed button is"} | _PRESS,
    },
    "button-press-wall": {
        "description": "Reach around the wall and press the button on the front of the box, away from the robot.",
        "success": "The button is within 0.03 m of the target along y; x and z do not count.",
        "success_expression": "abs(obj[1] - target[1]) <= 0.03",
        "variables": {"obj": "the button's face", "target": "where the face of the pressed button is"} | _PRESS,
    },
    "coffee-button": {
        "description": "Press the button on the front of the coffee machine, away from the robot.",
        "success": "The button is within 0.02 m of the target along y; x and z do not count.",
        "success_expression": "abs(obj[1] - target[1]) <= 0.02",
        "variables": {"obj": "the button's face", "target": "where the face of the pressed button is"},
    },
    "coffee-pull": {
        "description": "Take the mug from under the coffee machine and move it to the target on the table.",
        "success": "The mug is within 0.07 m of the target.",
        "success_expression": "np.linalg.norm(obj - target) <= 0.07",
        "variables": {"obj": "the mug", "obj_init_pos": _OBJ_INIT_POS, "target": "where the mug has to go"},
    },
    "coffee-push": {
        "description": "Move the mug over the table to the target under the coffee machine.",
        "success": "The mug is within 0.07 m of the target.",
        "success_expression": "np.linalg.norm(obj - target) <= 0.07",
        "variables": {"obj": "the mug", "obj_init_pos": _OBJ_INIT_POS, "target": "where the mug has to go"},
    },
    "dial-turn": {
        "description": "Turn the dial that lies on the table by half a turn, pushing its knob.",
        "success": "The knob is within 0.07 m of the target.",
        "success_expression": "np.linalg.norm(obj - target) <= 0.07",
        "variables": {
            "obj": "the knob on the dial's rim",
            "target": "where the knob has to go",
            "dial_push_position": {
                "read": "env.dial_push_position",
                "meaning": "the environment's own note of where to push when the episode began; rough",
            },
        },
    },
    "disassemble": {
        "description": "Lift the wrench by its handle until its ring is off the upright peg.",
        "success": "The handle is higher than the target along z; x and y do not count.",
        "success_expression": "obj[2] > target[2]",
        "variables": {
            "obj": "the wrench's handle",
            "obj_quat": _OBJ_QUAT,
            "target": "a point above the peg's top; only its z says how high the handle has to go",
            "nut_center": {
                "read": "env.data.site('RoundNut').xpos",
                "meaning": "the centre of the wrench's ring",
                "role": "object",
            },
            "nut_init_pos": {
                "read": "env.obj_init_pos",
                "meaning": "where the ring's centre was when the episode began",
            },
        },
    },
    "door-close": {
        "description": "Push the open door until it is closed.",
        "success": "The handle is within 0.08 m of the target.",
        "success_expression": "np.linalg.norm(obj - target) <= 0.08",
        "variables": {
            "obj": "the door's handle",
            "target": "where the handle of the closed door is",
            "door_pos": {"read": "env.obj_init_pos", "meaning": "where the door stands"},
            "hand_init_pos": _HAND_INIT_POS,
        },
    },
    "door-lock": {
        "description": "Lock the door by turning its lock downwards.",
        "success": "The lock is within 0.02 m of the target along z; x and y do not count.",
        "success_expression": "abs(obj[2] - target[2]) <= 0.02",
        "variables": {
            "obj": "the end of the lock's lever",
            "target": "where that end is when the door is locked; only its z counts",
        },
    },
    "door-open": {
        "description": "Open the door by its handle, pulling it towards the robot.",
        "success": "The handle is within 0.08 m of the target along x; y and z do not count.",
        "success_expression": "abs(obj[0] - target[0]) <= 0.08",
        "variables": {
            "obj": "the door's handle",
            "target": "where the handle of the wide open door is; only its x counts",
            "door_angle": {
                "read": "env.data.joint('doorjoint').qpos.item()",
                "unit": "rad",
                "meaning": "the angle at the door's hinge: 0 closed, negative the further it is open",
            },
        },
    },
    "door-unlock": {
        "description": "Unlock the door by turning its lock to the right.",
        "success": "The lock is within 0.02 m of the target along x; y and z do not count.",
        "success_expression": "abs(obj[0] - target[0]) <= 0.02",
        "variables": {
            "obj": "the end of the lock's lever",
            "target": "where that end is when the door is unlocked; only its x counts",
            "lock_pos": {
                "read": "env.obj_init_pos",
                "meaning": "the lock's axle, which stays where it is",
            },
        },
    },
    "drawer-close": {
        "description": "Push the open drawer until it is closed.",
        "success": "The handle is within 0.065 m of the target.",
        "success_expression": "np.linalg.norm(obj - target) <= 0.065",
        "variables": {
            "obj": "the drawer's handle",
            "obj_init_pos": _OBJ_INIT_POS,
            "target": "where the handle of the closed drawer is",
        },
    },
    "drawer-open": {
        "description": "Pull the drawer open by its handle.",
        "success": "The handle is within 0.03 m of the target.",
        "success_expression": "np.linalg.norm(obj - target) <= 0.03",
        "variables": {"obj": "the drawer's handle", "target": "where the handle of the open drawer is"},
    },
    "faucet-close": {
        "description": "Turn the faucet's handle clockwise, seen from above, to close it.",
        "success": "The handle's end is within 0.07 m of the target.",
        "success_expression": "np.linalg.norm(obj - target) <= 0.07",
        "variables": {
            "obj": "the end of the faucet's handle",
            "target": "where that end is when the faucet is closed",
            "faucet_pos": {"read": "env.obj_init_pos", "meaning": "where the faucet stands"},
        },
    },
    "faucet-open": {
        "description": "Turn the faucet's handle counter-clockwise, seen from above, to open it.",
        "success": "The handle's end, moved by (-0.04, 0, 0.03), is within 0.07 m of the target.",
        "success_expression": "np.linalg.norm(obj + np.array([-0.04, 0.0, 0.03]) - target) <= 0.07",
        "variables": {
            "obj": "the end of the faucet's handle",
            "target": "where that end is when the faucet is open",
            "faucet_pos": {"read": "env.obj_init_pos", "meaning": "where the faucet stands"},
        },
    },
    "hammer": {
        "description": "Pick up the hammer by its handle and drive the nail into the upright board with it.",
        "success": "The nail is more than 0.09 m deep in the board.",
        "success_expression": "nail_depth > 0.09",
        "variables": {
            "obj": "the hammer's handle",
            "obj_quat": _OBJ_QUAT,
            "obj_init_pos": _OBJ_INIT_POS,
            "target": "where the nail's head has to go",
            "nail": {"read": "obs[11:14]", "meaning": "the nail", "role": "object"},
            "nail_depth": {
                "read": "env.data.joint('NailSlideJoint').qpos.item()",
                "meaning": "how deep the nail has been driven into the board",
            },
        },
    },
    "hand-insert": {
        "description": "Push the block on the table into the hole.",
        "success": "The block is within 0.05 m of the target.",
        "success_expression": "np.linalg.norm(obj - target) <= 0.05",
        "variables": {"obj": "the block", "obj_init_pos": _OBJ_INIT_POS, "target": "a point in the hole"},
    },
    "handle-press": {
        "description": "Press the handle in front of the robot down.",
        "success": "The handle is within 0.02 m of the target along z; x and y do not count.",
        "success_expression": "abs(obj[2] - target[2]) <= 0.02",
        "variables": {
            "obj": "the handle",
            "obj_init_pos": {"read": "env._handle_init_pos"},
            "target": "where the handle is when it is down",
        },
    },
    "handle-press-side": {
        "description": "Press the handle at the robot's side down.",
        "success": "The handle is within 0.02 m of the target along z; x and y do not count.",
        "success_expression": "abs(obj[2] - target[2]) <= 0.02",
        "variables": {
            "obj": "the handle",
            "obj_init_pos": {"read": "env._handle_init_pos"},
            "target": "where the handle is when it is down",
        },
    },
    "handle-pull": {
        "description": "Pull the handle in front of the robot up.",
        "success": "The handle is within 0.05 m of the target along z; x and y do not count.",
        "success_expression": "abs(obj[2] - target[2]) <= 0.05",
        "variables": {
            "obj": "the handle",
            "target": "where the handle is when it is up",
            "box_pos": {"read": "env.obj_init_pos", "meaning": "where the box that holds the handle stands"},
        },
    },
    "handle-pull-side": {
        "description": "Pull the handle at the robot's side up.",
        "success": "The handle is within 0.08 m of the target.",
        "success_expression": "np.linalg.norm(obj - target) <= 0.08",
        "variables": {
            "obj": "the handle",
            "obj_init_pos": _OBJ_INIT_POS,
            "target": "where the handle is when it is up",
        },
    },
    "lever-pull": {
        "description": "Push the lever up from below until it stands upright.",
        "success": "The lever's angle is within pi / 24 rad (7.5 degrees) of upright.",
        "success_expression": "abs(lever_angle + np.pi / 2) <= np.pi / 24",
        "variables": {
            "obj": "the lever's end",
            "obj_init_pos": {"read": "env._lever_pos_init"},
            "target": "where the lever's end is when it stands upright",
            "lever_angle": {
                "read": "env.data.joint('LeverAxis').qpos.item()",
                "unit": "rad",
                "meaning": "the lever's angle: 0 level, -pi / 2 upright",
            },
        },
    },
    "peg-insert-side": {
        "description": "Pick up the peg and push its head into the hole in the side of the box.",
        "success": "The peg's head is within 0.07 m of the target, the differences in y and z counted twice.",
        "success_expression": "np.linalg.norm((peg_head - target) * np.array([1.0, 2.0, 2.0])) <= 0.07",
        "variables": {
            "obj": "the peg, where it is to be grasped",
            "obj_init_pos": {
                "read": "env.obj_init_pos",
                "meaning": "where the peg's middle was when the episode began",
            },
            "target": "where the peg's head has to go, in the hole",
            "peg_head": {"read": "env.data.site('pegHead').xpos", "meaning": "the peg's head", "role": "object"},
            "peg_head_pos_init": {
                "read": "env.peg_head_pos_init",
                "meaning": "the environment's own note of where the peg's head was when the episode began; rough",
            },
        }
        | {
            f"{corner}_{box}": {
                "read": f"env.data.site('{corner}_collision_box_{box}').xpos",
                "meaning": f"the {corner.replace('_', ' ')} of region {box} before the hole, where the peg would jam",
            }
            for box in (1, 2)
            for corner in ("bottom_right_corner", "top_left_corner")
        },
    },
    "peg-unplug-side": {
        "description": "Pull the peg out of the hole in the side of the box.",
        "success": "The peg's end is within 0.07 m of the target.",
        "success_expression": "np.linalg.norm(obj - target) <= 0.07",
        "variables": {"obj": "the peg's end", "obj_init_pos": _OBJ_INIT_POS, "target": "where the peg's end has to go"},
    },
    "pick-out-of-hole": {
        "description": "Pick the block out of the hole and move it to the target in the air.",
        "success": "The block is within 0.07 m of the target.",
        "success_expression": "np.linalg.norm(obj - target) <= 0.07",
        "variables": {"obj": "the block", "obj_init_pos": _OBJ_INIT_POS, "target": "where the block has to go"},
    },
    "pick-place": {
        "description": "Pick up the puck and move it to the target, which may be in the air.",
        "success": "The puck is within 0.07 m of the target.",
        "success_expression": "np.linalg.norm(obj - target) <= 0.07",
        "variables": {"obj": "the puck", "obj_init_pos": _OBJ_INIT_POS, "target": "where the puck has to go"},
    },
    "pick-place-wall": {
        "description": "Pick up the puck, lift it over the wall and move it to the target, which may be in the air.",
        "success": "The puck is within 0.07 m of the target.",
        "success_expression": "np.linalg.norm(obj - target) <= 0.07",
        "variables": {"obj": "the puck", "obj_init_pos": _OBJ_INIT_POS, "target": "where the puck has to go"},
    },
    "plate-slide": {
        "description": "Slide the plate over the table into the cabinet in front of it.",
        "success": "The plate is within 0.07 m of the target.",
        "success_expression": "np.linalg.norm(obj - target) <= 0.07",
        "variables": {"obj": "the plate", "obj_init_pos": _OBJ_INIT_POS, "target": "where the plate has to go"},
    },
    "plate-slide-back": {
        "description": "Slide the plate out of the cabinet, over the table towards the robot.",
        "success": "The plate is within 0.07 m of the target.",
        "success_expression": "np.linalg.norm(obj - target) <= 0.07",
        "variables": {"obj": "the plate", "target": "where the plate has to go", "cabinet_pos": _CABINET_POS},
    },
    "plate-slide-back-side": {
        "description": "Slide the plate sideways out of the cabinet.",
        "success": "The plate is within 0.07 m of the target.",
        "success_expression": "np.linalg.norm(obj - target) <= 0.07",
        "variables": {"obj": "the plate", "target": "where the plate has to go", "cabinet_pos": _CABINET_POS},
    },
    "plate-slide-side": {
        "description": "Slide the plate sideways over the table into the cabinet.",
        "success": "The plate is within 0.07 m of the target.",
        "success_expression": "np.linalg.norm(obj - target) <= 0.07",
        "variables": {"obj": "the plate", "obj_init_pos": _OBJ_INIT_POS, "target": "where the plate has to go"},
    },
    "push": {
        "description": "Push the puck over the table to the target.",
        "success": "The puck is within 0.05 m of the target.",
        "success_expression": "np.linalg.norm(obj - target) <= 0.05",
        "variables": {"obj": "the puck", "obj_init_pos": _OBJ_INIT_POS, "target": "where the puck has to go"},
    },
    "push-back": {
        "description": "Pull the block over the table to the target, towards the robot.",
        "success": "The block is within 0.07 m of the target.",
        "success_expression": "np.linalg.norm(obj - target) <= 0.07",
        "variables": {"obj": "the block", "obj_init_pos": _OBJ_INIT_POS, "target": "where the block has to go"},
    },
    "push-wall": {
        "description": "Push the puck around the wall to the target on the table.",
        "success": "The puck is within 0.07 m of the target.",
        "success_expression": "np.linalg.norm(obj - target) <= 0.07",
        "variables": {"obj": "the puck", "obj_init_pos": _OBJ_INIT_POS, "target": "where the puck has to go"},
    },
    "reach": {
        "description": "Move the gripper to the target in the air. The object on the table does not matter.",
        "success": "The point between the fingertips is within 0.05 m of the target.",
        "success_expression": "np.linalg.norm(tcp_center - target) <= 0.05",
        "variables": _REACH,
    },
    "reach-wall": {
        "description": "Move the gripper around the wall to the target. The object on the table does not matter.",
        "success": "The point between the fingertips is within 0.05 m of the target.",
        "success_expression": "np.linalg.norm(tcp_center - target) <= 0.05",
        "variables": _REACH,
    },
    "shelf-place": {
        "description": "Pick up the block and put it on the shelf.",
        "success": "The block is within 0.07 m of the target.",
        "success_expression": "np.linalg.norm(obj - target) <= 0.07",
        "variables": {"obj": "the block", "obj_init_pos": _OBJ_INIT_POS, "target": "a point on the shelf"},
    },
    "soccer": {
        "description": "Push the ball into the goal.",
        "success": "The ball is within 0.07 m of the target.",
        "success_expression": "np.linalg.norm(obj - target) <= 0.07",
        "variables": {"obj": "the ball", "obj_init_pos": _OBJ_INIT_POS, "target": "a point in the goal"},
    },
    "stick-pull": {
        "description": "Pick up the stick, put its end through the thermos flask's handle and pull the flask with it.",
        "success": (
            "The flask's handle is within 0.12 m of the target, and the stick is in the handle: its end is at least as "
            "far along x as the handle, within 0.04 m of it along y and within 0.06 m along z."
        ),
        "success_expression": (
            "np.linalg.norm(container - target) <= 0.12 and stick_end[0] >= container[0] "
            "and abs(stick_end[1] - container[1]) <= 0.04 and abs(stick_end[2] - container[2]) <= 0.06"
        ),
        "variables": _STICK
        | {
            "container": {"read": "obs[11:14]", "meaning": "the handle of the thermos flask", "role": "object"},
            "target": "where the flask's handle has to go",
            "stick_end": {"read": "env.data.site('stick_end').xpos", "meaning": "the end of the stick"},
        },
    },
    "stick-push": {
        "description": "Pick up the stick and push the thermos flask to the target with it.",
        "success": (
            "The flask is within 0.12 m of the target while the stick is held: both pads press on it, the gripper is "
            "not shut, and the stick is more than 0.01 m above its start along z."
        ),
        "success_expression": (
            "np.linalg.norm(container - target) <= 0.12 and stick_touched > 0 and gripper_opening > 0 "
            "and obj[2] - 0.01 > obj_init_pos[2]"
        ),
        "variables": _STICK
        | {
            "container": {"read": "obs[11:14]", "meaning": "the thermos flask", "role": "object"},
            "target": "where the flask has to go",
            "stick_touched": {
                "read": "env.touching_main_object",
                "unit": "0 or 1",
                "meaning": "whether both of the gripper's pads press on the stick",
            },
        },
    },
    "sweep": {
        "description": "Sweep the block over the table to the target off its right edge.",
        "success": "The block is within 0.05 m of the target.",
        "success_expression": "np.linalg.norm(obj - target) <= 0.05",
        "variables": {"obj": "the block", "obj_init_pos": _OBJ_INIT_POS, "target": "where the block has to go"},
    },
    "sweep-into": {
        "description": "Sweep the block over the table into the hole.",
        "success": "The block is within 0.05 m of the target in x and y; z does not count.",
        "success_expression": "np.linalg.norm((obj - target)[:2]) <= 0.05",
        "variables": {"obj": "the block", "obj_init_pos": _OBJ_INIT_POS, "target": "the hole"},
    },
    "window-close": {
        "description": "Push the window's handle to the left until the sliding window is closed.",
        "success": "The handle is within 0.05 m of the target along x; y and z do not count.",
        "success_expression": "abs(obj[0] - target[0]) <= 0.05",
        "variables": {
            "obj": "the window's handle",
            "target": "the closed window; only its x says where the handle has to go",
            "window_handle_pos_init": _WINDOW_HANDLE_POS_INIT,
        },
    },
    "window-open": {
        "description": "Push the window's handle to the right until the sliding window is open.",
        "success": "The handle is within 0.05 m of the target along x; y and z do not count.",
        "success_expression": "abs(obj[0] - target[0]) <= 0.05",
        "variables": {
            "obj": "the window's handle",
            "target": "the open window; only its x says where the handle has to go",
            "window_pos": {"read": "env.obj_init_pos", "meaning": "where the window stands"},
            "window_handle_pos_init": _WINDOW_HANDLE_POS_INIT,
        },
    },
}


@functools.cache
def get_task(name: str, task_file: str | None = None) -> Task:
    """Return the task with that name: as its entry spells it, or with MetaWorld's version suffix (``-v2``, ``-v3``).

    Args:
        name: name of an entry of `TASKS`, or of the `TASKS` in `task_file`, which come first.
        task_file: path of a Python file.

    Raises:
        UsageError: there is no such task, or its entry has a mistake.
    """
    entries = all_tasks(task_file)
    key = next((key for key in (name, without_version(name)) if key in entries), None)
    if key is None:
        raise UsageError(f"there is no task {name!r}{_advice(name, entries)}")
    return build(key, entries[key], METAWORLD_VARIABLES, task_file and os.path.abspath(task_file))


def all_tasks(task_file: str | None = None) -> Mapping[str, Any]:
    """Return all entries by name; those of `task_file` replace ours of the same name."""
    return TASKS if task_file is None else {**TASKS, **load_task_file(os.path.abspath(task_file))}


def _advice(name: str, entries: Mapping[str, Any]) -> str:
    """Return advice on a name that no task has, as the end of an error message."""
    import gymnasium

    made = [known for known, spec in gymnasium.registry.items() if name in (known, spec.name)]
    if not made:
        return f"{nearest(name, entries)} (python task_specs.py lists the tasks)"
    return (
        f", but there is a Gymnasium environment {made[-1]!r}: write a file with TASKS = {{...}} and an entry that "
        "says what is to be done in it (python -m pydoc task_specs), and name that file with --task_file"
    )


def main() -> None:
    """List the tasks, or show the variables of one."""
    parser = argparse.ArgumentParser(description="List the tasks, or show the variables of one.")
    parser.add_argument("task", nargs="?", help="a task's name")
    parser.add_argument("--task_file", help="a Python file with TASKS of your own")
    arguments = parser.parse_args()
    try:
        sys.exit(_print_tasks(arguments.task, arguments.task_file))
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_tasks(name: str | None, task_file: str | None) -> int:
    """Print one task, or a line on each; returns the exit status."""
    mistakes = []
    try:
        names = all_tasks(task_file) if name is None else [name]
    except UsageError as error:
        names, mistakes = [], [error]
    for each in names:
        try:
            task = get_task(each, task_file)
            print(_line(task) if name is None else describe(task), flush=True)
        except UsageError as error:  # the others are still shown
            mistakes.append(error)
    for mistake in mistakes:
        print(mistake, file=sys.stderr)
    return 2 if mistakes else 0


def _line(task: Task) -> str:
    settings = "from scratch" if task.human_reward is None else "both settings"
    return f"{task.name:26} {settings:13}  {_expert_result(task):20}  {task.description}"


def describe(task: Task) -> str:
    """Return what a reward function of the task can read, with the values after one step of the episode with seed 0."""
    from tasks.environment import TaskEnvironment

    environment = TaskEnvironment(task)
    environment.reset(0)
    environment.step(np.zeros(task.action_size))
    values = environment.values()
    environment.close()
    lines = [
        task.name,
        f"  {task.description}",
        f"  Success: {task.success or 'none; agents can be ranked by the return alone'}",
        *([f"           {task.success_expression}"] if task.success_expression else []),
        "",
    ]
    rows = [(v.name, v.shape, v.unit, v.role, " ".join(v.aliases), v.meaning) for v in task.variables]
    rows.append(("obs", (task.obs_size,), "", "observation", "", "the observation"))
    rows.append(("action", (task.action_size,), "-1 to 1", "action", "actions", "the action taken"))
    lines.append(f"{'variable':24}{'shape':8}{'unit':12}{'role':15}{'value':30}meaning, other names")
    for name, shape, unit, role, aliases, meaning in rows:
        value = np.array2string(values[name], precision=3, suppress_small=True, threshold=8, edgeitems=2)
        others = f" ({aliases})" if aliases else ""
        lines.append(f"{name:24}{shape!s:8}{unit:12}{role:15}{value:30}{meaning}{others}")
    return "\n".join(lines)


def _expert_result(task: Task, episodes: int = 3, steps: int = 500) -> str:
    from tasks.environment import TaskEnvironment, scripted_expert

    expert = scripted_expert(task)
    if expert is None:
        return "no expert"
    environment = TaskEnvironment(task)
    solved = 0
    for seed in range(episodes):
        environment.reset(seed)
        solved += any(environment.step(expert(environment.obs)).success for _ in range(steps))
    environment.close()
    return f"expert solves {solved} of {episodes}"


if __name__ == "__main__":
    main()
