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
    "cosine_min": lambda *args: optimization.get_cosine_with_min_lr_schedule_with_warmup(*args, min_lr_rate=0.1),
    "cosine_with_restarts": lambda *args: optimization.get_cosine_with_hard_restarts_schedule_with_warmup(*args, num_cycles=3),
    "polynomial": lambda *args: optimization.get_polynomial_decay_schedule_with_warmup(*args, lr_end=0.2, power=2.0),
    "inverse_sqrt": lambda optimizer, warmup, _: optimization.get_inverse_sqrt_schedule(optimizer, warmup),
    "wsd": lambda optimizer, warmup, horizon: optimization.get_wsd_schedule(
        optimizer, warmup, num_decay_steps=-(-horizon // 5), num_training_steps=horizon, min_lr_ratio=0),
}

for name, make in SCHEDULES.items():
    # polynomial divides by zero where all steps are warm-up; wsd has no steps left for its parts there.
    short = [(10, 10), (12, 10)] if name in ("polynomial", "wsd") else []
    for warmup, horizon in [(0, 1), (0, 10), (3, 10), (1, 7), (10, 10), (12, 10), (30, 1000)]:
        if (warmup, horizon) in short:
            continue
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        schedule = make(optimizer, warmup, horizon)
        for step in range(horizon + 1):
            if step % max(1, horizon // 20) == 0 or step == warmup:
                print(name, warmup, horizon, step, repr(float(schedule.get_last_lr()[0])))
            optimizer.step()
            schedule.step()
