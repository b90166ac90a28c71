"""Training steps of the acoustic tokenizer and the semantic encoder."""
import copy
import math
import os
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

import losses
import model as M
import speech
from graph import Average, Step, adam, drop_grads, set_lr

REPORT_S = 20


SIGMA = 0.5 / 0.8      # fix_std over 0.8: how the model samples its voices


class Feed:
    """The corpus on the device, growing while it is used."""

    def __init__(self, corpus, device):
        self.corpus = corpus
        shape = corpus.audio.shape
        self.audio = torch.zeros(shape, dtype=torch.int16, device=device)
        self.phone = torch.zeros(corpus.phone.shape, dtype=torch.uint8,
                                 device=device)
        self.limit = torch.zeros((), device=device)
        self.n = 0

    def refresh(self):
        """Copy what has arrived since the last call."""
        n = self.corpus.n_frames
        if n == self.n:
            return
        as_tensor = torch.from_numpy
        self.audio[self.n:n].copy_(as_tensor(self.corpus.audio[self.n:n]))
        self.phone[self.n:n].copy_(as_tensor(self.corpus.phone[self.n:n]))
        self.n = n
        self.limit.fill_(n)


class Trainer:
    """The clock, the learning rate and the running means of a stage."""

    def __init__(self, names, log, device):
        self.names, self.log, self.device = names, log, device
        self.sums = torch.zeros(len(names), device=device)
        self.n, self.step, self.last = 0, 0, time.time()

    def note(self, *values):
        with torch.no_grad():
            self.sums += torch.stack([v.detach().float() for v in values])

    def report(self, seconds, lr, force=False):
        self.n += 1
        self.step += 1
        now = time.time()
        if now - self.last < REPORT_S and not force and self.step != 20:
            return
        means = (self.sums / self.n).tolist()
        self.log("step %d, %.0f s, %.1f/s, lr %.1e:" % (
            self.step, seconds, self.n / (now - self.last), lr),
            " ".join("%s %.4f" % p for p in zip(self.names, means)))
        self.sums.zero_()
        self.n, self.last = 0, time.time()


def cosine(peak, done, step, floor=0.08):
    wave = 0.5 * (1 + math.cos(math.pi * min(done, 1)))
    return peak * (floor + (1 - floor) * wave) * min(1, (step + 1) / 200)


def synchronise(device):
    if device == "cuda":
        torch.cuda.synchronize()


class Acoustic:
    """Stage 1: sigma-VAE with spectral, wave and (later) adversarial losses."""

    JUDGED = 1                # of so many steps one has discriminators
    AVERAGE, FLOOR = 0.999, 0.08
    NAMES = "conv logmag mel wave cep var drift rms"

    def __init__(self, net, feed, a, log, device, sigma):
        self.feed, self.a, self.log, self.device = feed, a, log, device
        tok = net.model.acoustic_tokenizer
        self.enc, self.dec, self.sigma = tok.encoder, tok.decoder, sigma
        self.dtype = torch.bfloat16 if device == "cuda" else torch.float32
        if not a.resume:
            self.initialise()
        self.teacher = copy.deepcopy(self.enc).requires_grad_(False)
        if device == "cuda" and a.compile:
            self.enc, self.dec, self.teacher = (
                torch.compile(m) for m in (self.enc, self.dec, self.teacher))
        self.disc = losses.Discriminator().to(
            device, memory_format=torch.channels_last)
        self.gen = self.trained(tok)
        self.judges = list(self.disc.parameters())
        self.opt = adam(self.gen, a.lr, (0.9, 0.99), 1e-2, device)
        self.opt_d = adam(self.judges, 4e-4, (0.5, 0.9), 1e-2, device)
        self.ramp = torch.zeros((), device=device)
        self.offset = torch.arange(a.frames * M.HOP, device=device)
        self.window = torch.arange(6 * M.HOP, device=device)
        self.t = Trainer(self.NAMES.split() + ["d", "adv", "fm"], log, device)

    @staticmethod
    def trained(tok):
        return list(tok.parameters())

    def initialise(self):
        """Start near the working scales: speech is 0.056 rms."""
        with torch.no_grad():
            for module in (self.enc, self.dec):
                for name, p in module.named_parameters():
                    if name.endswith("bias"):
                        p.zero_()
            self.enc.downsample_layers[0][0].conv.conv.weight.mul_(10)
            self.enc.head.conv.conv.weight.mul_(2)
            self.dec.head.conv.conv.weight.mul_(0.1)

    def crops(self):
        n, span = self.a.batch, len(self.offset)
        flat = self.feed.audio.view(-1)
        u = torch.rand(n, 1, device=self.device, dtype=torch.float64)
        start = (u * (self.feed.limit.double() * M.HOP - span)).long()
        gain = 10 ** ((torch.rand(n, 1, device=self.device) - 0.5) * 0.4)
        return flat[start + self.offset].float() / 32768 * gain

    def auto_encode(self, x):
        mu = self.enc(x[:, None].to(self.dtype)).float()
        spread = self.sigma * torch.randn(len(x), 1, 1, device=self.device)
        z = mu + spread * torch.randn_like(mu)
        return self.dec(z.to(self.dtype))[:, 0].float(), mu

    def losses(self, x):
        y, mu = self.auto_encode(x)
        var = (mu.pow(2).mean((0, 2)) - 1).pow(2).mean()
        drift = self.drift(x, mu)
        conv, log_mag, mel, wave = losses.reconstruction(x, y)
        cep = losses.cepstral(x, y)
        loss = (conv + log_mag + 2 * mel + 5 * wave + 2 * cep + 0.03 * var
                + self.a.anchor * drift)
        return loss, y, (conv, log_mag, mel, wave, cep, var, drift,
                         mu.pow(2).mean().sqrt())

    def drift(self, x, mu):
        """How far latents are from those that training began with."""
        if not self.a.anchor:
            return torch.zeros((), device=self.device)
        with torch.no_grad():
            was = self.teacher(x[:, None].to(self.dtype)).float()
        return (mu - was).pow(2).mean()

    def update(self, loss):
        loss.backward()
        nn.utils.clip_grad_norm_(self.gen, 2.0)
        self.opt.step()

    def plain(self):
        drop_grads(self.gen)
        loss, _, m = self.losses(self.crops())
        self.update(loss)
        zero = self.ramp * 0
        self.t.note(*m, zero, zero, zero)

    def autocast(self):
        return torch.autocast(self.device, dtype=torch.bfloat16,
                              enabled=self.device == "cuda",
                              cache_enabled=False)

    def contest(self):
        drop_grads(self.gen + self.judges)
        x = self.crops()
        loss, y, m = self.losses(x)
        half = (len(x) + 1) // 2
        at = (torch.rand(half, 1, device=self.device)
              * (x.shape[1] - len(self.window))).long() + self.window
        real, fake = x[:half].gather(1, at), y[:half].gather(1, at)
        with self.autocast():
            d = losses.hinge(self.disc(real), self.disc(fake.detach()))
        d.backward()
        nn.utils.clip_grad_norm_(self.judges, 5.0)
        self.opt_d.step()
        for p in self.judges:
            p.requires_grad_(False)
        with self.autocast():
            with torch.no_grad():
                of_real = self.disc(real)
            of_fake = self.disc(fake)
            adv = losses.adversarial(of_fake)
            fm = losses.feature_matching(of_real, of_fake)
        self.update(loss + self.ramp * (0.15 * adv + fm))
        for p in self.judges:
            p.requires_grad_(True)
        self.t.note(*m, d, adv, fm)

    def rate(self, lr):
        """Learning rates; 0 before a capture, whose first steps are real."""
        set_lr(self.opt, lr)
        set_lr(self.opt_d, lr * 0.4)

    def run(self, seconds):
        """Train; returns the average weights, which the net has taken."""
        use_graph, begin = self.device == "cuda", time.time()
        self.rate(0)
        plain, contest = Step(self.plain, use_graph), None
        average = Average(self.gen, self.AVERAGE)
        drop_grads(self.gen)
        while True:
            t = time.time() - begin
            done = t / seconds
            if done >= 1:
                break
            if done >= self.a.gan_at and contest is None:
                self.rate(0)
                contest = Step(self.contest, use_graph)
                self.log("discriminators join")
            self.ramp.fill_(min(1, max(0, (done - self.a.gan_at) / 0.05)))
            lr = cosine(self.a.lr, done, self.t.step, self.FLOOR)
            self.rate(lr)
            judged = contest and self.t.step % self.JUDGED == 0
            (contest if judged else plain)()
            average.update(self.t.step)
            self.t.report(t, lr)
            if self.t.step % 20 == 0:
                synchronise(self.device)
                self.between(average)
        self.t.report(seconds, lr, force=True)
        average.copy_to_params()
        round_to_bf16(self.gen)
        drop_grads(self.gen)
        return average

    def between(self, average):
        """Every 20 steps, while the device is idle."""
        self.feed.refresh()


def round_to_bf16(params):
    """Later stages must see the weights that will be shipped."""
    with torch.no_grad():
        for p in params:
            p.copy_(p.to(torch.bfloat16).float())


class Semantic:
    """Stage 2: features from which the phones of a frame can be read."""

    def __init__(self, net, feed, a, log, device):
        self.feed, self.a, self.log, self.device = feed, a, log, device
        self.tok = net.model.acoustic_tokenizer
        self.enc = net.model.semantic_tokenizer.encoder
        if not a.resume:
            with torch.no_grad():
                self.enc.downsample_layers[0][0].conv.conv.weight.mul_(10)
        self.dtype = torch.bfloat16 if device == "cuda" else torch.float32
        dim = net.cfg["semantic_tokenizer_config"]["vae_dim"]
        self.read = nn.Linear(dim, speech.PARTS * len(speech.PHONES)).to(device)
        self.params = (list(self.enc.parameters())
                       + list(self.read.parameters()))
        self.opt = adam(self.params, 1.5e-3, (0.9, 0.98), 1e-2, device)
        self.offset = torch.arange(20, device=device)
        self.t = Trainer(["loss", "right", "rms"], log, device)

    def step(self):
        drop_grads(self.params)
        n = self.a.batch * 2
        u = torch.rand(n, 1, device=self.device, dtype=torch.float64)
        at = (u * (self.feed.limit - len(self.offset))).long() + self.offset
        x = (self.feed.audio[at].view(n, 1, -1).float() / 32768).to(self.dtype)
        with torch.no_grad():
            z = self.tok.encoder(x[n // 4:])
            z = z + 0.5 * torch.rand(len(z), 1, 1, device=self.device
                                     ).to(z.dtype) * torch.randn_like(z)
            x = torch.cat([x[:n // 4], self.tok.decoder(z).to(x.dtype)])
        f = self.enc(x).float().transpose(1, 2)
        logits = self.read(f).view(n, len(self.offset), speech.PARTS, -1)
        target = self.feed.phone[at].long()
        loss = F.cross_entropy(logits[:, 4:].flatten(0, 2),
                               target[:, 4:].flatten())
        power = f.pow(2).mean()
        (loss + 0.01 * (power - 1).pow(2)).backward()
        nn.utils.clip_grad_norm_(self.params, 1.0)
        self.opt.step()
        right = (logits[:, 4:].argmax(-1) == target[:, 4:]).float().mean()
        self.t.note(loss, right, power.sqrt())

    def run(self, seconds):
        begin = time.time()
        step = Step(self.step, self.device == "cuda")
        average = Average(self.params, 0.998)
        while time.time() - begin < seconds:
            t = time.time() - begin
            lr = cosine(1.5e-3, t / seconds, self.t.step)
            set_lr(self.opt, lr)
            step()
            average.update(self.t.step)
            self.t.report(t, lr)
            if self.t.step % 20 == 0:
                synchronise(self.device)
        self.t.report(seconds, lr, force=True)
        average.copy_to_params()
        round_to_bf16(self.params)
        drop_grads(self.params)


@torch.no_grad()
def encode(net, feed, group, dtype):
    """Features of streams of about one length: mu and semantic features.

    A stream is (where its features go, the frames it is made of).  Noise is
    put on the latents before they are decoded for the semantic encoder, since
    the language model will hear its own, imperfect, speech.
    """
    device = feed.audio.device
    longest = max(len(f) for _, f in group)
    frames = np.zeros((len(group), longest), np.int64)
    inside = np.zeros((len(group), longest), bool)
    for i, (_, f) in enumerate(group):
        frames[i, :len(f)], inside[i, :len(f)] = f, True
    goes = np.array([g[0] for g in group])[:, None] + np.arange(longest)
    goes = torch.from_numpy(goes[inside]).to(device)
    frames = torch.from_numpy(frames).to(device)
    inside = torch.from_numpy(inside).to(device)
    x = feed.audio[frames].float() / 32768
    x = (x * inside[..., None]).view(len(group), 1, -1).to(dtype)
    mu = net.model.acoustic_tokenizer.encoder(x).float()
    noise = torch.rand(len(group), 1, 1, device=device) * 0.5
    y = net.model.acoustic_tokenizer.decoder(
        (mu + noise * torch.randn_like(mu)).to(dtype))
    sem = net.model.semantic_tokenizer.encoder(y.to(dtype)).float()
    out = [v.transpose(1, 2)[inside] for v in (mu, sem)]
    return goes, frames[inside], out


class Features:
    """Latents, semantic features and phones, on the device.

    Rows below len(corpus.audio) belong to single utterances, those above to
    talks.
    """

    def __init__(self, net, feed, corpus, device, talk_frames=0):
        self.net, self.feed, self.corpus = net, feed, corpus
        self.dtype = torch.bfloat16 if device == "cuda" else torch.float32
        self.next = len(corpus.audio)
        self.end = self.next + talk_frames
        self.latent, self.sem = (
            torch.zeros(self.end, 64, dtype=torch.float16, device=device)
            for _ in range(2))
        self.phone = torch.zeros(self.end, speech.PARTS, dtype=torch.uint8,
                                 device=device)
        self.source = torch.zeros(self.end, dtype=torch.int64, device=device)
        self.done = 0

    def take(self, streams, per_call):
        streams.sort(key=lambda s: len(s[1]))
        for i in range(0, len(streams), per_call):
            goes, frames, found = encode(self.net, self.feed,
                                         streams[i:i + per_call], self.dtype)
            for t, f in zip((self.latent, self.sem), found):
                t[goes] = f.to(t.dtype)
            self.phone[goes] = self.feed.phone[frames]
            self.source[goes] = frames

    def update(self):
        """Encode the utterances that have arrived; refreshes the feed."""
        rows = self.corpus.rows()[self.done:].tolist()
        self.done += len(rows)
        self.feed.refresh()
        self.take([(at, range(at, at + n)) for at, n, _, _ in rows], 256)
        self.corpus.ready.value = self.done
        return len(rows)

    def compose(self, talks):
        """Encode talks, [(speakers, lines)], each as one stream."""
        streams, begin = [], self.corpus.composed.value
        for who, lines in talks:
            frames = []
            for _, utts in lines:
                for u in utts:
                    at, n = (int(v) for v in self.corpus.index[u][:2])
                    frames += range(at, at + n)
            if (self.next + len(frames) > self.end
                    or begin + len(streams) == len(self.corpus.talks)):
                break
            self.corpus.talks[begin + len(streams)] = speech.pack_talk(
                self.next, who, lines)
            streams.append((self.next, frames))
            self.next += len(frames)
        n = len(streams)
        self.take(streams, 96)
        self.corpus.composed.value = begin + n
        return n


@torch.no_grad()
def measure(net, features, log):
    """Set the scaling factors from all latents there are."""
    mu = features.latent[:features.corpus.n_frames].float()
    net.model.speech_scaling_factor.data.fill_(1 / mu.std())
    net.model.speech_bias_factor.data.fill_(-mu.mean())
    round_to_bf16([net.model.speech_scaling_factor,
                   net.model.speech_bias_factor])
    log("latents: mean %.3f std %.3f, channels %.2f to %.2f; semantic rms "
        "%.2f" % (mu.mean(), mu.std(), mu.std(0).min(), mu.std(0).max(),
                  features.sem.float().pow(2).mean().sqrt()))


@torch.no_grad()
def sample(net, feed, corpus, a, log, count=24):
    """Write a few reconstructions to listen to (recon.pt, int16)."""
    out = []
    dtype = torch.bfloat16 if feed.audio.is_cuda else torch.float32
    for at, n, text, who in corpus.rows()[:count].tolist():
        x = (feed.audio[at:at + n].view(1, 1, -1).float() / 32768).to(dtype)
        mu = net.model.acoustic_tokenizer.encoder(x)
        y = net.model.acoustic_tokenizer.decoder(mu)[0, 0].float()
        out.append((text, who, feed.audio[at:at + n].view(-1).cpu(),
                    (y.clamp(-1, 1) * 32767).short().cpu()))
    torch.save(out, os.path.join(a.out, "recon.pt"))
    d = [(losses.log_mel(o[2].float()[None] / 32768)
          - losses.log_mel(o[3].float()[None] / 32768)).abs().mean().item()
         for o in out]
    log("log-mel distance of %d reconstructions: %.3f" % (len(d),
                                                          sum(d) / len(d)))
