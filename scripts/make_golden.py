#!/usr/bin/env python3
"""Make a small random model and record what the reference computes with it.

    python3 scripts/make_golden.py --out DIR --seed 1 [--layers 3 ...]

needs torch, transformers 5.17, diffusers, tokenizers and safetensors, and
runs on the CPU in float32.  DIR gets what a released checkpoint has, plus
golden.json and golden.safetensors, whose tensors tests/golden/README.md
explains.

The stages are the modules of transformers; the loop around them is the one
of the original code, which transformers changes in three ways undone here:
it rounds no timestep to bfloat16, keeps the codec's past at speech_end, and
mixes a text guidance into the choice of the control token.
"""
import argparse
import contextlib
import itertools
import json
import math
import pathlib
import re
import string
import sys
from unittest import mock

import torch
from diffusers import DPMSolverMultistepScheduler
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import (DynamicCache,
                          VibeVoiceAcousticTokenizerFeatureExtractor,
                          VibeVoiceConfig, VibeVoiceForConditionalGeneration)

HOP = 3200
RATIOS = [8, 5, 5, 4, 2, 2]  # in the decoder's order
CONTROL = {"start": "<|vision_start|>", "end": "<|vision_end|>",
           "diffusion": "<|vision_pad|>", "eos": "<|endoftext|>"}
SYSTEM = (" Transform the text provided by various speakers into speech "
          "output, utilizing the distinct voice of each respective speaker.\n")
LINES = [(0, " Hello there, how are you today?"),
         (1, " I'm fine, thanks; we're well \u2014 "
             "\u5979\u8bf4\uff1a\u4f60\u597d\uff01"),
         (0, " 1234 quick foxes\u2026 d\u00e9j\u00e0 vu.")]
STORED = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32,
          "f8": torch.float8_e4m3fn}


def parse_args():
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("--out", type=pathlib.Path, required=True)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--search", type=int, default=1, metavar="N",
                   help="try N seeds until one speaks several segments, ends "
                        "by itself and never chooses narrowly")
    p.add_argument("--dtype", choices=[*STORED, "native"], default="bf16",
                   help="native: bf16, names and config of transformers 5")
    p.add_argument("--tied", action="store_true",
                   help="the output head is the embedding table")
    p.add_argument("--hidden", type=int, default=64)
    p.add_argument("--intermediate", type=int, default=160)
    p.add_argument("--layers", type=int, default=4)
    p.add_argument("--heads", type=int, default=4)
    p.add_argument("--kv-heads", type=int, default=2)
    p.add_argument("--head-layers", type=int, default=2)
    p.add_argument("--head-ratio", type=float, default=3.0)
    p.add_argument("--filters", type=int, default=2)
    p.add_argument("--depths", default="1-1-1-1-1-1-2",
                   help="blocks of the encoder's stages")
    p.add_argument("--latent", type=int, default=16)
    p.add_argument("--semantic", type=int, default=24)
    p.add_argument("--voices", default="9,5", help="lengths in frames")
    p.add_argument("--id-gap", type=int, default=0,
                   help="tokens to add before the control tokens, up to 600")
    p.add_argument("--tokenizer", type=pathlib.Path,
                   default=pathlib.Path(__file__).resolve().parent.parent /
                   "tests/golden/tiny_tied",
                   help="a folder with tokenizer.json, vocab.json, merges.txt")
    p.add_argument("--cfg-scale", type=float, default=1.3)
    p.add_argument("--steps", type=int, default=10)
    p.add_argument("--max-tokens", type=int, default=48)
    args = p.parse_args()
    args.depths = [int(n) for n in args.depths.split("-")]
    args.voices = [int(n) for n in args.voices.split(",")]
    args.is_native = args.dtype == "native"
    args.stored = torch.bfloat16 if args.is_native else STORED[args.dtype]
    if len(args.depths) != len(RATIOS) + 1:
        p.error(f"--depths needs {len(RATIOS) + 1} numbers")
    return args


# Tokenizer: that of another model, with control tokens moved up by merges of
# capitals that its text does not contain.

def write_tokenizer(args):
    vocab = json.loads((args.tokenizer / "vocab.json").read_text())
    merges = (args.tokenizer / "merges.txt").read_text().splitlines()
    whole = json.loads((args.tokenizer / "tokenizer.json").read_text())
    pairs = itertools.permutations(string.ascii_uppercase, 2)
    unused = [(a, b) for a, b in pairs if a + b not in vocab]
    for a, b in unused[:args.id_gap]:
        vocab[a + b] = len(vocab)
        merges.append(f"{a} {b}")
        whole["model"]["merges"].append([a, b])
    whole["model"]["vocab"] = vocab
    for token in whole["added_tokens"]:
        token["id"] += args.id_gap
    settings = json.loads((args.tokenizer / "tokenizer_config.json")
                          .read_text())
    settings["added_tokens_decoder"] = {
        str(int(i) + args.id_gap): token
        for i, token in settings["added_tokens_decoder"].items()}

    def dump(name, value, indent=None):
        (args.out / name).write_text(
            json.dumps(value, ensure_ascii=False, indent=indent))

    dump("vocab.json", vocab)
    dump("tokenizer.json", whole, 2)
    dump("tokenizer_config.json", settings, 1)
    (args.out / "merges.txt").write_text("\n".join(merges) + "\n")
    ids = {t["content"]: t["id"] for t in whole["added_tokens"]}
    control = {role: ids[text] for role, text in CONTROL.items()}
    return control, -(-(max(ids.values()) + 1) // 32) * 32


def build_prompt(args, control):
    """Token ids, pieces tokenized one by one."""
    tokenizer = Tokenizer.from_file(str(args.out / "tokenizer.json"))

    def encode(text):
        return tokenizer.encode(text, add_special_tokens=False).ids

    ids = encode(SYSTEM)
    if args.voices:
        ids += encode(" Voice input:\n")
    for i, frames in enumerate(args.voices):
        ids += (encode(f" Speaker {i}:") + [control["start"]] +
                [control["diffusion"]] * frames + [control["end"]] +
                encode("\n"))
    ids += encode(" Text input:\n")
    for speaker, text in LINES:
        ids += encode(f" Speaker {speaker}:{text}\n")
    return ids + encode(" Speech output:\n") + [control["start"]]


# Configurations: transformers' own, and the one of released checkpoints.

def native_config(args, control, vocab_size):
    codec = {"num_filters": args.filters, "depths": args.depths,
             "downsampling_ratios": RATIOS[::-1]}
    return VibeVoiceConfig(
        text_config={
            "model_type": "qwen2", "hidden_size": args.hidden,
            "intermediate_size": args.intermediate,
            "num_hidden_layers": args.layers,
            "num_attention_heads": args.heads,
            "num_key_value_heads": args.kv_heads, "vocab_size": vocab_size,
            "max_position_embeddings": 8192, "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default",
                                "rope_theta": 1000000.0},
            "tie_word_embeddings": args.tied, "bos_token_id": None,
            "eos_token_id": control["eos"], "pad_token_id": control["eos"]},
        audio_config={**codec, "hidden_size": args.latent,
                      "model_type": "vibevoice_acoustic_tokenizer"},
        semantic_model_config={
            **codec, "hidden_size": args.semantic,
            "model_type": "vibevoice_acoustic_tokenizer_encoder"},
        diffusion_head_config={
            "hidden_size": args.hidden, "latent_size": args.latent,
            "num_hidden_layers": args.head_layers,
            "intermediate_size": int(args.hidden * args.head_ratio)},
        pad_token_id=control["eos"], eos_token_id=control["eos"],
        audio_bos_token_id=control["start"],
        audio_eos_token_id=control["end"],
        audio_token_id=control["diffusion"])


def original_config(args, vocab_size):
    def codec(kind, vae_dim, **more):
        return {"causal": True, "channels": 1, "conv_bias": True,
                "conv_norm": "none", "corpus_normalize": 0.0,
                "disable_last_norm": True, "encoder_n_filters": args.filters,
                "encoder_depths": "-".join(map(str, args.depths)),
                "encoder_ratios": RATIOS, "layer_scale_init_value": 1e-6,
                "layernorm": "RMSNorm", "layernorm_elementwise_affine": True,
                "layernorm_eps": 1e-5, "mixer_layer": "depthwise_conv",
                "model_type": f"vibevoice_{kind}_tokenizer",
                "pad_mode": "constant", "vae_dim": vae_dim,
                "weight_init_value": 0.01, **more}

    return {
        "architectures": ["VibeVoiceForConditionalGeneration"],
        "model_type": "vibevoice",
        "acoustic_vae_dim": args.latent, "semantic_vae_dim": args.semantic,
        "acoustic_tokenizer_config": codec(
            "acoustic", args.latent, fix_std=0.5, std_dist_type="gaussian",
            decoder_depths=None, decoder_n_filters=args.filters,
            decoder_ratios=RATIOS),
        "semantic_tokenizer_config": codec(
            "semantic", args.semantic, fix_std=0, std_dist_type="none"),
        "decoder_config": {
            "model_type": "qwen2", "hidden_act": "silu",
            "hidden_size": args.hidden,
            "intermediate_size": args.intermediate,
            "num_hidden_layers": args.layers,
            "num_attention_heads": args.heads,
            "num_key_value_heads": args.kv_heads, "vocab_size": vocab_size,
            "max_position_embeddings": 8192, "rms_norm_eps": 1e-6,
            "rope_theta": 1000000.0, "rope_scaling": None,
            "sliding_window": None, "use_sliding_window": False,
            "tie_word_embeddings": args.tied, "torch_dtype": "bfloat16"},
        "diffusion_head_config": {
            "model_type": "vibevoice_diffusion_head", "ddpm_batch_mul": 4,
            "ddpm_beta_schedule": "cosine", "ddpm_num_inference_steps": 20,
            "ddpm_num_steps": 1000, "diffusion_type": "ddpm",
            "head_ffn_ratio": args.head_ratio,
            "head_layers": args.head_layers, "hidden_size": args.hidden,
            "latent_size": args.latent, "prediction_type": "v_prediction",
            "rms_norm_eps": 1e-5, "speech_vae_dim": args.latent},
        "tie_word_embeddings": args.tied, "torch_dtype": "bfloat16"}


# Names: from transformers 5 to released checkpoints, in this order.

RENAMES = [
    (r"^model\.audio_tower\.", "model.acoustic_tokenizer."),
    (r"^model\.semantic_tokenizer_encoder\.",
     "model.semantic_tokenizer.encoder."),
    (r"\.mixer\.conv\.", ".mixer.conv.conv.conv."),
    (r"\.head\.conv\.", ".head.conv.conv."),
    (r"\.encoder\.stem\.conv\.conv\.",
     ".encoder.downsample_layers.0.0.conv.conv."),
    (r"\.decoder\.stem\.conv\.conv\.",
     ".decoder.upsample_layers.0.0.conv.conv."),
    (r"\.stem\.stage\.", ".stages.0."),
    (r"\.conv_layers\.(\d+)\.stage\.",
     lambda m: f".stages.{int(m[1]) + 1}."),
    (r"\.conv_layers\.(\d+)\.conv\.conv\.",
     lambda m: f".downsample_layers.{int(m[1]) + 1}.0.conv.conv."),
    (r"\.conv_layers\.(\d+)\.convtr\.convtr\.",
     lambda m: f".upsample_layers.{int(m[1]) + 1}.0.convtr.convtr."),
    (r"^model\.diffusion_head\.", "model.prediction_head."),
    (r"\.timestep_proj\.fc1\.", ".t_embedder.mlp.0."),
    (r"\.timestep_proj\.fc2\.", ".t_embedder.mlp.2."),
    (r"(prediction_head\.layers\.\d+)\.linear\.", r"\1.adaLN_modulation.1."),
    (r"\.final_layer\.linear_1\.", ".final_layer.adaLN_modulation.1."),
    (r"\.final_layer\.linear_2\.", ".final_layer.linear."),
    (r"^model\.multi_modal_projector\.", "model.acoustic_connector."),
    (r"_connector\.linear_1\.", "_connector.fc1."),
    (r"_connector\.linear_2\.", "_connector.fc2."),
    (r"_connector\.act\.", "_connector.norm."),
    (r"\.latent_scaling_factor$", ".speech_scaling_factor"),
    (r"\.latent_bias_factor$", ".speech_bias_factor"),
]


def original_name(name):
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


# Weights: random, of sizes that keep signals near 1, exact in --dtype.

def draw(name, shape, rng):
    if name.endswith("latent_scaling_factor"):
        return torch.tensor(0.2)
    if name.endswith("latent_bias_factor"):
        return torch.tensor(-0.05)
    x = torch.randn(shape, generator=rng)
    if re.search(r"(norm|layernorm|\.act)\.weight$", name):
        return 1 + 0.1 * x
    if name.endswith("gamma"):
        return 0.3 * x
    if name.endswith("bias"):
        return 0.1 * x
    if name.endswith(("embed_tokens.weight", "lm_head.weight")):
        # small: where both are one, a token would else repeat itself
        return 0.15 * x
    fan_in = 2 * shape[0] if ".convtr." in name else math.prod(shape[1:])
    return x / math.sqrt(fan_in)


def fill(model, args, rng):
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(draw(name, p.shape, rng).to(args.stored).float())


def make_model(args, control, vocab_size, seed):
    rng = torch.Generator(torch.get_default_device()).manual_seed(seed)
    model = VibeVoiceForConditionalGeneration._from_config(
        native_config(args, control, vocab_size),
        attn_implementation="eager").float().eval()
    fill(model, args, rng)
    model.tie_weights()
    # the head sees timesteps as the bfloat16 training did
    model.model.diffusion_head.register_forward_pre_hook(
        lambda _, inputs: (inputs[0], inputs[1].bfloat16().to(inputs[1])))
    return model, rng


def write_model(args, model, vocab_size):
    tensors = {}
    for name, x in model.state_dict().items():
        if name == "lm_head.weight" and args.tied and not args.is_native:
            continue
        if not args.is_native:
            name = original_name(name)
        tensors[name] = x.to(args.stored).clone().contiguous()
        assert torch.equal(tensors[name].float(), x), name
    save_file(tensors, args.out / "model.safetensors", {"format": "pt"})
    config = (model.config.to_dict() if args.is_native else
              original_config(args, vocab_size))
    (args.out / "config.json").write_text(json.dumps(config, indent=1))
    (args.out / "preprocessor_config.json").write_text(json.dumps({
        "processor_class": "VibeVoiceProcessor",
        "speech_tok_compress_ratio": HOP, "db_normalize": True,
        "audio_processor": {
            "feature_extractor_type": "VibeVoiceTokenizerProcessor",
            "sampling_rate": 24000, "normalize_audio": True,
            "target_dB_FS": -25, "eps": 1e-6}}, indent=1))


# Recording.

@contextlib.contextmanager
def draws(*tensors):
    """Let the reference draw these tensors, in this order."""
    queue = list(tensors)

    def take(*args, **kwargs):
        return queue.pop(0).clone()

    with mock.patch.object(torch, "randn", take), \
            mock.patch.object(torch, "randn_like", take):
        yield
    assert not queue, "the reference drew less than expected"


def make_voices(args, rng):
    """Chords under noise; whole frames, so that no tail is padded."""
    voices = []
    for frames in args.voices:
        t = torch.arange(frames * HOP) / 24000
        pitch = 100 + 200 * torch.rand(3, 1, generator=rng)
        x = torch.sin(2 * math.pi * pitch * t).sum(0) * 0.1
        voices.append(x + 0.02 * torch.randn(len(t), generator=rng))
    return voices


def record_voices(args, model, rng, out):
    """The embeddings of all voices, [frames][hidden]."""
    raw = make_voices(args, rng)
    features = VibeVoiceAcousticTokenizerFeatureExtractor()(
        [x.numpy() for x in raw], sampling_rate=24000)
    values, mask = features["input_values"], features["padding_mask"]
    for i, x in enumerate(raw):
        out[f"prompt.voice{i}_raw"] = x
        out[f"prompt.voice{i}_normalized"] = values[i, 0, :len(x)]
    out["prompt.input_values"] = values[:, 0]
    shape = (len(raw), max(args.voices), args.latent)
    out["voice.noise0"] = torch.randn(shape[0], generator=rng)
    out["voice.noise1"] = torch.randn(shape, generator=rng)
    with draws(out["voice.noise0"], out["voice.noise1"]):
        out["voice.latents_sampled"] = model.model.audio_tower.encode(
            values).latents
    with draws(out["voice.noise0"], out["voice.noise1"]):
        found = model.model.get_audio_features(values, mask)
    out["voice.features"] = found.last_hidden_state
    out["voice.embeds"] = found.pooler_output


class Branch:
    """A sequence that the language model reads."""

    def __init__(self, model):
        self.model = model
        self.cache = DynamicCache(
            config=model.config.get_text_config(decoder=True))

    def read(self, embeds):
        return self.model(inputs_embeds=embeds, past_key_values=self.cache,
                          use_cache=True, logits_to_keep=1)


class Recorder:
    """The generation loop of the original code, one dialogue."""

    def __init__(self, args, model, control, rng, out):
        self.args, self.model, self.control = args, model, control
        self.rng, self.out = rng, out
        self.solver = DPMSolverMultistepScheduler(
            beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
        self.positive, self.negative = Branch(model), Branch(model)
        self.decoder_past = self.semantic_past = None
        self.frames = 0
        self.audio, self.latents = [], []

    def embed(self, ids):
        return self.model.get_input_embeddings()(torch.tensor([ids]))

    def balance(self, prompt):
        """Make no control token the favourite of every hidden state.

        Random hidden states share a large mean.  Its share in the logits is
        set, so that what varies decides: mostly for frames, seldom to end.
        """
        h = Branch(self.model).read(self.embed_prompt(prompt))
        mean = h.last_hidden_state[0].mean(0)
        rows = self.model.lm_head.weight
        for role, logit in {"start": 0.0, "end": 0.0, "diffusion": 1.0,
                            "eos": -0.5}.items():
            row = rows[self.control[role]]
            row += (logit - row @ mean) * mean / (mean @ mean)
            row.copy_(row.to(self.args.stored).float())

    def embed_prompt(self, ids):
        embeds = self.embed(ids)
        if self.args.voices:
            mask = torch.tensor(ids) == self.control["diffusion"]
            embeds[0, mask] = self.out["voice.embeds"]
        return embeds

    def keep(self, **tensors):
        for name, x in tensors.items():
            self.out[f"frame{self.frames:03d}.{name}"] = x

    def frame(self, h, consumed):
        """Make a frame from hidden state h; return its embedding."""
        net, args = self.model.model, self.args
        positive = h[:, -1]
        negative = self.negative.read(consumed).last_hidden_state[:, -1]
        noise = torch.randn(2, args.latent, generator=self.rng)
        with draws(noise):
            latent = self.model._sample_audio_latent(
                positive, negative, self.solver, args.steps, args.cfg_scale)
        decoded = self.model._decode_audio_latent(
            latent, torch.tensor([True]), 1, self.decoder_past)
        self.decoder_past = decoded.padding_cache
        heard = net.semantic_tokenizer_encoder(
            decoded.audio, padding_cache=self.semantic_past, use_cache=True)
        self.semantic_past = heard.padding_cache
        embedding = (net.multi_modal_projector(latent) +
                     net.semantic_connector(heard.latents))
        self.keep(pos_condition=positive, neg_condition=negative,
                  noise0=noise, latent=latent, audio=decoded.audio,
                  semantic=heard.latents, next_embed=embedding)
        self.audio.append(decoded.audio[0])
        self.latents.append(latent)
        self.frames += 1
        return embedding

    def speak(self, prompt):
        """Generate; return the tokens and the logits of all four."""
        columns = [self.control[k] for k in CONTROL]
        x = self.embed_prompt(prompt)
        consumed = self.embed([self.control["start"]])
        tokens, logits = [], []
        while len(tokens) < self.args.max_tokens:
            y = self.positive.read(x)
            logits.append(y.logits[0, -1, columns])
            # the first of the largest by id, as argmax over the vocabulary
            token = max(sorted(columns),
                        key=lambda i: logits[-1][columns.index(i)].item())
            tokens.append(token)
            if token == self.control["eos"]:
                break
            if token == self.control["end"]:
                self.decoder_past = self.semantic_past = None
            if token == self.control["start"]:
                self.negative = Branch(self.model)
            x = (self.frame(y.last_hidden_state, consumed)
                 if token == self.control["diffusion"] else
                 self.embed([token]))
            consumed = x
        return tokens, torch.stack(logits)


def record_codec(args, model, latents, out):
    net = model.model
    out["codec.decode_input"] = torch.cat(latents, 1)
    out["codec.decode_oneshot"] = net.audio_tower.decode(
        out["codec.decode_input"]).audio
    if args.voices:
        voice = out["prompt.voice0_normalized"][None, None]
        out["codec.encode_mean_voice0"] = net.audio_tower.encode(
            voice, sample=False).latents
        out["codec.semantic_voice0"] = net.semantic_tokenizer_encoder(
            voice).latents


def record_solver(solver, out):
    for n in (10, 20):
        solver.set_timesteps(n)
        out[f"dpm.timesteps{n}"] = solver.timesteps
        out[f"dpm.sigmas{n}"] = solver.sigmas


def is_telling(control, tokens, logits):
    """Does the dialogue take every path, and no choice narrowly?"""
    best = logits.sort(1, descending=True).values
    return (tokens[-1] == control["eos"] and
            all(tokens.count(control[k]) for k in ("start", "end")) and
            tokens.count(control["diffusion"]) >= 8 and
            (best[:, 0] - best[:, 1]).min() > 0.02)


@torch.no_grad()
def record(args, control, prompt, vocab_size, seed):
    """Everything of one seed: model, tensors, tokens, is it telling."""
    out = {}
    model, rng = make_model(args, control, vocab_size, seed)
    if args.voices:
        record_voices(args, model, rng, out)
    recorder = Recorder(args, model, control, rng, out)
    recorder.balance(prompt)
    tokens, logits = recorder.speak(prompt)
    if recorder.frames:
        out["generated.audio"] = torch.cat(recorder.audio, 1)
        record_codec(args, model, recorder.latents, out)
    record_solver(recorder.solver, out)
    out["prompt.ids"] = torch.tensor(prompt)
    out["generated.ids"] = torch.tensor(tokens)
    out["generated.logits_start_end_diff_eos"] = logits
    return model, out, tokens, is_telling(control, tokens, logits)


def main():
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    control, vocab_size = write_tokenizer(args)
    prompt = build_prompt(args, control)
    for seed in range(args.seed, args.seed + args.search):
        model, out, tokens, telling = record(args, control, prompt,
                                             vocab_size, seed)
        counts = {k: tokens.count(i) for k, i in control.items()}
        print(f"seed {seed}: {len(tokens)} tokens, {counts}")
        if telling:
            break
    else:
        if args.search > 1:
            sys.exit(f"no telling dialogue in {args.search} seeds")
    write_model(args, model, vocab_size)
    save_file({k: x.clone().contiguous() for k, x in out.items()},
              args.out / "golden.safetensors")
    (args.out / "golden.json").write_text(json.dumps({
        "seed": seed, "new_tokens": tokens, **control,
        "cfg_scale": args.cfg_scale, "steps": args.steps,
        "prompt_len": len(prompt), "max_new_tokens": args.max_tokens,
        "lines": LINES, "frames": counts["diffusion"]},
        ensure_ascii=False, indent=1))


if __name__ == "__main__":
    main()
