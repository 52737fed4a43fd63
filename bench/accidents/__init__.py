"""The accidents that `bench/drills.py` plays: two lanes, each in its order."""

from accidents import answers, machine, material, teacher

# Trainings, one after another; beside them what mostly waits or is soon done.
LANES = (
    (machine.killed, machine.full_disk, machine.limited, machine.state_cut, machine.best_cut,
     machine.rank_killed, machine.first_killed, material.model_cut, material.model_nan,
     material.picture_spoilt, material.nonsense, material.collapsed, material.one_nan,
     material.three_nans, material.nan_weight),
    (answers.single_cheats, answers.whole_policies, teacher.server_dies))
