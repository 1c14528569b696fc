#!/usr/bin/env python3
"""Rates of torch's ReduceLROnPlateau, as lines "factor patience min_ratio evaluation loss rate"; the rate is that after the loss.

Wrote tests/golden/optim/plateau.txt with torch 2.11.0:

    python3 tests/interop/torch_plateau.py > tests/golden/optim/plateau.txt
"""
import random

import torch

for factor, patience, least in [(0.1, 10, 0.0), (0.5, 2, 0.0), (0.5, 0, 0.2), (0.3, 3, 0.01)]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=factor, patience=patience, min_lr=least)
    draw = random.Random(3)
    loss = 2.0
    for evaluation in range(60):
        # Falls at first, then stays; some gains are smaller than the threshold of 1e-4 of the best.
        loss += draw.choice((-0.06, -0.04, -0.00018, -0.0001, 0.02)) if evaluation < 35 else draw.choice((-0.0001, 0.0, 0.0001))
        schedule.step(loss)
        print(factor, patience, least, evaluation, repr(loss), repr(optimizer.param_groups[0]["lr"]))
