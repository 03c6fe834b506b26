# drawer-open, from_scratch, by builtin, seed 1, search round 4
# The policy that learned from it last solved 1.00 (95% interval 0.93 to 1.00) of 50 fresh episodes after 100,000 env steps of the run.

def compute_reward(left_pad, right_pad, obj, target, obj_init_pos):
    hold_weight = 4.02
    hold_width = 0.212
    hold_distance = np.linalg.norm(left_pad - obj) + np.linalg.norm(right_pad - obj)
    hold = hold_weight * (1.0 - hold_distance / hold_width)
    lift_weight = 4.0
    lift_height = 0.101
    lift_distance = max(0.0, obj_init_pos[2] + lift_height - obj[2])
    lift_start = max(0.01, lift_height)
    lift = lift_weight * max(-1.0, 1.0 - lift_distance / lift_start)
    move_weight = 20.0
    move_distance = np.linalg.norm(obj - target)
    move_start = max(0.01, np.linalg.norm(obj_init_pos - target))
    move = move_weight * max(-1.0, 1.0 - move_distance / move_start)
    success_weight = 2.61
    success_reached = (np.linalg.norm(obj - target) <= 0.03)
    success = success_weight if success_reached else 0.0
    reward = hold + lift + move + success
    return reward, {"hold": hold, "lift": lift, "move": move, "success": success}
