"""Stage 4: the decoder learns to speak what the language model makes.

A latent of the encoder says where in its period the voice is.  The language
model cannot know that and makes something in between, which the decoder of
stage 1 has never seen.  So it goes on with the model's own latents of scripts
that it is shown, and with losses that are deaf to the phase and to a sound
that comes a little early or late.  The diffusion head goes on with it, by
gradients through all steps of the solver: its latents need not be the
encoder's, they have to be what the decoder speaks well.
"""
import copy
import os
import time

import torch

import losses
import model as M
from graph import adam, set_lr
from made import STEPS
from train_codec import SIGMA, Acoustic, synchronise

CONTEXT = 2                   # frames of a crop that are not judged
SIZES = (2048, 1024, 512)     # windows of two periods of a low voice and more
TRUE = 0.15                   # share of crops that still are the encoder's
STARTS = 6                    # of so many crops one begins with the stream
HEAR = 2                      # times that the model hears itself first
BEGIN = 60                    # batches of scripts made before the first step
SAVE_S = 60
MAKE_S = 70                   # the model hears itself anew
WIDE = 0.6                    # guidance 1 to 1.6
HOLD = 0.5                    # how much the head is held to what it was
HEAD_LR = 0.4                 # of the decoder's


class Tuning(Acoustic):
    """Nothing but the decoder and the diffusion head changes."""

    JUDGED = 3
    AVERAGE, FLOOR = 0.998, 0.02
    NAMES = "conv logmag mel wave cep near held"

    def __init__(self, trainer, batches):
        a, log = trainer.a, trainer.log
        self.features, self.made = trainer.features, trainer.made
        self.trainer, self.starts = trainer, a.batch // STARTS
        self.head = trainer.model.prediction_head
        self.was = copy.deepcopy(self.head).requires_grad_(False)
        self.headed = list(self.head.parameters())
        self.opt_h = adam(self.headed, 0.0, (0.9, 0.99), 1e-2,
                          trainer.device)
        super().__init__(trainer.net, trainer.features.feed, a, log,
                         trainer.device, SIGMA)
        self.gen = self.gen + self.headed
        self.batches, self.heard = batches, time.time()
        trainer.listen()
        for _ in range(HEAR):
            trainer.make(batches)
        for _ in range(BEGIN if self.device == "cuda" else 1):
            self.make()
        synchronise(self.device)
        log("%d runs of frames made" % self.made.n)
        self.saved = time.time()

    def initialise(self):
        """There is a decoder already, whatever training began with."""

    @staticmethod
    def trained(tok):
        return list(tok.decoder.parameters())

    def make(self):
        self.made.keep(self.made.add(next(self.batches)), self.a.frames)

    def crops(self):
        """Samples of random crops; their latents go to self.z."""
        n, frames, device = self.a.batch, self.a.frames, self.device
        u = torch.rand(2, n, device=device, dtype=torch.float64)
        first, length = self.made.spans[(u[0] * self.made.count).long()].T
        u[1, :self.starts] = 0
        at = first + (u[1] * (length - frames + 1)).long()
        at = at[:, None] + torch.arange(frames, device=device)
        made, true = self.spoken(at), self.features.latent[at].float()
        own = torch.rand(n, device=device) > TRUE
        true = true + 0.2 * torch.randn_like(true)
        self.z = torch.where(own[:, None, None], made, true).transpose(1, 2)
        audio = self.feed.audio[self.features.source[self.judged(at)]]
        return audio.view(n, -1).float() / 32768

    def judged(self, x, scale=1):
        """All columns but CONTEXT, which at the start of a stream is last."""
        skip = CONTEXT * scale
        return torch.cat([x[:self.starts, :-skip], x[self.starts:, skip:]])

    def spoken(self, at):
        """Latents that the head makes now, with gradient; sets self.held."""
        h, u = self.made.state[at.flatten()].float().unbind(1)
        both = torch.cat([h, u])
        cfg = 1 + WIDE * torch.rand(len(at), 1, 1, device=at.device)
        cfg = cfg.expand(*at.shape, 1).reshape(-1, 1)

        def velocity(x, step):
            step = torch.full((len(both),), step, device=x.device)
            c, n = self.head(torch.cat([x, x]), step, both).chunk(2)
            return n + cfg * (c - n)
        x = M.solve(velocity, torch.randn(len(h), 64, device=at.device), STEPS)
        self.held = self.hold(both, x.detach())
        return (x / self.trainer.scale - self.trainer.bias).view(*at.shape, -1)

    def hold(self, both, x):
        """How far the head is from what it was, at any step."""
        x = torch.cat([x, x])
        t = torch.randint(0, 1000, (len(x),), device=x.device)
        bar = self.trainer.bars[t][:, None]
        x = bar.sqrt() * x + (1 - bar).sqrt() * torch.randn_like(x)
        with torch.no_grad():
            was = self.was(x, t, both)
        return (self.head(x, t, both) - was).pow(2).mean()

    def update(self, loss):
        super().update(loss + HOLD * self.held)
        self.opt_h.step()

    def losses(self, x):
        y = self.dec(self.z.to(self.dtype))[:, 0].float()
        y = self.judged(y, M.HOP)
        conv, log_mag, mel, wave = losses.reconstruction(x, y, SIZES)
        cep = losses.cepstral(x, y)
        near = losses.warped(x, y)
        return (0.7 * conv + 0.7 * log_mag + mel + cep + 5 * near, y,
                (conv, log_mag, mel, wave, cep, near, self.held))

    def between(self, average):
        self.make()
        if time.time() - self.heard > MAKE_S:
            self.trainer.make(self.batches)
            self.heard = time.time()
        if time.time() - self.saved > SAVE_S:
            self.save(average)
            self.saved = time.time()

    def save(self, average):
        state = {id(p): v for p, v in zip(average.params, average.value)}
        torch.save({k: state[id(p)].detach().to("cpu", torch.bfloat16)
                    for k, p in self.trainer.net.named_parameters()
                    if id(p) in state},
                   os.path.join(self.a.out, "tuned.pt"))

    def rate(self, lr):
        super().rate(lr)
        set_lr(self.opt_h, lr * HEAD_LR)

    def run(self, seconds):
        torch.backends.cudnn.benchmark = True     # all shapes are fixed now
        self.save(super().run(seconds))
