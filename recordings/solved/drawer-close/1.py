# drawer-close, from_scratch, by builtin, seed 1, search round 0
# The policy that learned from it last solved 1.00 (95% interval 0.93 to 1.00) of 50 fresh episodes after 3,000 env steps of the run.

def compute_reward(tcp_center, obj, target):
    reach_weight = 5.0
    reach_width = 0.5
    reach_distance = np.linalg.norm(tcp_center - obj)
    reach = reach_weight * (1.0 - reach_distance / reach_width)
    move_weight = 5.0
    move_width = 0.5
    move_distance = np.linalg.norm(obj - target)
    move = move_weight * (1.0 - move_distance / move_width)
    reward = reach + move
    return reward, {"reach": reach, "move": move}
