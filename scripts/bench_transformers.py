#!/usr/bin/env python3
"""Time the reference implementation's frames on this machine's GPU.

    python3 scripts/bench_transformers.py [--size 1.5b 7b] [--frames 30]

needs torch with CUDA and transformers 5.17.  The model has the published
dimensions and random bfloat16 weights; a frame is what generation repeats:
the language model once for each branch (no third pass for a text guidance,
which the original does not have), ten steps of the head, the solver, decoder,
semantic encoder and connectors.  Prints a JSON line for each size, medians in
ms.
"""
import argparse
import json
import statistics
import time

import torch
from transformers import (DynamicCache, VibeVoiceConfig,
                          VibeVoiceForConditionalGeneration)

SIZES = {
    "1.5b": dict(hidden_size=1536, intermediate_size=8960,
                 num_attention_heads=12, num_key_value_heads=2,
                 vocab_size=151936, tie_word_embeddings=True),
    "7b": dict(hidden_size=3584, intermediate_size=18944,
               num_attention_heads=28, num_key_value_heads=4,
               vocab_size=152064, tie_word_embeddings=False),
}
CODEC = {"num_filters": 32, "depths": [3, 3, 3, 3, 3, 3, 8],
         "downsampling_ratios": [2, 2, 4, 5, 5, 8]}


def make_model(size):
    dims = SIZES[size]
    hidden = dims["hidden_size"]
    config = VibeVoiceConfig(
        text_config={"model_type": "qwen2", "num_hidden_layers": 28,
                     "max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
                     "rope_parameters": {"rope_type": "default",
                                         "rope_theta": 1000000.0}, **dims},
        audio_config={**CODEC, "hidden_size": 64,
                      "model_type": "vibevoice_acoustic_tokenizer"},
        semantic_model_config={
            **CODEC, "hidden_size": 128,
            "model_type": "vibevoice_acoustic_tokenizer_encoder"},
        diffusion_head_config={"hidden_size": hidden, "latent_size": 64,
                               "num_hidden_layers": 4,
                               "intermediate_size": 3 * hidden})
    with torch.device("cuda"):
        torch.set_default_dtype(torch.bfloat16)
        model = VibeVoiceForConditionalGeneration._from_config(
            config, attn_implementation={"text_config": "sdpa", "": "eager"}
        ).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0, 0.02)
    return model


class Frame:
    """One dialogue; run() makes its next frame."""

    def __init__(self, model, steps):
        self.model, self.steps = model, steps
        text = model.config.get_text_config(decoder=True)
        self.caches = [DynamicCache(config=text) for _ in range(2)]
        self.decoder_past = self.semantic_past = None
        self.x = torch.randn(1, 1, text.hidden_size, device="cuda") * 0.02
        self.times = {}

    def read(self, cache):
        return self.model(inputs_embeds=self.x, past_key_values=cache,
                          use_cache=True, logits_to_keep=1)

    def language(self):
        self.conditions = torch.cat([
            self.read(cache).last_hidden_state[:, -1]
            for cache in self.caches])

    def head(self):
        head = self.model.model.diffusion_head
        x = torch.randn(1, 64, device="cuda")
        for t in torch.linspace(999, 99, self.steps, device="cuda"):
            v = head(x.repeat(2, 1), t.repeat(2), self.conditions)
            v = v[1:] + 1.3 * (v[:1] - v[1:])
            x = 0.9 * x + 0.2 * (0.7 * x - 0.7 * v)
        self.latent = x[:, None]

    def decode(self):
        out = self.model._decode_audio_latent(
            self.latent, torch.tensor([True], device="cuda"), 1,
            self.decoder_past)
        self.decoder_past, self.audio = out.padding_cache, out.audio

    def listen(self):
        net = self.model.model
        heard = net.semantic_tokenizer_encoder(
            self.audio, padding_cache=self.semantic_past, use_cache=True)
        self.semantic_past = heard.padding_cache
        self.x = (net.multi_modal_projector(self.latent) +
                  net.semantic_connector(heard.latents))

    def run(self):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for stage in (self.language, self.head, self.decode, self.listen):
            start = time.perf_counter()
            stage()
            torch.cuda.synchronize()
            self.times.setdefault(stage.__name__, []).append(
                time.perf_counter() - start)
        self.times.setdefault("frame", []).append(
            time.perf_counter() - begin)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=SIZES, nargs="+", default=["1.5b"])
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--steps", type=int, default=10)
    args = parser.parse_args()
    for size in args.size:
        with torch.inference_mode():
            frame = Frame(make_model(size), args.steps)
            for _ in range(args.frames + 5):
                frame.run()
        print(json.dumps({
            "size": size, "steps": args.steps, **{
                name: round(1e3 * statistics.median(times[5:]), 2)
                for name, times in frame.times.items()}}), flush=True)
        del frame


if __name__ == "__main__":
    main()
