"""Writes ``model_types.json``: the causal language models of the installed ``transformers`` and their settings.

``python scripts/write_model_types.py`` after an upgrade of the library. Text decoders only: what needs
an encoder beside it, an image, or ``is_decoder`` to be causal is left out.
"""

import json

import transformers
from transformers import AutoConfig, PreTrainedConfig

from proxy_models.families.architecture import MODEL_TYPES

NAMES = """
afmoe apertus arcee bailing_hybrid bamba biogpt bloom codegen cohere cohere2 cohere2_moe deepseek_v2
deepseek_v3 deepseek_v4 diffllama doge dots1 ernie4_5 ernie4_5_moe exaone4 falcon falcon_h1 falcon_mamba
flex_olmo gemma gemma2 gemma3_text gemma4_unified_text glm glm4 glm4_moe gpt2 gpt_bigcode gpt_neo
gpt_neox gpt_oss gptj granite granite_swa granitemoe granitemoe_swa granitemoehybrid granitemoeshared
helium hunyuan_v1_dense hunyuan_v1_moe hy_v3 hy_v4 hyperclovax internlm3 jais2 jamba jetmoe kimi_linear
lfm2 lfm2_moe lfm3 llama llama4_text mamba mamba2 mimo_v2_flash minicpm3 minimax minimax_m2
minimax_m3_vl_text ministral ministral3 mistral mixtral nanochat nemotron nemotron_h olmo olmo2 olmo3
olmo_hybrid olmoe opt persimmon phi phi3 phimoe qwen2 qwen2_moe qwen3 qwen3_5_moe_text qwen3_5_text
qwen3_moe qwen3_next qwen4_exp_text recurrent_gemma rwkv seed_oss smollm3 solar_open stablelm starcoder2
vaultgemma xlstm zamba2
""".split()  # noqa: SIM905 - a list of a hundred lines reads worse

LEFT_OUT = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "vocab_size",
    "transformers_version",
    "model_type",
)


def settings_of(name: str) -> set[str]:
    """What the configuration of a model type can be given, its aliases included."""
    config = AutoConfig.for_model(name)
    return ({*config.to_dict(), *config.attribute_map}) - set(LEFT_OUT)


def main() -> None:
    """Write the file."""
    common = set(PreTrainedConfig().to_dict()) - set(LEFT_OUT)
    content = {
        "transformers": transformers.__version__,
        "common": sorted(common),
        "types": {name: sorted(settings_of(name) - common) for name in sorted(NAMES)},
    }
    text = json.dumps(content, indent=1)
    MODEL_TYPES.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
