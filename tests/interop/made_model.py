"""A small Llama with a tokenizer of bytes, and rows for it: what the interop scripts train where no real model is given."""
import json
import random

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

EOS, VOCABULARY = 256, 257


def make_model(path, **more):
    torch.manual_seed(7)
    config = LlamaConfig(**({"tie_word_embeddings": True} | more), vocab_size=VOCABULARY, hidden_size=128, intermediate_size=256,
                         num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
                         eos_token_id=EOS)
    model = LlamaForCausalLM(config).float()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.1)
    model.save_pretrained(path)
    save_tokenizer(path)


def save_tokenizer(path):
    """One token a byte, and the end of a text."""
    vocab = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>").save_pretrained(path)


def make_rows(path, eos, vocabulary, count):
    """Ids and labels; the labels of the first third are -100, so rows differ in supervised tokens."""
    generator = random.Random(5)
    rows = []
    for _ in range(count):
        ids = [generator.randrange(min(vocabulary, 200)) for _ in range(generator.randrange(9, 60))] + [eos]
        third = len(ids) // 3
        rows.append({"input_ids": ids, "labels": [-100] * third + ids[third:]})
    with open(path, "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return rows
