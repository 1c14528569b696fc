"""Real chat rows for `run.sh chat --rows`: the tasks of Self-Instruct (Wang et al. 2022; github.com/yizhongw/self-instruct, Apache-2.0)
as messages.

    python bench/peers/self_instruct.py data/seed_tasks.jsonl human_eval/user_oriented_instructions.jsonl > rows.jsonl

175 and 252 tasks, a row for each instance of one. With SmolLM2's template they have 46 to 1,412 tokens, 158 on average: in batches of
8 in random order more than half of what the model sees is padding.
"""
import json
import sys


def rows(path):
    for line in open(path):
        task = json.loads(line)
        for instance in task["instances"]:
            question = "\n\n".join(part for part in (task["instruction"], instance["input"]) if part)
            yield [{"role": "user", "content": question}, {"role": "assistant", "content": instance["output"]}]


if len(sys.argv) < 2:
    sys.exit(__doc__)
for file in sys.argv[1:]:
    for messages in rows(file):
        print(json.dumps({"messages": messages}))
