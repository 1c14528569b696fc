// The families there are, each in a file of its own; family.cpp lists them.
#pragma once

#include "model/families/family.h"

namespace qlora::model {

Family llama_family();
Family mistral_family();
Family ministral_family();
Family ministral3_family();
Family qwen2_family();
Family qwen3_family();
Family smollm3_family();
Family granite_family();
Family olmo_family();
Family olmo2_family();
Family olmo3_family();
Family gemma_family();
Family gemma2_family();
Family gemma3_family();
Family phi3_family();
Family glm_family();
Family glm4_family();
Family stablelm_family();
Family starcoder2_family();
Family phi_family();
Family cohere_family();
Family cohere2_family();
Family gpt2_family();
Family gpt_neo_family();
Family gptj_family();
Family gpt_neox_family();
Family opt_family();
Family bloom_family();
Family falcon_family();
Family mpt_family();
Family mixtral_family();
Family qwen2_moe_family();
Family qwen3_moe_family();
Family granitemoe_family();
Family olmoe_family();
Family gpt_oss_family();
Family t5_family();
Family mt5_family();
Family arcee_family();

// GGUF files of Mixtral say that they are Llama's.
Architecture read_mixtral(ConfigReader& config);

}  // namespace qlora::model
