"""Text of tfmodels beside transformers', token for token, over checkpoints with random weights.

python examples/benchmarks/parity.py PYTHON [--models gpt2 llama mistral qwen2 bart t5] [--seed 0]

PYTHON has transformers (5 or later) and torch: it writes a small checkpoint of each class, whose end token
is one that its texts hold, and continues each prompt alone. tfmodels loads the checkpoint and continues all
prompts in one batch, padded on the right and on the left. Prints how many texts differ, and which.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

NEW, LENGTHS = 16, (9, 3, 6, 12)
# The name of a case -> options of tfmodels.
CASES = {
    "greedy": {},
    "no_repeat_ngram_size 2": {"no_repeat_ngram_size": 2},
    "no_repeat_ngram_size 3": {"no_repeat_ngram_size": 3},
    "repetition_penalty": {"repetition_penalty": 1.4},
    "bad_words": {"bad_words": ((5,), (7, 8), (30,), (44,))},
    "min_new_tokens": {"min_new_tokens": 8},
}
for beams in (4, 5):
    for length_penalty in (0.0, 1.0, 2.0):
        for early_stopping in (False, True):
            CASES[f"beam {beams}, length_penalty {length_penalty:g}, early_stopping {early_stopping}"] = {
                "num_beams": beams,
                "length_penalty": length_penalty,
                "early_stopping": early_stopping,
            }
CASES |= {f"beam 4, {name}": {"num_beams": 4} | CASES[name] for name in list(CASES)[1:6]}
CASES["beam 4, num_return_sequences 3"] = {"num_beams": 4, "num_return_sequences": 3}

_TRANSFORMERS = """
import json, sys
import numpy as np, torch, transformers
folder, name, seed, new, lengths, cases = sys.argv[1], sys.argv[2], *map(json.loads, sys.argv[3:])
words = 97
decoder = dict(vocab_size=words, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
               num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
               bos_token_id=2, pad_token_id=0)
make = {
    "gpt2": lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=words, n_positions=64, n_embd=32, n_layer=3, n_head=4, bos_token_id=2)),
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**decoder)),
    "mistral": lambda: transformers.MistralForCausalLM(
        transformers.MistralConfig(sliding_window=6, **decoder)),
    "qwen2": lambda: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**decoder)),
    "bart": lambda: transformers.BartForConditionalGeneration(transformers.BartConfig(
        vocab_size=words, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64,
        bos_token_id=2, pad_token_id=0, decoder_start_token_id=2, forced_eos_token_id=None)),
    "t5": lambda: transformers.T5ForConditionalGeneration(transformers.T5Config(
        vocab_size=words, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, pad_token_id=0,
        decoder_start_token_id=0)),
}[name]
torch.manual_seed(seed)
model = make().eval()
with torch.no_grad():  # wide apart, so that no two tokens are as good as equal
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.copy_(torch.randn_like(parameter) * 0.25)
rng = np.random.default_rng(seed)
prompts = [rng.integers(3, words, length).tolist() for length in lengths]

def write(prompt, end, options):
    ids = torch.tensor([prompt])
    options = {{"bad_words": "bad_words_ids"}.get(key, key): value for key, value in options.items()}
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False,
                         pad_token_id=0, eos_token_id=end, **options)
    out = out[:, 1 if model.config.is_encoder_decoder else len(prompt):].tolist()
    return [row[:row.index(end) + 1] if end in row else row for row in out]

model.generation_config.eos_token_id = None
found = [write(prompt, None, {"num_beams": beams})[0] for prompt in prompts for beams in (1, 4)]
# A bad word that is the end token transformers passes over; tfmodels never writes it.
bad = {token for word in cases["bad_words"]["bad_words"] for token in word}
late = [token for row in found for token in set(row[4:]) - set(row[:3]) - bad if token > 2]
end = max(late, key=late.count)
model.config.eos_token_id = model.generation_config.eos_token_id = end
model.save_pretrained(folder)
texts = {case: [row for prompt in prompts for row in write(prompt, end, options)]
         for case, options in cases.items()}
print(json.dumps({"prompts": prompts, "texts": texts, "version": transformers.__version__}))
"""


def compare(name, python, seed):
    """How many texts were compared, and the cases in which some differ."""
    import numpy as np

    import tfmodels

    with tempfile.TemporaryDirectory() as folder:
        folder = str(pathlib.Path(folder, name))
        arguments = [folder, name, *map(json.dumps, (seed, NEW, LENGTHS, CASES))]
        out = subprocess.run(
            [python, "-c", _TRANSFORMERS, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        theirs = json.loads(out.stdout)
        model = tfmodels.from_pretrained(folder)
    ids_name = "encoder_token_ids" if "encoder_token_ids" in model.input_pairs else "token_ids"
    names = ids_name, model.input_pairs[ids_name][0]
    count, different = 0, []
    for side in ("right", "left"):
        inputs = np.zeros((2, len(LENGTHS), max(LENGTHS)), "int32")
        for row, prompt in enumerate(theirs["prompts"]):
            place = slice(len(prompt)) if side == "right" else slice(-len(prompt), None)
            inputs[:, row, place] = prompt, [1] * len(prompt)
        for case, options in CASES.items():
            method = {"method": "beam"} if "num_beams" in options else {}
            found = tfmodels.generate(
                model, dict(zip(names, inputs, strict=True)), max_new_tokens=NEW, **method, **options
            )
            rows = found.token_ids.reshape(-1, found.token_ids.shape[-1])
            ours = [row[:length].tolist() for row, length in zip(rows, found.lengths.ravel(), strict=True)]
            count += len(ours)
            if ours != theirs["texts"][case]:
                different.append(f"{case}, padded on the {side}")
    print(
        f"{name}: {count} texts, transformers {theirs['version']}: {len(different)} cases differ {different}",
        flush=True,
    )
    return count, different


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("python", help="a Python that has transformers and torch")
    parser.add_argument("--models", nargs="+", default=["gpt2", "llama", "mistral", "qwen2", "bart", "t5"])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    results = [compare(name, options.python, options.seed) for name in options.models]
    print(f"{sum(count for count, _ in results)} texts in all")
    sys.exit(any(different for _, different in results))


if __name__ == "__main__":
    main()
