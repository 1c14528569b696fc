#!/usr/bin/env python3
"""Learning rates of transformers' schedules with warm-up, as lines "schedule warmup_steps horizon step factor".

Wrote tests/golden/optim/lr_schedule.txt with transformers 5.23.0, torch 2.11.0:

    python3 tests/interop/transformers_lr_schedule.py > tests/golden/optim/lr_schedule.txt
"""

import torch
from transformers import optimization

SCHEDULES = {
    "constant": lambda optimizer, warmup, _: optimization.get_constant_schedule_with_warmup(optimizer, warmup),
    "linear": optimization.get_linear_schedule_with_warmup,
    "cosine": optimization.get_cosine_schedule_with_warmup,
}

for name, make in SCHEDULES.items():
    for warmup, horizon in [(0, 1), (0, 10), (3, 10), (1, 7), (10, 10), (12, 10), (30, 1000)]:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        schedule = make(optimizer, warmup, horizon)
        for step in range(horizon + 1):
            if step % max(1, horizon // 20) == 0 or step == warmup:
                print(name, warmup, horizon, step, repr(float(schedule.get_last_lr()[0])))
            optimizer.step()
            schedule.step()
