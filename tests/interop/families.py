# make interop: QLORA_INTEROP_LOGITS=$BUILD/bin/interop_logits $PYTHON tests/interop/families.py ${INTEROP_FOLDER:-$WORK} $INTEROP_FAMILIES --program $QLORA
"""Every model family against transformers and PEFT, fp32, on tiny made checkpoints: one line a family and variant.

    python tests/interop/families.py FOLDER [FAMILY...] [--first] [--program build/bin/qlora]
    python tests/interop/families.py --vectors OUT.json

FAMILY is a model_type (qwen3), a whole variant ("qwen3, windows") or a step (step2); without one, all that the program reads
(`qlora doctor --families`), each of which must have a variant here. --first: of each family the first variant alone. FOLDER keeps the checkpoints and
what transformers and PEFT made of them, so that another run only runs the program (and interop_logits beside it, or where
QLORA_INTEROP_LOGITS says). A line shows
- names: tensors of the checkpoint that the program left unread;
- logits: documents of 1, 13, 37 and 190 tokens laid end to end (transformers gets them one by one; windows are of 8 tokens): the largest
  difference of a logit and of a token's loss;
- training: eight AdamW steps of LoRA on what PEFT's all-linear picks (in one variant of gpt-oss the experts too), from the same adapter, each
  tensor's movement as a vector, all in one: |qlora's - PEFT's| / |PEFT's|;
- PEFT, merged: the trained adapter in PEFT (its tensors must be those of the file) and the merged export in transformers, against the
  program's own logits with the adapter, as the largest difference of a token's loss;
- GGUF: the model as an F32 GGUF file (experts in MXFP4 stay so), written with the gguf package, read by the program; against transformers;
- its directory: the merged export of that GGUF file in transformers, against the checkpoint that the file was made of.
The last line says of each family whether `lora.targets: [peft-default]` is what PEFT targets where nobody names modules.
A "!" marks what fails: a loss by 2e-5 or more, a movement by 0.1 % or more, a tensor unread. A model that the program refuses shows
the refusal.

Encoder-decoder models: documents alternate, source and decoder input; interop_logits gets all of them and their lengths in this order
and writes the logits of the decoder's tokens.

--vectors writes numbers for a test without Python: for each variant that is marked for it, config.json, the tensors'
names and shapes ("a.{0-2}.b" stands for a.0.b, a.1.b, a.2.b) and the loss of each next token of each row; an encoder reads the row
backwards. Weights follow from
the tensor's name and the value's index in row-major order, with 32-bit unsigned arithmetic:
    seed = FNV-1a of the name's bytes (start 2166136261, prime 16777619)
    h = seed + index * 0x9E3779B9;  h ^= h >> 16;  h *= 0x85EBCA6B;  h ^= h >> 13;  h *= 0xC2B2AE35;  h ^= h >> 16
    k = 2 * (h >> 26) - 63                     (odd, -63 to 63)
    value = k / 128 for vectors (one dimension), k / 256 for matrices (more)

Ran with transformers 5.23.0, peft 0.21.2, torch 2.11.0, gguf 0.19.0.
"""
import argparse
import copy
import itertools
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import traceback

os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
import gguf
import numpy as np
import peft
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as DEFAULT_TARGETS
from safetensors.torch import load_file, save_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, logging

import peft_training
from made_model import EOS, make_rows, save_tokenizer

PROGRAM, LOGITS = "build/bin/qlora", os.environ.get("QLORA_INTEROP_LOGITS")
STEPS, RATE = 8, 2e-3
LOSS_DEMAND, MOVEMENT_DEMAND = 2e-5, 1e-3
LENGTHS = (1, 13, 37, 190)
LENGTHS_SEQ2SEQ = (1, 5, 13, 8, 37, 23, 190, 60)  # source, decoder input, source, ...
WINDOW, L0 = 8, 16
VOCABULARY = 300

# ---------------------------------------------------------------------------------------------------------------------------
# Sizes, in each family's own keys.

TOKENS = dict(vocab_size=VOCABULARY, bos_token_id=1, eos_token_id=EOS, pad_token_id=None)
SIZES = TOKENS | dict(hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
                      max_position_embeddings=256)
GPT2_SIZES = TOKENS | dict(n_embd=64, n_layer=3, n_head=4, n_positions=256, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
GPT_NEO_SIZES = TOKENS | dict(hidden_size=64, num_layers=4, num_heads=4, max_position_embeddings=256,
                              attention_types=[[["global", "local"], 2]])
NEOX_SIZES = TOKENS | dict(hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=256)
OPT = TOKENS | dict(hidden_size=64, ffn_dim=96, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=256, dropout=0.0,
                    pad_token_id=1)
BLOOM_SIZES = TOKENS | dict(hidden_size=64, n_layer=3, n_head=4)
FALCON_SIZES = TOKENS | dict(hidden_size=64, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=256)
MPT_SIZES = TOKENS | dict(d_model=64, n_layers=3, n_heads=4, max_seq_len=256)
T5_SIZES = TOKENS | dict(d_model=64, d_ff=96, num_layers=3, num_heads=4, pad_token_id=0, decoder_start_token_id=0, dropout_rate=0.0)

# With an epsilon that is no class's default.
EPS = 3e-4
OLMO = SIZES | dict(tie_word_embeddings=False)
LLAMA = OLMO | dict(rms_norm_eps=EPS)
COHERE = OLMO | dict(layer_norm_eps=EPS)
STARCODER2 = OLMO | dict(norm_epsilon=EPS)
NEOX = NEOX_SIZES | dict(tie_word_embeddings=False, layer_norm_eps=EPS)
GPT2, BLOOM, FALCON, MPT = (sizes | dict(layer_norm_epsilon=EPS) for sizes in (GPT2_SIZES, BLOOM_SIZES, FALCON_SIZES, MPT_SIZES))
GPT_NEO = GPT_NEO_SIZES | dict(layer_norm_epsilon=EPS, window_size=WINDOW)
T5 = T5_SIZES | dict(layer_norm_epsilon=EPS, d_kv=16)
ONE_HEAD_EACH = dict(num_key_value_heads=4)
MOE = LLAMA | dict(num_experts_per_tok=2)

# RoPE.
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=8.0, original_max_position_embeddings=L0, beta_fast=1.0, beta_slow=0.2)
LLAMA3 = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)
LINEAR = dict(rope_type="linear", rope_theta=10000.0, factor=4.0)
GEMMA3_ROPE = dict(full_attention=dict(rope_type="linear", rope_theta=1000000.0, factor=8.0),
                   sliding_attention=dict(rope_type="default", rope_theta=10000.0))
OLMO3_ROPE = dict(full_attention=dict(YARN, rope_theta=500000.0), sliding_attention=dict(rope_type="default", rope_theta=500000.0))


def longrope(rotated, **more):
    """Factors for each of the rotated pairs; long ones from position L0 on."""
    pairs = rotated // 2
    return dict(rope_type="longrope", rope_theta=10000.0, short_factor=[1 + i / 16 for i in range(pairs)],
                long_factor=[2 + i for i in range(pairs)], **more)


def mixed_layers(count):
    return [("sliding_attention", "full_attention", "full_attention")[i % 3] for i in range(count)]


# ---------------------------------------------------------------------------------------------------------------------------
# config.json and tensor names as older versions and other tools write them. A rewriter changes config.json's content in place.

def old_rope(config):
    """rope_theta and rope_scaling at the top level, torch_dtype: transformers 4."""
    config["torch_dtype"] = config.pop("dtype", "float32")
    rope = config.pop("rope_parameters", None)
    if rope:
        config["rope_theta"] = rope.pop("rope_theta")
        if "partial_rotary_factor" in rope:
            config["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
        kind = rope.pop("rope_type")
        config["rope_scaling"] = None if kind == "default" else dict(rope, type=kind)


def old_qwen(config):
    old_rope(config)
    del config["layer_types"]


def old_gemma2(config):
    old_rope(config)
    del config["layer_types"]
    config["hidden_act"] = "gelu"  # not read by this family


def old_gemma3(config):
    rope = config.pop("rope_parameters")
    old_rope(config)
    full = rope["full_attention"]
    config |= dict(rope_theta=full.pop("rope_theta"), rope_scaling=full, rope_local_base_freq=rope["sliding_attention"]["rope_theta"],
                   sliding_window_pattern=6)
    config.pop("layer_types", None)


def old_olmo3(config):
    rope = config.pop("rope_parameters")
    old_rope(config)
    full = rope["full_attention"]
    config |= dict(rope_theta=full.pop("rope_theta"), rope_scaling=full)
    config.pop("layer_types")


def old_phi3(config):
    old_rope(config)
    config["rope_scaling"]["type"] = "su"


def old_neox(config):
    rope = config["rope_parameters"]
    config |= dict(rotary_pct=rope.pop("partial_rotary_factor"), rotary_emb_base=rope["rope_theta"])
    old_rope(config)
    del config["rope_theta"], config["rope_scaling"]


def old_bloom(config):
    old_rope(config)
    config["n_embed"], config["num_attention_heads"] = config.pop("hidden_size"), config.pop("n_head")


def old_falcon(config):
    old_rope(config)
    config["n_embed"] = config.pop("hidden_size")


def without(*keys):
    def rewrite(config):
        for key in keys:
            del config[key]
    return rewrite


def defaults_absent(config):
    """Without every key that has its class's default, and what follows from those."""
    defaults = AutoConfig.for_model(config["model_type"]).to_dict()
    for key in [key for key in config if key != "model_type" and key in defaults and config[key] == defaults[key]]:
        del config[key]
    for key in ("layer_types", "no_rope_layers", "attention_layers", "ffn_hidden_size", "num_kv_heads", "num_decoder_layers"):
        config.pop(key, None)


def as_released_gemma3(config):
    """Multimodal, transformers 4."""
    defaults_absent(config["text_config"])
    old_gemma3(config["text_config"])


def mxfp4_config(config):
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": [
        "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]}


def mxfp4_experts(tensors):
    """Other experts, drawn as codes and scales (exponents of 2, -5 to -3); rows are outputs, and a row is in blocks of 32 codes."""
    generator = torch.Generator().manual_seed(1)
    for name in [name for name in tensors if re.search(r"experts\.(gate_up|down)_proj$", name)]:
        experts, inputs, outputs = tensors.pop(name).shape
        shape = (experts, outputs, inputs // 32)
        tensors[name + "_blocks"] = torch.randint(0, 256, (*shape, 16), dtype=torch.uint8, generator=generator)
        tensors[name + "_scales"] = torch.randint(122, 125, shape, dtype=torch.uint8, generator=generator)
    return tensors


def renamed(pattern, replacement):
    return lambda tensors: {re.sub(pattern, replacement, name): tensor for name, tensor in tensors.items()}


def with_buffers(tensors):
    """GPT-2 as published: no prefix, and the causal mask beside every layer."""
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    return tensors | {f"h.{i}.attn.bias": torch.ones(1, 1, 256, 256).tril() for i in range(3)}


def with_equal_head(tensors):
    return tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}


def with_own_head(tensors):
    """As released T5 1.1 and FLAN-T5: transformers 5 makes tied ones alone."""
    head = torch.empty_like(tensors["shared.weight"]).normal_(std=0.15, generator=torch.Generator().manual_seed(1))
    return tensors | {"lm_head.weight": head}


def old_flan(config):
    config["tie_word_embeddings"] = False
    config.pop("scale_decoder_outputs", None)


def with_stack_embeddings(tensors):
    return tensors | {f"{stack}.embed_tokens.weight": tensors["shared.weight"].clone() for stack in ("encoder", "decoder")}


def stacked(down, gate, up):
    """Per-expert matrices as transformers 5 holds them in memory: stacked, gate above up."""
    def rename(tensors):
        experts = {}
        for name in [name for name in tensors if re.search(r"\.experts\.\d+\.", name)]:
            layer, expert, which = re.fullmatch(r"(.*)\.experts\.(\d+)\.(\w+)\.weight", name).groups()
            experts.setdefault(layer, {})[int(expert), which] = tensors.pop(name)
        for layer, parts in experts.items():
            count = len(parts) // 3
            tensors[f"{layer}.experts.gate_up_proj"] = torch.stack([torch.cat([parts[e, gate], parts[e, up]]) for e in range(count)])
            tensors[f"{layer}.experts.down_proj"] = torch.stack([parts[e, down] for e in range(count)])
        return {name.replace("block_sparse_moe", "mlp"): tensor for name, tensor in tensors.items()}
    return rename


# ---------------------------------------------------------------------------------------------------------------------------
# The families. Each variant: keys of its config, and what else is special:
#   rewrite, rename   change config.json, the tensors' names, after the model was saved
#   lengths           of the documents
#   other_weights     True: rename changes their values, so that the file is not the model that was made
#   shards            True: several files
#   gguf              False: the architecture cannot say this variant
#   vectors           True: part of --vectors
#   regex             target_modules, where all-linear picks more than the text model
#   parameters        target_parameters beside them: experts and routers of families whose all-linear leaves them out

VISION = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
GEMMA3 = LLAMA | dict(num_hidden_layers=6, head_dim=32, sliding_window=WINDOW, query_pre_attn_scalar=32, rope_parameters=GEMMA3_ROPE,
                      tie_word_embeddings=True)
GEMMA3_BOTH = dict(text_config=GEMMA3, vision_config=VISION, mm_tokens_per_image=4, boi_token_index=297, eoi_token_index=298,
                   image_token_index=299)
TEXT_LINEARS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
GRANITE = dict(attention_multiplier=0.2, embedding_multiplier=3.0, residual_multiplier=0.4, logits_scaling=2.5)
KEY_ABSENT = dict(lengths=(1, 37, 4200), gguf=False)

FAMILIES = {
    2: [
        ("llama", "plain", LLAMA, dict(vectors=True)),
        ("llama", "tied, one key-value head", LLAMA | dict(num_key_value_heads=1, tie_word_embeddings=True), {}),
        ("llama", "biases, head size of its own", LLAMA | dict(attention_bias=True, mlp_bias=True, head_dim=32), dict(vectors=True)),
        ("llama", "RoPE llama3, sharded", LLAMA | dict(rope_parameters=LLAMA3), dict(shards=True, vectors=True)),
        ("llama", "RoPE linear, old spelling", LLAMA | dict(rope_parameters=LINEAR), dict(rewrite=old_rope, vectors=True)),
        ("llama", "tied, equal head stored", LLAMA | dict(tie_word_embeddings=True), dict(rename=with_equal_head, gguf=False)),
        ("llama", "RoPE yarn", LLAMA | dict(rope_parameters=YARN), dict(gguf=False, vectors=True)),
        ("llama", "RoPE dynamic", LLAMA | dict(rope_parameters=dict(LINEAR, rope_type="dynamic"), max_position_embeddings=64),
         dict(gguf=False)),
        ("mistral", "window", LLAMA | dict(sliding_window=WINDOW, head_dim=32), dict(gguf=False, vectors=True)),
        ("mistral", "window key absent", LLAMA | dict(max_position_embeddings=8192), dict(rewrite=without("sliding_window"), **KEY_ABSENT)),
        ("mistral", "window null", LLAMA | dict(sliding_window=None, max_position_embeddings=8192), dict(lengths=(1, 37, 4200))),
        ("ministral", "layer_types", LLAMA | dict(head_dim=16, sliding_window=WINDOW, layer_types=mixed_layers(3)), dict(vectors=True)),
        ("ministral", "layer_types absent, old spelling", LLAMA | dict(head_dim=16, sliding_window=WINDOW), dict(rewrite=old_qwen)),
        ("ministral3", "window", LLAMA | dict(sliding_window=WINDOW, head_dim=32, rope_parameters=dict(
            YARN, mscale=1.0, mscale_all_dim=0.7, llama_4_scaling_beta=0.3)), dict(gguf=False, vectors=True)),
        ("ministral3", "scaled queries", LLAMA | dict(head_dim=32, rope_parameters=dict(
            YARN, mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.3)), {}),
        ("qwen2", "plain, tied", LLAMA | dict(tie_word_embeddings=True), dict(vectors=True)),
        ("qwen2", "windows", LLAMA | dict(use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1),
         dict(rewrite=without("layer_types"), gguf=False, vectors=True)),
        ("qwen2", "RoPE yarn, old spelling", LLAMA | dict(rope_parameters=YARN), dict(rewrite=old_qwen)),
        ("qwen3", "plain", LLAMA | dict(head_dim=32), dict(vectors=True)),
        ("qwen3", "windows, biases", LLAMA | dict(head_dim=16, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=2,
                                                 attention_bias=True), dict(gguf=False, vectors=True)),
        ("qwen3", "old spelling, tied", LLAMA | dict(head_dim=16, tie_word_embeddings=True), dict(rewrite=old_qwen)),
        ("smollm3", "plain, tied", LLAMA | dict(num_hidden_layers=4, tie_word_embeddings=True), dict(vectors=True)),
        ("smollm3", "windows, biases", LLAMA | dict(
            num_hidden_layers=4, no_rope_layers=[1, 0, 1, 0], use_sliding_window=True, sliding_window=WINDOW, attention_bias=True,
            mlp_bias=True), dict(rewrite=without("layer_types"), gguf=False, vectors=True)),
        ("smollm3", "old spelling, patterns absent", LLAMA | dict(num_hidden_layers=4),
         dict(rewrite=lambda config: (old_qwen(config), without("no_rope_layers")(config)))),
        ("arcee", "plain", LLAMA, dict(vectors=True)),
        ("arcee", "RoPE yarn", LLAMA | dict(rope_parameters=YARN), {}),
        ("arcee", "biases, tied, old spelling", LLAMA | dict(
            attention_bias=True, mlp_bias=True, tie_word_embeddings=True, rope_parameters=YARN),
         dict(rewrite=old_rope, gguf=False, vectors=True)),
        ("granite", "plain", LLAMA | GRANITE, dict(vectors=True)),
        ("granite", "biases, tied, old spelling", LLAMA | GRANITE | dict(attention_bias=True, mlp_bias=True, tie_word_embeddings=True),
         dict(rewrite=old_rope, gguf=False, vectors=True)),
        ("olmo", "clipped", OLMO | dict(clip_qkv=0.8), dict(vectors=True)),
        ("olmo", "biases, tied, old spelling", OLMO | dict(attention_bias=True, tie_word_embeddings=True),
         dict(rewrite=old_rope, gguf=False, vectors=True)),
        ("olmo2", "plain", LLAMA, dict(vectors=True)),
        ("olmo2", "biases, old spelling", LLAMA | dict(attention_bias=True), dict(rewrite=old_rope, gguf=False)),
        ("olmo3", "yarn on full layers", LLAMA | dict(num_hidden_layers=4, sliding_window=WINDOW, rope_parameters=OLMO3_ROPE),
         dict(vectors=True)),
        ("olmo3", "old spelling", LLAMA | dict(num_hidden_layers=4, sliding_window=WINDOW, rope_parameters=OLMO3_ROPE),
         dict(rewrite=old_olmo3, vectors=True)),
        ("gemma", "plain", LLAMA | dict(head_dim=32, tie_word_embeddings=True), dict(vectors=True)),
        ("gemma", "biases, old spelling, tie key absent", LLAMA | dict(head_dim=16, attention_bias=True, tie_word_embeddings=True),
         dict(rewrite=lambda config: (old_rope(config), config.pop("tie_word_embeddings", None)), gguf=False)),
        ("gemma2", "caps that bite", LLAMA | dict(
            head_dim=32, sliding_window=WINDOW, query_pre_attn_scalar=32, attn_logit_softcapping=1.5, final_logit_softcapping=3.0,
            tie_word_embeddings=True), dict(vectors=True)),
        ("gemma2", "no caps, biases, old spelling", LLAMA | dict(
            head_dim=16, query_pre_attn_scalar=20, sliding_window=WINDOW, attn_logit_softcapping=None, final_logit_softcapping=None, attention_bias=True,
            tie_word_embeddings=True), dict(rewrite=old_gemma2, gguf=False, vectors=True)),
        ("gemma3_text", "plain", GEMMA3, dict(vectors=True)),
        ("gemma3_text", "capped, biases, own layer_types", GEMMA3 | dict(
            num_hidden_layers=3, layer_types=mixed_layers(3), query_pre_attn_scalar=20, final_logit_softcapping=3.0, attn_logit_softcapping=1.5,
            attention_bias=True), dict(gguf=False, vectors=True)),
        ("gemma3_text", "old spelling", GEMMA3, dict(rewrite=old_gemma3, vectors=True)),
        ("gemma3", "multimodal", GEMMA3_BOTH, dict(regex=TEXT_LINEARS, gguf=False)),
        ("gemma3", "multimodal, other prefix", GEMMA3_BOTH,
         dict(rename=renamed(r"^language_model\.model\.", "model.language_model."), regex=TEXT_LINEARS, gguf=False)),
        ("gemma3", "multimodal, as released, defaults absent", GEMMA3_BOTH | dict(text_config=SIZES | dict(
            num_hidden_layers=6, num_attention_heads=8, num_key_value_heads=4, sliding_window=WINDOW, rope_parameters=GEMMA3_ROPE)),
         dict(rewrite=as_released_gemma3, regex=TEXT_LINEARS, gguf=False)),
        ("phi3", "plain", LLAMA | ONE_HEAD_EACH, dict(vectors=True)),
        ("phi3", "longrope", LLAMA | dict(rope_parameters=longrope(16), original_max_position_embeddings=L0), dict(vectors=True)),
        ("phi3", "longrope, window, old spelling", LLAMA | dict(
            rope_parameters=longrope(16), original_max_position_embeddings=L0, sliding_window=WINDOW),
         dict(rewrite=old_phi3, vectors=True)),
        ("phi3", "as Phi-4-mini", LLAMA | dict(
            rope_parameters=longrope(12, partial_rotary_factor=0.75), original_max_position_embeddings=L0,
            tie_word_embeddings=True), dict(vectors=True)),
        ("glm", "plain", LLAMA | dict(head_dim=16), dict(vectors=True)),
        ("glm", "no biases, old spelling", LLAMA | dict(head_dim=32, attention_bias=False), dict(rewrite=old_rope, vectors=True)),
        ("glm4", "plain", LLAMA | dict(head_dim=16), dict(vectors=True)),
        ("glm4", "no biases, old spelling", LLAMA | dict(head_dim=32, attention_bias=False), dict(rewrite=old_rope)),
        ("stablelm", "plain", COHERE, dict(vectors=True)),
        ("stablelm", "parallel, norms of heads, biases", COHERE | dict(
            use_qkv_bias=True, qk_layernorm=True, use_parallel_residual=True), dict(vectors=True)),
        ("stablelm", "old spelling", COHERE | dict(use_qkv_bias=True, rope_parameters=dict(
            rope_type="default", rope_theta=20000.0, partial_rotary_factor=0.5)), dict(rewrite=old_rope)),
    ],
    3: [
        ("gpt2", "plain", GPT2, dict(vectors=True)),
        ("gpt2", "as published, scaled by layer", GPT2 | dict(scale_attn_by_inverse_layer_idx=True, n_inner=96),
         dict(rename=with_buffers, rewrite=lambda config: config.update(n_ctx=256), gguf=False, vectors=True)),
        ("gpt2", "scores not scaled", GPT2 | dict(scale_attn_weights=False), dict(gguf=False)),
        ("gpt_neo", "plain", GPT_NEO, dict(vectors=True)),
        ("gpt_neo", "own width", GPT_NEO | dict(intermediate_size=96, attention_types=[[["local"], 3], [["global"], 1]]),
         dict(vectors=True)),
        ("gptj", "plain", GPT2 | dict(rotary_dim=8), dict(vectors=True)),
        ("gpt_neox", "parallel", NEOX | dict(rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.25)),
         dict(vectors=True)),
        ("gpt_neox", "sequential, old spelling", NEOX | dict(use_parallel_residual=False, rope_parameters=dict(
            rope_type="default", rope_theta=20000.0, partial_rotary_factor=0.5)), dict(rewrite=old_neox, vectors=True)),
        ("gpt_neox", "no attention biases, tanh gelu", NEOX | dict(attention_bias=False, hidden_act="gelu_new"), dict(gguf=False)),
        ("opt", "plain", OPT, dict(vectors=True)),
        ("opt", "no biases", OPT | dict(enable_bias=False), {}),
        ("opt", "norms without weights, names without prefix", OPT | dict(layer_norm_elementwise_affine=False),
         dict(rename=renamed(r"^model\.", ""), vectors=True)),
        ("opt", "no final norm", OPT | dict(_remove_final_layer_norm=True),dict(vectors=True)),
        ("opt", "as 350m", OPT | dict(do_layer_norm_before=False, word_embed_proj_dim=32), dict(vectors=True)),
        ("bloom", "plain", BLOOM, dict(vectors=True)),
        ("bloom", "residual from the norm, six heads", BLOOM | dict(
            apply_residual_connection_post_layernorm=True, hidden_size=96, n_head=6), dict(gguf=False, vectors=True)),
        ("bloom", "old spelling, names without prefix", BLOOM, dict(rewrite=old_bloom, rename=renamed(r"^transformer\.", ""), gguf=False)),
        ("falcon", "as 7B", FALCON, dict(vectors=True)),
        ("falcon", "as 40B", FALCON | dict(new_decoder_architecture=True, num_kv_heads=2), dict(vectors=True)),
        ("falcon", "as 11B", FALCON | dict(new_decoder_architecture=True, num_kv_heads=2, num_ln_in_parallel_attn=1), dict(vectors=True)),
        ("falcon", "as RW, six heads", FALCON | dict(
            alibi=True, multi_query=False, parallel_attn=False, bias=True, hidden_size=96, num_attention_heads=6),
         dict(gguf=False, vectors=True)),
        ("falcon", "biases, own width, old spelling", FALCON | dict(bias=True, ffn_hidden_size=96), dict(rewrite=old_falcon, gguf=False)),
        ("mpt", "plain", MPT, dict(vectors=True)),
        ("mpt", "clipped, scaled, six heads", MPT | dict(
            d_model=96, n_heads=6, attn_config=dict(clip_qkv=0.8, softmax_scale=0.3)), dict(gguf=False, vectors=True)),
        ("starcoder2", "plain", STARCODER2 | dict(tie_word_embeddings=True), dict(vectors=True)),
        ("starcoder2", "window, no biases, old spelling", STARCODER2 | dict(sliding_window=WINDOW, use_bias=False),
         dict(rewrite=old_rope, gguf=False, vectors=True)),
        ("phi", "plain", COHERE | ONE_HEAD_EACH, dict(vectors=True)),
        ("phi", "norms of heads, old spelling", COHERE | dict(qk_layernorm=True), dict(rewrite=old_rope, gguf=False, vectors=True)),
        ("cohere", "plain", COHERE | dict(logit_scale=0.3, tie_word_embeddings=True), dict(vectors=True)),
        ("cohere", "norms of heads, biases, old spelling", COHERE | dict(
            logit_scale=0.3, use_qk_norm=True, attention_bias=True, tie_word_embeddings=True),
         dict(rewrite=old_rope, gguf=False, vectors=True)),
        ("cohere2", "plain", COHERE | dict(num_hidden_layers=4, logit_scale=0.3, sliding_window=WINDOW, tie_word_embeddings=True),
         dict(vectors=True)),
        ("cohere2", "own layer_types, biases", COHERE | dict(
            layer_types=mixed_layers(3), logit_scale=0.3, sliding_window=WINDOW, attention_bias=True, tie_word_embeddings=True),
         dict(gguf=False, vectors=True)),
    ],
    4: [
        ("mixtral", "plain", MOE | dict(num_local_experts=4),dict(vectors=True)),
        ("mixtral", "sharded", MOE | dict(num_local_experts=4), dict(shards=True)),
        ("mixtral", "window, stacked experts, old spelling", MOE | dict(num_local_experts=4, sliding_window=WINDOW),
         dict(rewrite=old_rope, rename=stacked("w2", "w1", "w3"), gguf=False)),
        ("qwen2_moe", "plain", MOE | dict(num_experts=6, moe_intermediate_size=32, shared_expert_intermediate_size=48), {}),
        ("qwen2_moe", "adapters of experts and routers", MOE | dict(
            num_experts=6, moe_intermediate_size=32, shared_expert_intermediate_size=48),
         dict(parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj", "mlp.gate.weight"])),
        ("qwen2_moe", "renormalised, dense layers, windows", MOE | dict(
            num_hidden_layers=4, num_experts=6, moe_intermediate_size=32, shared_expert_intermediate_size=48, norm_topk_prob=True,
            mlp_only_layers=[1], decoder_sparse_step=2, qkv_bias=False, use_sliding_window=True, sliding_window=WINDOW,
            max_window_layers=3), dict(rewrite=without("layer_types"), gguf=False, vectors=True)),
        ("qwen3_moe", "plain", MOE | dict(num_experts=6, moe_intermediate_size=32, norm_topk_prob=True, head_dim=32),dict(vectors=True)),
        ("qwen3_moe", "not renormalised, dense layers, window", MOE | dict(
            num_hidden_layers=4, num_experts=6, moe_intermediate_size=32, mlp_only_layers=[2], use_sliding_window=True,
            sliding_window=WINDOW, attention_bias=True, tie_word_embeddings=True), dict(gguf=False)),
        ("granitemoe", "plain", MOE | GRANITE | dict(num_local_experts=4),dict(vectors=True)),
        ("granitemoe", "biases, tied, old spelling", MOE | GRANITE | dict(
            num_local_experts=4, attention_bias=True, tie_word_embeddings=True), dict(rewrite=old_rope, gguf=False)),
        ("granitemoe", "adapters of experts and routers", MOE | GRANITE | dict(num_local_experts=4),
         dict(parameters=["gate_up_proj", "down_proj", "router.weight"])),
        ("olmoe", "plain", MOE | ONE_HEAD_EACH | dict(num_experts=6), {}),
        ("olmoe", "clipped", MOE | dict(num_experts=6, clip_qkv=0.8), dict(gguf=False, vectors=True)),
        ("olmoe", "renormalised", MOE | dict(num_experts=6, norm_topk_prob=True), dict(gguf=False)),
        ("gpt_oss", "plain", MOE | dict(
            num_hidden_layers=4, num_local_experts=4, head_dim=16, sliding_window=WINDOW, swiglu_limit=1.0,
            rope_parameters=dict(YARN, truncate=False)), dict(gguf=False, vectors=True)),  # GGUF files do not hold the limit
        ("gpt_oss", "usual limit", MOE | dict(
            num_hidden_layers=4, num_local_experts=4, head_dim=16, sliding_window=WINDOW,
            rope_parameters=dict(YARN, truncate=False)), dict(parameters=["experts.gate_up_proj", "experts.down_proj"])),
        ("gpt_oss", "MXFP4 file", MOE | dict(num_local_experts=4, head_dim=16, sliding_window=WINDOW),
         dict(rename=mxfp4_experts, rewrite=mxfp4_config, other_weights=True)),
    ],
    5: [
        ("t5", "plain", T5, dict(vectors=True)),
        ("t5", "sharded", T5, dict(shards=True)),
        ("t5", "other depth of the decoder, old spelling", T5 | dict(num_decoder_layers=2),
         dict(rename=with_stack_embeddings, rewrite=lambda config: config.pop("scale_decoder_outputs", None))),
        ("t5", "as FLAN, other start", T5 | dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=5),
         dict(vectors=True, gguf=False)),  # GGUF files without a head are of models that scale what their head reads
        ("t5", "as FLAN, head of its own", T5 | dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False),
         dict(rename=with_own_head, other_weights=True)),
        ("t5", "as FLAN, head of its own, old spelling", T5 | dict(feed_forward_proj="gated-gelu"),
         dict(rename=with_own_head, rewrite=old_flan, other_weights=True)),
        ("mt5", "head of its own", T5 | dict(feed_forward_proj="gated-gelu"), dict(rename=with_own_head, other_weights=True)),
        ("mt5", "plain", T5 | dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False, d_kv=8), dict(gguf=False, vectors=True)),
        ("mt5", "tied", T5 | dict(feed_forward_proj="gated-gelu", tie_word_embeddings=True), dict(gguf=False)),
    ],
}


DEFAULTS = {  # sizes for a variant of each family that says nothing else and is therefore what the class's defaults make of it
    2: {family: SIZES for family in ("llama", "qwen2", "qwen3", "arcee", "granite", "olmo2", "gemma", "phi3", "glm", "glm4",
                                     "stablelm", "olmo", "ministral3")}
    | {"smollm3": SIZES | dict(num_hidden_layers=4), "olmo3": SIZES | dict(num_hidden_layers=4, sliding_window=WINDOW),
       "gemma2": SIZES | dict(sliding_window=WINDOW), "gemma3_text": SIZES | dict(num_hidden_layers=6, sliding_window=WINDOW)},
    3: {"gpt2": GPT2_SIZES, "gpt_neo": GPT_NEO_SIZES, "gptj": GPT2_SIZES | dict(n_embd=256), "gpt_neox": NEOX_SIZES, "opt": OPT,
        "bloom": BLOOM_SIZES, "falcon": FALCON_SIZES, "mpt": MPT_SIZES, "starcoder2": SIZES, "phi": SIZES, "cohere": SIZES,
        "cohere2": SIZES | dict(num_hidden_layers=4, sliding_window=WINDOW)},
    4: {"mixtral": SIZES | dict(num_local_experts=4), "qwen2_moe": SIZES | dict(
            num_experts=6, moe_intermediate_size=32, shared_expert_intermediate_size=48),
        "qwen3_moe": SIZES | dict(num_experts=10, moe_intermediate_size=32), "granitemoe": SIZES | dict(num_local_experts=4),
        "olmoe": SIZES | dict(num_experts=10),
        "gpt_oss": SIZES | dict(num_hidden_layers=4, num_local_experts=6, sliding_window=WINDOW)},
    5: {"t5": T5_SIZES, "mt5": T5_SIZES},
}
for step, sizes in DEFAULTS.items():
    for family, keys in sizes.items():
        FAMILIES[step].append((family, "defaults absent", keys, dict(rewrite=defaults_absent, gguf=False)))


class Variant:
    def __init__(self, step, family, label, keys, special):
        self.step, self.family, self.label, self.keys, self.special = step, family, label, keys, special
        self.name = f"{family}, {label}"
        self.seq2seq = step == 5
        self.lengths = special.get("lengths", LENGTHS_SEQ2SEQ if self.seq2seq else LENGTHS)
        self.documents = [n for i, n in enumerate(self.lengths) if i % 2 or not self.seq2seq]  # those that have logits

    def is_one_of(self, names):
        return any(name in (self.family, self.name, f"step{self.step}") for name in names)

    def ids(self):
        return torch.randint(2, VOCABULARY - 3, (sum(self.lengths),), generator=torch.Generator().manual_seed(3))


ORDER = {step: list(dict.fromkeys(row[0] for row in rows)) for step, rows in FAMILIES.items()}
VARIANTS = [Variant(step, *row) for step, rows in FAMILIES.items() for row in sorted(rows, key=lambda row: ORDER[step].index(row[0]))]


# ---------------------------------------------------------------------------------------------------------------------------
# Checkpoints.

def load(path):
    seq2seq = AutoConfig.from_pretrained(path).is_encoder_decoder
    kind = AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM
    return kind.from_pretrained(path, dtype=torch.float32).eval()


def tensors_of(path):
    files = [file for file in os.listdir(path) if file.endswith(".safetensors")]
    return {name: tensor for file in files for name, tensor in load_file(os.path.join(path, file)).items()}


def save_tensors(tensors, *path):
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, os.path.join(*path), {"format": "pt"})


def read_json(*parts):
    with open(os.path.join(*parts)) as file:
        return json.load(file)


def write_json(value, *parts):
    with open(os.path.join(*parts), "w") as file:
        json.dump(value, file, indent=2)


def draw(model):
    """Norms and biases too, so that none is 1 or 0; spread as in trained models."""
    torch.manual_seed(7)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5 if parameter.dim() == 1 else 0.15)


def make_checkpoint(variant, path):
    """Saved by transformers, then brought into the variant's spelling."""
    config = AutoConfig.for_model(variant.family, **copy.deepcopy(variant.keys))
    kind = AutoModelForSeq2SeqLM if variant.seq2seq else AutoModelForCausalLM
    model = kind.from_config(config).float()
    draw(model)
    model.save_pretrained(path, max_shard_size="100KB" if "shards" in variant.special else "5GB")
    if "shards" in variant.special:
        assert len([file for file in os.listdir(path) if file.endswith(".safetensors")]) > 1
    save_tokenizer(path)
    if "rename" in variant.special:
        tensors = variant.special["rename"](tensors_of(path))
        save_tensors(tensors, path, "model.safetensors")
    if "rewrite" in variant.special:
        config = read_json(path, "config.json")
        variant.special["rewrite"](config)
        write_json(config, path, "config.json")
    return model.eval()


# ---------------------------------------------------------------------------------------------------------------------------
# What transformers and PEFT say.

def their_logits(variant, model):
    parts = variant.ids().split(variant.lengths)
    with torch.no_grad():
        if variant.seq2seq:
            return torch.cat([model(input_ids=source[None], decoder_input_ids=target[None]).logits[0]
                              for source, target in zip(parts[::2], parts[1::2])])
        return torch.cat([model(part[None]).logits[0] for part in parts])


def token_losses(variant, logits):
    """Of each next token within a document."""
    parts = variant.ids().split(variant.lengths)
    ids = [part for i, part in enumerate(parts) if i % 2 or not variant.seq2seq]
    return torch.cat([torch.nn.functional.cross_entropy(rows[:-1].float(), part[1:], reduction="none")
                      for rows, part in zip(logits.split(variant.documents), ids)])


def rows_of(variant, path):
    if not variant.seq2seq:
        return make_rows(path, EOS, VOCABULARY, STEPS * peft_training.ROWS_A_STEP)
    generator = random.Random(5)
    draw_ids = lambda: [generator.randrange(2, 200) for _ in range(generator.randrange(5, 40))] + [EOS]
    rows = [{"input_ids": draw_ids(), "labels": draw_ids()} for _ in range(STEPS * peft_training.ROWS_A_STEP)]
    with open(path, "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return rows


def make_adapter(variant, checkpoint, path):
    torch.manual_seed(11)
    model = get_peft_model(load(checkpoint), LoraConfig(
        r=4, lora_alpha=8, target_modules=variant.special.get("regex", "all-linear"),
        target_parameters=variant.special.get("parameters"),
        task_type="SEQ_2_SEQ_LM" if variant.seq2seq else "CAUSAL_LM"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    model.save_pretrained(path)


def row_loss(variant, model, row):
    """Sum over the supervised tokens, and their number."""
    ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])
    if variant.seq2seq:
        start = torch.tensor([[model.config.decoder_start_token_id]])
        logits = model(input_ids=ids, decoder_input_ids=torch.cat([start, labels[None, :-1]], 1)).logits[0]
    else:
        logits, labels = model(ids).logits[0, :-1], labels[1:]
    return torch.nn.functional.cross_entropy(logits, labels, reduction="sum"), (labels != -100).sum().item()


def train_peer(variant, checkpoint, adapter, rows):
    """As peft_training.train_ours asks the program to: linear schedule with three steps of warm-up, gradients clipped at 0.5."""
    model = PeftModel.from_pretrained(load(checkpoint), adapter, is_trainable=True)  # in evaluation mode: nothing drops out anyway
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0)
    schedule = peft_training.get_linear_schedule_with_warmup(optimizer, 3, STEPS)
    losses = []
    for step in range(STEPS):
        sums = [row_loss(variant, model, row) for row in rows[step * peft_training.ROWS_A_STEP:][:peft_training.ROWS_A_STEP]]
        loss = sum(loss for loss, _ in sums) / sum(count for _, count in sums)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 0.5)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, get_peft_model_state_dict(model, save_embedding_layers=False)


def theirs(variant, folder):
    """Makes, once, in FOLDER/VARIANT: checkpoint/, logits.npy, rows.jsonl, adapter/, trained.safetensors, losses.json. The folder."""
    here = os.path.join(folder, re.sub(r"\W+", "_", variant.name))
    special = {key: getattr(value, "__qualname__", value) for key, value in variant.special.items() if key not in ("gguf", "vectors")}
    stamp = repr((variant.family, variant.keys, special, variant.lengths, STEPS, RATE, transformers.__version__, peft.__version__))
    try:
        if read_json(here, "made.json") == stamp:
            return here
    except (OSError, ValueError):
        pass
    shutil.rmtree(here, ignore_errors=True)
    os.makedirs(here)
    checkpoint, adapter, rows_path = (os.path.join(here, name) for name in ("checkpoint", "adapter", "rows.jsonl"))
    made = their_logits(variant, make_checkpoint(variant, checkpoint))
    logits = their_logits(variant, load(checkpoint))
    respelled = (token_losses(variant, made) - token_losses(variant, logits)).abs().max().item()
    if respelled > 1e-6 and "other_weights" not in variant.special:
        raise AssertionError(f"transformers reads another model from the rewritten checkpoint: a loss differs by {respelled:.1e}")
    np.save(os.path.join(here, "logits.npy"), logits.numpy())
    make_adapter(variant, checkpoint, adapter)
    losses, trained = train_peer(variant, checkpoint, adapter, rows_of(variant, rows_path))
    save_tensors(trained, here, "trained.safetensors")
    write_json(losses, here, "losses.json")
    write_json(stamp, here, "made.json")
    return here


# ---------------------------------------------------------------------------------------------------------------------------
# What the program says.

class Refused(Exception):
    pass


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=300)
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise Refused(lines[-1] if lines else f"exit code {done.returncode}")
    return done.stdout + done.stderr


def our_logits(variant, model, adapter, here):
    """And the number of tensors that were left out."""
    tokens, output = os.path.join(here, "tokens.bin"), os.path.join(here, "logits.bin")
    variant.ids().to(torch.int32).numpy().tofile(tokens)
    said = run(LOGITS, model, adapter, "none", "float32", tokens, output, *map(str, variant.lengths))
    left_out = re.search(r"(\d+) tensors are no part", said)
    logits = torch.from_numpy(np.fromfile(output, dtype=np.float32)).view(sum(variant.documents), -1)
    return logits, int(left_out[1]) if left_out else 0


def train_ours(here):
    peft_training.QLORA, peft_training.STEPS = PROGRAM, STEPS
    run_folder = os.path.join(here, "run")
    shutil.rmtree(run_folder, ignore_errors=True)
    try:
        return peft_training.train_ours(os.path.join(here, "checkpoint"), os.path.join(here, "adapter"), os.path.join(here, "rows.jsonl"),
                                        run_folder, {}, RATE)
    except SystemExit as error:
        raise Refused(str(error.code).strip().splitlines()[-1]) from None


def movement(here, ours):
    start, peer = (load_file(os.path.join(here, *name)) for name in (("adapter", "adapter_model.safetensors"), ("trained.safetensors",)))
    if ours.keys() != peer.keys():
        raise Refused(f"names other than PEFT's: {sorted(ours.keys() ^ peer.keys())[:4]}")
    moved, apart = (torch.cat([(a[name] - b[name]).double().flatten() for name in sorted(peer)]) for a, b in ((peer, start), (ours, peer)))
    return (apart.norm() / moved.norm()).item()


def in_peft(variant, here):
    model = PeftModel.from_pretrained(load(os.path.join(here, "checkpoint")), os.path.join(here, "run", "adapter"))
    stored = load_file(os.path.join(here, "run", "adapter", "adapter_model.safetensors"))
    loaded = get_peft_model_state_dict(model, save_embedding_layers=False)
    if loaded.keys() != stored.keys() or not all(torch.equal(loaded[name], stored[name]) for name in stored):
        raise Refused("PEFT loads other tensors than the file holds")
    return their_logits(variant, model.eval())


def merged(variant, here):
    path = os.path.join(here, "merged")
    shutil.rmtree(path, ignore_errors=True)
    run(PROGRAM, "export", os.path.join(here, "run"), "--format", "merged", "--dtype", "float32", "--output", path)
    return their_logits(variant, load(path))


def merged_gguf(variant, here):
    """transformers' logits of the directory that is made of the GGUF file."""
    path = os.path.join(here, "merged_gguf")
    shutil.rmtree(path, ignore_errors=True)
    run(PROGRAM, "export", "--model", os.path.join(here, "model.gguf"), "--format", "merged", "--dtype", "float32", "--output", path)
    return their_logits(variant, load(path))


# ---------------------------------------------------------------------------------------------------------------------------
# GGUF.

def pairs_from_halves(rows, heads):
    """The rows of q and k as architectures want them that rotate consecutive pairs."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)


def grouped(rows, groups, sizes):
    """Rows that lie as [q, k, v] of each group, as all q, all k, all v. `sizes`: rows of q, k, v in a group."""
    parts = rows.reshape(groups, sum(sizes), *rows.shape[1:]).split(sizes, 1)
    return torch.cat([part.reshape(-1, *rows.shape[1:]) for part in parts])


ARCHITECTURES = {  # family: GGUF's name, tokenizer.ggml.pre, how its tensors change
    "llama": ("llama", "llama-bpe", "permute"), "mistral": ("llama", "tekken", "permute"), "mixtral": ("llama", "default", "permute"),
    "ministral3": ("mistral3", "tekken", "permute"), "qwen2": ("qwen2", "qwen2", ""), "qwen3": ("qwen3", "qwen2", ""),
    "qwen2_moe": ("qwen2moe", "qwen2", ""), "qwen3_moe": ("qwen3moe", "qwen2", ""), "gemma": ("gemma", "default", "norms + 1"),
    "gemma2": ("gemma2", "default", "norms + 1"), "gemma3_text": ("gemma3", "default", "norms + 1"), "phi": ("phi2", "phi-2", ""),
    "phi3": ("phi3", "default", ""), "smollm3": ("smollm3", "smaug-bpe", "permute"), "granite": ("granite", "refact", "permute"),
    "granitemoe": ("granitemoe", "refact", "permute"), "olmo": ("olmo", "olmo", "permute"), "olmo2": ("olmo2", "dbrx", ""),
    "olmoe": ("olmoe", "olmo", ""), "olmo3": ("olmo2", "dbrx", ""), "starcoder2": ("starcoder2", "starcoder", ""),
    "cohere": ("command-r", "command-r", ""), "cohere2": ("cohere2", "command-r", ""), "falcon": ("falcon", "falcon", "group"),
    "gpt2": ("gpt2", "gpt-2", "transpose"), "gpt_neox": ("gptneox", "olmo", "group"), "bloom": ("bloom", "bloom", "group"),
    "mpt": ("mpt", "mpt", ""), "stablelm": ("stablelm", "stablelm2", ""), "glm": ("chatglm", "glm4", ""), "glm4": ("glm4", "glm4", ""),
    "gpt_oss": ("gpt-oss", "gpt-4o", ""), "arcee": ("arcee", "llama-bpe", "permute"), "t5": ("t5", "default", ""),
    "mt5": ("t5", "default", ""),
}


def gguf_changes(family, config, name, tensor):
    """One tensor of a checkpoint as the tensors of the file, still under transformers' names."""
    kind = ARCHITECTURES[family][2]
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    if kind == "permute" and re.search(r"\.[qk]_proj\.", name):
        tensor = pairs_from_halves(tensor, heads if ".q_proj." in name else kv_heads)
    if kind == "norms + 1" and name.endswith("norm.weight"):
        tensor = tensor + 1
    if kind == "transpose" and re.search(r"\.c_(attn|proj|fc)\.weight$", name):
        tensor = tensor.T
    if family == "bloom":
        name = name.removeprefix("transformer.")
    if kind == "group" and "query_key_value" in name:
        size = config.hidden_size // heads
        if family != "falcon":
            tensor = grouped(tensor, heads, [size] * 3)
        elif config.new_decoder_architecture:
            tensor = grouped(tensor, config.num_kv_heads, [heads // config.num_kv_heads * size, size, size])
    if name.endswith("block_sparse_moe.input_linear.weight"):
        return dict(zip((name.replace("input_linear", part) for part in ("gate_exps", "up_exps")), tensor.chunk(2, 1)))
    if name.endswith("experts.gate_up_proj"):  # gpt_oss: columns gate, up, gate, up
        return {name.replace("gate_up_proj", f"{part}.weight"): tensor[..., i::2].transpose(1, 2) for i, part in enumerate(("gate", "up"))}
    if name.endswith("experts.gate_up_proj_bias"):
        return {name.replace("gate_up_proj_bias", f"{part}.bias"): tensor[..., i::2] for i, part in enumerate(("gate", "up"))}
    if name.endswith("experts.down_proj"):
        return {name.replace("down_proj", "down.weight"): tensor.transpose(1, 2)}
    if name.endswith("experts.down_proj_bias"):
        return {name.replace("down_proj_bias", "down.bias"): tensor}
    return {name: tensor}


SPECIAL_NAMES = [  # where the gguf package's table lacks transformers' name
    (r"model\.layers\.(\d+)\.block_sparse_moe\.gate_exps\.weight", r"blk.\1.ffn_gate_exps.weight"),
    (r"model\.layers\.(\d+)\.block_sparse_moe\.up_exps\.weight", r"blk.\1.ffn_up_exps.weight"),
    (r"model\.layers\.(\d+)\.mlp\.experts\.(gate|up|down)\.(weight|bias)", r"blk.\1.ffn_\2_exps.\3"),
    (r"model\.layers\.(\d+)\.self_attn\.sinks", r"blk.\1.attn_sinks.weight"),
]


def stack_numbered(tensors):
    """Per-expert matrices and per-head norms, each kind as one tensor."""
    stacks, result = {}, {}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"(.*)\.(experts|norms)\.(\d+)\.(.*)", name)
        if not match:
            result[name] = tensor
            continue
        before, kind, number, after = match.groups()
        after = {"w1.weight": "gate.weight", "w2.weight": "down.weight", "w3.weight": "up.weight"}.get(after, after).replace("_proj", "")
        key = f"{before.replace('block_sparse_moe', 'mlp')}.experts.{after}" if kind == "experts" else f"{before}.{after}"
        stacks.setdefault(key, {})[int(number)] = tensor
    return result | {key: torch.stack([parts[i] for i in range(len(parts))]) for key, parts in stacks.items()}


def ggml_mxfp4(tensors):
    """Experts in MXFP4 as bytes [experts, bytes of a row, rows]: blocks of a scale and 16 bytes, in which numbers that are 16 apart share one, as
    llama.cpp's converter packs them (repack_mxfp4)."""
    result = {}
    for name, tensor in tensors.items():
        if name.endswith("_blocks"):
            codes = torch.stack([tensor & 15, tensor >> 4], -1).flatten(-2)
            halves = codes[..., :16] | codes[..., 16:] << 4
            name = name.removesuffix("_blocks")
            tensor = torch.cat([tensors[name + "_scales"].unsqueeze(-1), halves], -1).flatten(-2).transpose(1, 2)
        if not name.endswith("_scales"):
            result[name] = tensor
    return result


def gguf_tensors(family, config, tensors):
    architecture = gguf_architecture(family)
    layers = max(getattr(config, "num_hidden_layers", 0), getattr(config, "num_decoder_layers", None) or 0)
    names = gguf.get_tensor_name_map(architecture, layers)
    changed = {}
    for name, tensor in ggml_mxfp4(stack_numbered(tensors)).items():
        changed |= gguf_changes(family, config, name, tensor)
    result = {}
    for name, tensor in changed.items():
        if name.endswith("coder.embed_tokens.weight") and "shared.weight" in changed:
            continue  # a copy of it
        special = next((re.sub(pattern, new, name) for pattern, new in SPECIAL_NAMES if re.fullmatch(pattern, name)), None)
        found = special or names.get_name(name, (".weight", ".bias"))
        if not found:
            raise AssertionError(f"the gguf package has no name for {name} in {architecture.name}")
        result[found] = tensor.contiguous()
    if family in ("gpt2", "bloom"):  # the converter writes a copy
        result.setdefault("output.weight", result["token_embd.weight"])
    return result


def gguf_architecture(family):
    wanted = ARCHITECTURES[family][0]
    return next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == wanted)


def llama3_divisors(rope, dimensions):
    inverse = rope["rope_theta"] ** -(torch.arange(0, dimensions, 2).double() / dimensions)
    turns = rope["original_max_position_embeddings"] * inverse / (2 * math.pi)
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    smooth = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).float()


def write_rope(writer, family, config, tensors, head_dim):
    rope = getattr(config, "rope_parameters", None)
    if not rope:
        return
    if "full_attention" in rope:
        if family == "gemma3_text":
            writer.add_rope_freq_base_swa(rope["sliding_attention"]["rope_theta"])
        rope = rope["full_attention"]
    rotated = int(head_dim * rope.get("partial_rotary_factor", 1.0))
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(rotated)
    kind = rope.get("rope_type", "default")
    if family in ("cohere", "cohere2"):
        writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)
    elif kind == "llama3":
        tensors["rope_freqs.weight"] = llama3_divisors(rope, rotated)
    elif kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    elif kind == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_beta_fast(rope.get("beta_fast") or 32.0)
        writer.add_rope_scaling_yarn_beta_slow(rope.get("beta_slow") or 1.0)
        if "mscale_all_dim" in rope:
            writer.add_rope_scaling_yarn_log_mul(rope["mscale_all_dim"])
        if "llama_4_scaling_beta" in rope:
            writer.add_attn_temperature_scale(rope["llama_4_scaling_beta"])
    elif kind == "longrope":
        original = config.original_max_position_embeddings
        scale = config.max_position_embeddings / original
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(scale) / math.log(original)))
        for which in ("long", "short"):
            tensors[f"rope_factors_{which}.weight"] = torch.tensor(rope[f"{which}_factor"], dtype=torch.float32)
    elif kind != "default":
        raise AssertionError(f"GGUF has no RoPE scaling {kind}")


GGUF_KEYS = {  # attribute of the config: method of the writer
    "attention_multiplier": "add_attention_scale", "embedding_multiplier": "add_embedding_scale",
    "residual_multiplier": "add_residual_scale", "logits_scaling": "add_logit_scale", "logit_scale": "add_logit_scale",
    "clip_qkv": "add_clamp_kqv", "use_parallel_residual": "add_parallel_residual",
    "moe_intermediate_size": "add_expert_feed_forward_length",
    "shared_expert_intermediate_size": "add_expert_shared_feed_forward_length", "num_experts_per_tok": "add_expert_used_count",
    "attn_logit_softcapping": "add_attn_logit_softcapping", "final_logit_softcapping": "add_final_logit_softcapping",
    "relative_attention_num_buckets": "add_relative_attn_buckets_count", "decoder_start_token_id": "add_decoder_start_token_id",
}


def first(config, *names, otherwise=None):
    return next((value for name in names if (value := getattr(config, name, None)) is not None), otherwise)


def write_sizes(writer, family, config, head_dim):
    heads, hidden = config.num_attention_heads, config.hidden_size
    kv_heads = first(config, "num_kv_heads" if family == "falcon" else "num_key_value_heads", otherwise=heads)
    if family == "falcon" and not config.new_decoder_architecture:
        kv_heads = 1 if config.multi_query else heads
    writer.add_vocab_size(VOCABULARY)
    writer.add_context_length(first(config, "max_position_embeddings", "max_seq_len", "n_positions", otherwise=2048))
    writer.add_embedding_length(hidden)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(first(config, "intermediate_size", "n_inner", "ffn_hidden_size", "d_ff", otherwise=4 * hidden))
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    if first(config, "head_dim", "d_kv") and family not in ("granite", "granitemoe", "falcon"):
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    rms = first(config, "rms_norm_eps")
    if rms is not None:
        writer.add_layer_norm_rms_eps(rms)
    else:
        eps = first(config, "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", otherwise=1e-5)
        writer.add_layer_norm_eps(eps)
    if family in ("t5", "mt5"):
        writer.add_layer_norm_rms_eps(eps)
        writer.add_decoder_block_count(config.num_decoder_layers)
    experts = first(config, "num_local_experts", "num_experts")
    if experts:
        writer.add_expert_count(experts)
    if family == "gpt_oss":
        writer.add_expert_feed_forward_length(config.intermediate_size)


def write_windows(writer, family, config):
    if family in ("gemma2", "gemma3_text", "cohere2", "gpt_oss", "olmo3"):
        writer.add_sliding_window(config.sliding_window)
    if family == "phi3":
        writer.add_sliding_window(config.sliding_window or 0)
    if family == "olmo3":
        writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config.layer_types])


def write_tokenizer(writer, family):
    """A token for each byte, the end of a text, one merge, and unused ones."""
    letters = sorted(ByteLevel.alphabet())
    tokens = letters + ["</s>", "ĠĠ"]
    unused = VOCABULARY - len(tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(ARCHITECTURES[family][1])
    writer.add_token_list(tokens + [f"[PAD{i}]" for i in range(len(tokens), VOCABULARY)])
    writer.add_token_types([1] * len(letters) + [3, 1] + [5] * unused)
    writer.add_token_merges(["Ġ Ġ"])
    writer.add_eos_token_id(EOS)


def write_gguf(variant, checkpoint, path):
    config = AutoConfig.from_pretrained(checkpoint)
    family = variant.family
    head_dim = first(config, "head_dim", "d_kv", otherwise=config.hidden_size // config.num_attention_heads)
    tensors = gguf_tensors(family, config, tensors_of(checkpoint))
    writer = gguf.GGUFWriter(path, ARCHITECTURES[family][0])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_name(variant.name)
    write_sizes(writer, family, config, head_dim)
    write_windows(writer, family, config)
    write_rope(writer, family, config, tensors, head_dim)
    for key, method in GGUF_KEYS.items():
        if (value := first(config, key)) is not None:
            getattr(writer, method)(value)
    if family == "mpt":
        writer.add_max_alibi_bias(8.0)
        if config.attn_config.clip_qkv is not None:
            writer.add_clamp_kqv(config.attn_config.clip_qkv)
    if family == "falcon":
        writer.add_tensor_data_layout("jploski")
    write_tokenizer(writer, family)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor.numpy(), raw_dtype=gguf.GGMLQuantizationType.MXFP4 if tensor.dtype == torch.uint8 else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# ---------------------------------------------------------------------------------------------------------------------------
# Lines.

class Line:
    """What was measured of a variant, and whether all of it is as it should be."""

    def __init__(self, name):
        self.parts, self.good = [f"{name:55}"], True

    def add(self, text, good):
        self.parts.append(text + ("" if good else " !"))
        self.good &= good

    def add_loss(self, label, variant, a, b, more=""):
        difference = (token_losses(variant, a) - token_losses(variant, b)).abs().max().item()
        self.add(f"{label} {more}{difference:.1e}", difference < LOSS_DEMAND)


def compare(variant, folder):
    line = Line(variant.name)
    try:
        here = theirs(variant, folder)
        measure(variant, here, line)
    except Refused as refusal:
        line.add(f"refused: {refusal}", False)
    except Exception as error:  # of transformers, PEFT, gguf or this script: the other families are still to be compared
        traceback.print_exc()
        line.add(f"{type(error).__name__}: {str(error)[:300]}", False)
    print(" | ".join(line.parts), flush=True)
    return line.good


def measure(variant, here, line):
    checkpoint = os.path.join(here, "checkpoint")
    expected = torch.from_numpy(np.load(os.path.join(here, "logits.npy")))
    has_gguf = variant.family in ARCHITECTURES and variant.special.get("gguf", True)
    if has_gguf:
        write_gguf(variant, checkpoint, os.path.join(here, "model.gguf"))
    found, unread = our_logits(variant, checkpoint, "-", here)
    line.add("names ok" if not unread else f"names: {unread} unread", not unread)
    line.add_loss("logits", variant, found, expected, f"{(found - expected).abs().max():.1e}, loss ")
    trained = train_ours(here)
    relative = movement(here, trained[2])
    line.add(f"training {relative:.1e}", relative < MOVEMENT_DEMAND)
    ours, _ = our_logits(variant, checkpoint, os.path.join(here, "run", "adapter"), here)
    line.add_loss("PEFT", variant, in_peft(variant, here), ours)
    line.add_loss("merged", variant, merged(variant, here), ours)
    if has_gguf:
        from_gguf, unread = our_logits(variant, os.path.join(here, "model.gguf"), "-", here)
        line.add_loss("GGUF", variant, from_gguf, expected, f"{unread} unread, " if unread else "")
        line.add_loss("its directory", variant, merged_gguf(variant, here), expected)
    else:
        line.add("GGUF -", True)


def targets_of(here):
    """What `lora.targets: [peft-default]` stands for, by the adapter of one step; none where it is refused."""
    run_folder = os.path.join(here, "default_targets")
    shutil.rmtree(run_folder, ignore_errors=True)
    write_json({"model": {"path": os.path.join(here, "checkpoint"), "dtype": "float32"}, "quantization": {"method": "none"},
                "lora": {"rank": 2, "targets": ["peft-default"]},
                "data": {"train": [{"path": os.path.join(here, "rows.jsonl"), "format": "pretokenized"}], "packing": False,
                         "sequence_length": 128},
                "train": {"max_steps": 1, "micro_batch_size": 2, "gradient_accumulation_steps": 1, "compute_dtype": "float32",
                          "device": "cpu"},
                "output": {"dir": run_folder}}, run_folder + ".yaml")
    try:
        run(PROGRAM, "train", run_folder + ".yaml")
    except Refused as refusal:
        if "no default targets" in str(refusal):
            return None
        raise
    return sorted(read_json(run_folder, "adapter", "adapter_config.json")["target_modules"])


def compare_default_targets(variants, folder):
    """One line for all families, each by its first variant."""
    line, first_of, same = Line("PEFT's default targets"), {}, 0
    for variant in variants:
        first_of.setdefault(variant.family, variant)
    for family, variant in first_of.items():
        expected = DEFAULT_TARGETS.get(family)
        try:
            found = targets_of(theirs(variant, folder))
        except Exception as error:
            line.add(f"{family}: {type(error).__name__}: {str(error)[:300]}", False)
            continue
        if found == (expected and sorted(expected)):
            same += 1
        else:
            line.add(f"{family}: {found}, PEFT {expected}", False)
    line.add(f"{same} of {len(first_of)} families have PEFT's, or none as PEFT", same == len(first_of))
    print(" | ".join(line.parts), flush=True)
    return line.good


# ---------------------------------------------------------------------------------------------------------------------------
# --vectors.

def rule(name, shape):
    """The values of tensor `name`, as the docstring at the top says."""
    seed = 2166136261
    for byte in name.encode():
        seed = (seed ^ byte) * 16777619 % 2**32
    with np.errstate(over="ignore"):
        h = np.uint32(seed) + np.arange(math.prod(shape), dtype=np.uint32) * np.uint32(0x9E3779B9)
        h = (h ^ (h >> 16)) * np.uint32(0x85EBCA6B)
        h = (h ^ (h >> 13)) * np.uint32(0xC2B2AE35)
        h ^= h >> 16
    k = 2 * (h >> 26).astype(np.int64) - 63
    return torch.from_numpy((k / (128 if len(shape) == 1 else 256)).astype(np.float32)).view(*shape)


def folded(shapes):
    """{"a.{0-2}.b": shape} for a.0.b, a.1.b, a.2.b of one shape; numbers that are no full grid from 0 on are written out."""
    kinds = {}
    for name, shape in shapes.items():
        kinds.setdefault((re.sub(r"\b\d+\b", "#", name), tuple(shape)), []).append(name)
    result = {}
    for (pattern, shape), names in kinds.items():
        numbers = [tuple(map(int, re.findall(r"\b\d+\b", name))) for name in names]
        ranges = [(min(column), max(column)) for column in zip(*numbers)]
        grid = list(itertools.product(*(range(low, high + 1) for low, high in ranges)))
        if sorted(numbers) == grid:
            parts = iter(f"{{{low}-{high}}}" if low < high else str(low) for low, high in ranges)
            names = [re.sub("#", lambda _: next(parts), pattern)]
        result |= {name: list(shape) for name in names}
    return result


NOISE = {  # keys of config.json that say nothing of a forward pass
    "transformers_version", "architectures", "initializer_range", "init_std", "use_cache", "bos_token_id", "eos_token_id", "dtype",
    "pretraining_tp", "_name_or_path", "_from_model_config", "return_dict", "problem_type", "chunk_size_feed_forward", "layerdrop",
    "dropout", "attention_dropout", "hidden_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop", "emb_pdrop", "resid_dropout",
    "embed_dropout", "residual_dropout", "embedding_dropout", "classifier_dropout", "router_aux_loss_coef"}
NOISE_STARTS = ("summary_", "output_", "id2label", "label2id", "is_", "torch_dtype")


def without_noise(config):
    kept = {key: value for key, value in config.items() if key not in NOISE and not key.startswith(NOISE_STARTS)}
    return {key: without_noise(value) if isinstance(value, dict) else value for key, value in kept.items()}


def row_losses(model, rows):
    """Of each next token of each row. An encoder reads the row backwards."""
    def logits(ids):
        if model.config.is_encoder_decoder:
            return model(input_ids=ids.flip(0)[None], decoder_input_ids=ids[None]).logits[0]
        return model(ids[None]).logits[0]
    with torch.no_grad():
        return [torch.nn.functional.cross_entropy(logits(ids)[:-1], ids[1:], reduction="none") for ids in map(torch.tensor, rows)]


def vectors_of(variant, rows, folder):
    path = os.path.join(folder, "vectors")
    shutil.rmtree(path, ignore_errors=True)
    make_checkpoint(variant, path)
    shapes = {name: tensor.shape for name, tensor in tensors_of(path).items()}
    save_tensors({name: rule(name, shape) for name, shape in shapes.items()}, path, "model.safetensors")
    config = without_noise(read_json(path, "config.json"))
    write_json(config, path, "config.json")
    model = load(path)
    if variant.step == 4:
        model.set_experts_implementation("eager")  # the default one knows no fp64
    losses, precise = row_losses(model, rows), row_losses(model.double(), rows)
    apart = max((a - b).abs().max().item() for a, b in zip(losses, precise))
    print(f"{variant.name:55} losses {losses[1].min():.3f} to {losses[1].max():.3f}, fp64's within {apart:.1e}", flush=True)
    return {"name": variant.name, "config": config, "tensors": folded(shapes),
            "losses": [[float(f"{value:.9g}") for value in loss.tolist()] for loss in losses]}


def write_vectors(path):
    generator = random.Random(9)
    rows = [[generator.randrange(2, VOCABULARY - 3) for _ in range(length)] for length in (5, 20)]
    with tempfile.TemporaryDirectory() as folder:
        models = [vectors_of(variant, rows, folder) for variant in VARIANTS if variant.special.get("vectors")]
    with open(path, "w") as file:
        file.write('{"rows": ' + json.dumps(rows) + ',\n"models": [\n')
        file.write(",\n".join(json.dumps(model, separators=(",", ":")) for model in models) + "\n]}\n")
    print(f"{path}: {len(models)} models, {os.path.getsize(path)} bytes")


def read_by_program():
    """model_types of config.json."""
    listed = json.loads(subprocess.check_output([PROGRAM, "doctor", "--families", "--json"]))
    return [model_type for family in listed.values() for model_type in family["model_type"]]


def choose(names, first_only):
    here = dict.fromkeys(variant.family for variant in VARIANTS)
    if not names:
        names = read_by_program()
        if unknown := [name for name in names if name not in here]:
            sys.exit(f"the program reads {', '.join(unknown)}, of which there is no variant here")
    chosen = [variant for variant in VARIANTS if variant.is_one_of(names)]
    if not chosen:
        sys.exit(f"no such family; there are {', '.join(here)}")
    first = {}
    for variant in chosen:
        first.setdefault(variant.family, variant)
    return list(first.values()) if first_only else chosen


def main():
    global PROGRAM, LOGITS
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?")
    parser.add_argument("families", nargs="*")
    parser.add_argument("--first", action="store_true")
    parser.add_argument("--program", default=PROGRAM)
    parser.add_argument("--vectors", metavar="OUT.json")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if arguments.vectors:
        return write_vectors(arguments.vectors)
    if not arguments.folder:
        parser.error("FOLDER is needed")
    PROGRAM = arguments.program
    LOGITS = LOGITS or os.path.join(os.path.dirname(PROGRAM), "interop_logits")
    variants = choose(arguments.families, arguments.first)
    good = [compare(variant, arguments.folder) for variant in variants] + [compare_default_targets(variants, arguments.folder)]
    print(f"{sum(good)} of {len(good)} pass")
    return not all(good)


if __name__ == "__main__":
    sys.exit(main())
