"""A tiny model for vLLM, in Hugging Face's form: it recites one sentence, whatever it is asked.

How it works. The embedding lights one dimension per word of the sentence, and the output head maps each lit
dimension to the word that follows; any other token lights dimension 0, "not begun", whose successor is the
first word. Attention and feed-forward hold zeros, so they add nothing: what vLLM does is the same, and the
answer certain at any temperature. Prompts are read byte by byte, so their tokens can be counted.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ai_proxy.data import DEMO_SENTENCE

type Tensor = NDArray[np.float32]

CONTEXT = 1024
"""Most tokens of a prompt and its answer."""
DIM = 64
HEADS = 2
SUCCESSOR = 4.0
"""Weight from a lit dimension to the word that follows: a logit of 32 against 0 elsewhere."""
END = "<|end|>"
SPACE = "\u2581"
"""How a space is written in a token."""
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant: "

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
FIRST, *REST = DEMO_SENTENCE.split()
WORDS = [FIRST, *(SPACE + word for word in REST)]
TOKENS = [*BYTES, *WORDS, END]
"""By their ids."""


def prompt_tokens(text: str, role: str = "user") -> int:
    """Return how many tokens a chat of one message has."""
    return len(f"{role}: {text}\nassistant: ".encode())


def write_model(folder: Path) -> None:
    """Write the model into a folder that is there."""
    files = {
        "config.json": config(),
        "tokenizer.json": tokenizer(),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": END,
            "model_max_length": CONTEXT,
            "chat_template": TEMPLATE,
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(as_safetensors(tensors()))


def config() -> Mapping[str, object]:
    """Describe the architecture."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "vocab_size": len(TOKENS),
        "hidden_size": DIM,
        "intermediate_size": DIM,
        "num_hidden_layers": 1,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "bos_token_id": None,
        "eos_token_id": TOKENS.index(END),
        "tie_word_embeddings": False,
    }


def tokenizer() -> Mapping[str, object]:
    """Describe how text is cut: no merges, so that every character falls back to its bytes."""
    end = {"id": TOKENS.index(END), "content": END, "special": True, "normalized": False}
    return {
        "version": "1.0",
        "added_tokens": [end | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)],
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "byte_fallback": True,
            "vocab": {token: number for number, token in enumerate(TOKENS)},
            "merges": [],
        },
    }


def tensors() -> Mapping[str, Tensor]:
    """Return every weight by its name."""
    square: Tensor = np.zeros((DIM, DIM), np.float32)
    ones: Tensor = np.ones(DIM, np.float32)
    layer = {f"self_attn.{part}_proj": square for part in "qkvo"}
    layer |= {f"mlp.{part}_proj": square for part in ("gate", "up", "down")}
    layer |= dict.fromkeys(("input_layernorm", "post_attention_layernorm"), ones)
    named = {f"model.layers.0.{name}": weight for name, weight in layer.items()}
    named |= {"model.embed_tokens": embedding(), "model.norm": ones, "lm_head": output_head()}
    return {f"{name}.weight": weight for name, weight in named.items()}


def embedding() -> Tensor:
    """Light dimension n for the sentence's n-th word, 0 for any other token."""
    lit = np.zeros((len(TOKENS), DIM), np.float32)
    for number, token in enumerate(TOKENS):
        lit[number, WORDS.index(token) + 1 if token in WORDS else 0] = 1.0
    return lit


def output_head() -> Tensor:
    """Let each lit dimension vote for the token that follows."""
    head = np.zeros((len(TOKENS), DIM), np.float32)
    for position, follower in enumerate((*WORDS, END)):
        head[TOKENS.index(follower), position] = SUCCESSOR
    return head


def as_safetensors(weights: Mapping[str, Tensor]) -> bytes:
    """Lay weights out as the safetensors format has it: length of the header, header, numbers."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, weight in weights.items():
        end = offset + weight.nbytes
        header[name] = {"dtype": "F32", "shape": weight.shape, "data_offsets": (offset, end)}
        offset = end
    described = json.dumps(header).encode()
    numbers = b"".join(weight.astype("<f4").tobytes() for weight in weights.values())
    return len(described).to_bytes(8, "little") + described + numbers
