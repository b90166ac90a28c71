"""Generation in PyTorch, step by step as the program does it, in batches.

Only for judging checkpoints: the program is the product.
"""
import os

import numpy as np
import torch

import bpe
import model as M
from bpe import Tokenizer
from export import load_weights
from speech import normalise

SIGMA = 0.5 / 0.8


def prompt_of(tok, lines, n_frames):
    """(ids, columns of voice frames) for [(speaker, text)] and voice lengths."""
    start = tok.special["<|vision_start|>"]
    end = tok.special["<|vision_end|>"]
    pad = tok.special["<|vision_pad|>"]
    ids, slots = tok.encode(bpe.SYSTEM), []
    if n_frames:
        ids += tok.encode(bpe.VOICE)
        for i, n in enumerate(n_frames):
            ids += tok.encode(" Speaker %d:" % i) + [start]
            slots += range(len(ids), len(ids) + n)
            ids += [pad] * n + [end] + tok.encode("\n")
    ids += tok.encode(bpe.TEXT)
    for who, text in lines:
        ids += tok.encode(" Speaker %d: %s\n" % (who, text.strip()))
    return ids + tok.encode(bpe.SPEECH) + [start], slots


class Session:
    """One batch of scripts; each is (lines, [voice samples, ...])."""

    def __init__(self, net, tok, scripts, seed=0, sampled_voice=True):
        self.net, self.m, self.tok = net, net.model, tok
        self.rng = torch.Generator().manual_seed(seed)
        self.sampled = sampled_voice
        self.scale = net.model.speech_scaling_factor.item()
        self.bias = net.model.speech_bias_factor.item()
        self.prefill([self.prompt(*s) for s in scripts])

    def voice(self, samples):
        x = torch.from_numpy(normalise(np.asarray(samples, np.float32)))
        n = -(-len(x) // M.HOP)
        x = torch.nn.functional.pad(x, (0, n * M.HOP - len(x)))
        mu = self.m.acoustic_tokenizer.encoder(x[None, None])[0].T
        if self.sampled:
            g = torch.randn((), generator=self.rng)
            mu = mu + SIGMA * g * torch.randn(mu.shape, generator=self.rng)
        return self.m.acoustic_connector((mu + self.bias) * self.scale)

    def prompt(self, lines, voices):
        feats = [self.voice(v) for v in voices]
        ids, slots = prompt_of(self.tok, lines, [len(f) for f in feats])
        e = self.m.language_model.embed_tokens.weight[torch.tensor(ids)]
        if feats:
            e = e.clone()
            e[torch.tensor(slots)] = torch.cat(feats)
        return e

    def prefill(self, prompts):
        longest = max(len(p) for p in prompts)
        self.length = torch.tensor([len(p) for p in prompts])
        B = len(prompts)
        x = torch.zeros(B, longest, prompts[0].shape[1])
        self.real = torch.zeros(B, longest, dtype=torch.bool)
        for i, p in enumerate(prompts):
            x[i, longest - len(p):] = p
            self.real[i, longest - len(p):] = True
        pos = (self.real.long().cumsum(1) - 1).clamp(min=0)
        causal = torch.ones(longest, longest, dtype=torch.bool).tril()
        mask = (self.real[:, None] & causal) | torch.eye(longest,
                                                         dtype=torch.bool)
        self.cache, self.negative = {}, {}
        h, _ = self.m.language_model(x, pos, mask[:, None], self.cache)
        self.h, self.pos = h[:, -1], pos[:, -1] + 1
        self.n_negative = 0

    def advance(self, e):
        """One position of the positive branch."""
        self.real = torch.cat([self.real, torch.ones(len(e), 1,
                                                     dtype=torch.bool)], 1)
        h, _ = self.m.language_model(e[:, None], self.pos[:, None],
                                     self.real[:, None, None], self.cache)
        self.h, self.pos = h[:, 0], self.pos + 1

    def against(self, e):
        """One position of the negative branch."""
        B = len(e)
        pos = torch.full((B, 1), self.n_negative)
        mask = torch.ones(B, 1, 1, self.n_negative + 1, dtype=torch.bool)
        h, _ = self.m.language_model(e[:, None], pos, mask, self.negative)
        self.n_negative += 1
        return h[:, 0]

    def latent(self, h, h_neg, cfg, steps):
        head = self.m.prediction_head

        def velocity(x, t):
            t = torch.full((len(x),), t)
            v = head(x, t, h)
            if cfg == 1.0:
                return v
            u = head(x, t, h_neg)
            return u + cfg * (v - u)
        x = torch.randn(len(h), 64, generator=self.rng)
        return M.solve(velocity, x, steps)

    def speak(self, cfg=1.3, steps=10):
        """[(samples, ended by itself)] of every script."""
        m, special = self.m, self.tok.special
        names = ["<|vision_pad|>", "<|vision_end|>", "<|endoftext|>",
                 "<|vision_start|>"]
        rows = m.language_model.embed_tokens.weight[
            torch.tensor([special[n] for n in names])]
        B = len(self.h)
        audio = [[] for _ in range(B)]
        state = ["speaking"] * B
        streams = {}, {}
        e = rows[3].expand(B, -1)            # what the negative consumes first
        for step in range(int(2 * self.length.max())):
            choice = (self.h @ rows.T).argmax(-1).tolist()
            for i, c in enumerate(choice):
                if state[i] == "ended":
                    state[i] = "done" if c == 2 else "odd"
                elif state[i] == "speaking" and step >= 2 * self.length[i]:
                    state[i] = "cap"
                elif state[i] == "speaking" and c:
                    state[i] = "ended" if c == 1 else "odd"
            live = [i for i in range(B) if state[i] == "speaking"]
            if not live and "ended" not in state:
                break
            x = self.latent(self.h, self.against(e), cfg, steps)
            z = (x / self.scale - self.bias)[:, :, None]
            y = m.acoustic_tokenizer.decoder(z, streams[0])
            s = m.semantic_tokenizer.encoder(y, streams[1])[:, :, 0]
            e = m.acoustic_connector(x) + m.semantic_connector(s)
            for i in live:
                audio[i].append(y[i, 0].numpy())
            fed = e.clone()
            for i in range(B):
                if state[i] == "ended":
                    fed[i] = rows[1]
            self.advance(fed)
        return [(np.concatenate(a) if a else np.zeros(0, np.float32), s)
                for a, s in zip(audio, state)]


@torch.no_grad()
def generate(net, tok, scripts, cfg=1.3, steps=10, seed=0):
    return Session(net, tok, scripts, seed).speak(cfg, steps)


def load(folder):
    net = M.VibeVoice(M.load_config(os.path.join(folder, "config.json")))
    net.load_state_dict(load_weights(folder))
    return net.eval(), Tokenizer.load(folder)
