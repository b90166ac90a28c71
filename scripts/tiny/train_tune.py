"""Stage 4: the decoder learns to speak what the language model makes.

A latent of the encoder says where in its period the voice is.  The language
model cannot know that and makes something in between, which the decoder of
stage 1 has never seen.  So it goes on with the model's own latents of scripts
that it is shown, and with losses that are deaf to the phase.
"""
import os
import time

import torch

import losses
import model as M
from train_codec import SIGMA, Acoustic, synchronise

CONTEXT = 2                   # frames of a crop that are not judged
SIZES = (2048, 1024, 512)     # windows of two periods of a low voice and more
TRUE = 0.15                   # share of crops that still are the encoder's
HEAR = 2                      # times that the model hears itself first
BEGIN = 60                    # batches of scripts made before the first step
SAVE_S = 60


class Tuning(Acoustic):
    """Nothing but the decoder changes."""

    JUDGED = 2

    def __init__(self, trainer, batches):
        a, log = trainer.a, trainer.log
        self.features, self.made = trainer.features, trainer.made
        super().__init__(trainer.net, trainer.features.feed, a, log,
                         trainer.device, SIGMA)
        self.batches = batches
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
        at = first + (u[1] * (length - frames + 1)).long()
        at = at[:, None] + torch.arange(frames, device=device)
        made, true = self.made.latent[at], self.features.latent[at]
        own = torch.arange(n, device=device) < n * (1 - TRUE)
        true = true + 0.2 * torch.randn_like(true)
        self.z = torch.where(own[:, None, None], made, true).transpose(1, 2)
        audio = self.feed.audio[self.features.source[at[:, CONTEXT:]]]
        return audio.view(n, -1).float() / 32768

    def losses(self, x):
        y = self.dec(self.z.to(self.dtype))[:, 0].float()
        y = y[:, CONTEXT * M.HOP:]
        conv, log_mag, mel, wave = losses.reconstruction(x, y, SIZES)
        cep = losses.cepstral(x, y)
        none = torch.zeros_like(cep)
        return (conv + log_mag + 2 * mel + 4 * cep, y,
                (conv, log_mag, mel, wave, cep, none, none, none))

    def between(self, average):
        self.make()
        if time.time() - self.saved > SAVE_S:
            self.save(average)
            self.saved = time.time()

    def save(self, average):
        names = ["model.acoustic_tokenizer.decoder." + k
                 for k, _ in self.dec.named_parameters()]
        torch.save({k: v.detach().to("cpu", torch.bfloat16)
                    for k, v in zip(names, average.value)},
                   os.path.join(self.a.out, "decoder.pt"))

    def run(self, seconds):
        torch.backends.cudnn.benchmark = True     # all shapes are fixed now
        self.save(super().run(seconds))
