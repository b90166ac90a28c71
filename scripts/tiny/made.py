"""Latents that the language model makes of the scripts it is shown.

Training shows it true speech and asks for the next frame; at inference it
hears itself.  This keeps what it would have said in place of each frame, so
that the model can be trained on hearing that, and the decoder on speaking it.
"""
import torch

import model as M
from rows import FRAME

CFG, STEPS = 1.3, 10          # as the program's defaults
ROOM = 1 << 18


class Made:
    """Tables beside trainer.features, by frame: latent, sem, and `there`.

    state is what the head made them from.
    spans [ROOM, 2] are runs of frames (first, how many), `count` of them.
    """

    def __init__(self, trainer):
        self.t, f = trainer, trainer.features
        device = trainer.device
        self.latent, self.sem = (torch.zeros_like(f.latent) for _ in range(2))
        self.there = torch.zeros(f.end, dtype=torch.bool, device=device)
        self.state = torch.zeros(          # hidden states of both branches
            f.end, 2, trainer.net.cfg["decoder_config"]["hidden_size"],
            dtype=torch.float16, device=device)
        self.spans = torch.zeros(ROOM, 2, dtype=torch.int64, device=device)
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self.n = 0

    def hidden(self):
        """Hidden states of both branches.

        The negative one sees no text: only speech_start and the frames.
        """
        t = self.t
        b, lm = t.batch, t.model.language_model
        mask, x = t.mask(), t.embed()
        heard = (b["target"] >= 0) | (b["kind"] == FRAME)
        own = torch.eye(mask.shape[-1], dtype=torch.bool, device=mask.device)
        h, _ = lm(x, b["pos"], mask)
        u, _ = lm(x, b["pos"], mask & heard[:, None, None] | own)
        return h.flatten(0, 1), u.flatten(0, 1)

    def guided(self, h, u):
        head = self.t.model.prediction_head

        def velocity(x, step):
            step = torch.full((len(x),), step, device=x.device)
            c, n = head(x, step, h).float(), head(x, step, u).float()
            return n + CFG * (c - n)
        x = torch.randn(len(h), 64, device=h.device)
        return M.solve(velocity, x, STEPS)

    @torch.no_grad()
    def add(self, fields):
        """What is made of one batch; returns its runs (first, how many).

        Scripts without text are left out: what comes next is a mere guess.
        """
        t = self.t
        t.load(fields)
        with torch.autocast(t.device, dtype=torch.bfloat16):
            h, u = self.hidden()
            at = t.batch["target"].flatten()
            on = (at >= 0) & (t.batch["align"].flatten(0, 1)[:, 0] >= 0)
            x = self.guided(h[on], u[on])
        at = at[on]
        self.state[at] = torch.stack([h[on], u[on]], 1).to(self.state.dtype)
        self.latent[at] = (x.float() / t.scale - t.bias).to(self.latent.dtype)
        first = torch.ones_like(at, dtype=torch.bool)
        first[1:] = at[1:] != at[:-1] + 1
        begin = first.nonzero()[:, 0]
        end = torch.cat([begin[1:], begin.new_tensor([len(at)])])
        return torch.stack([at[begin], end - begin], 1)

    def keep(self, runs, least):
        """Offer those runs that have at least so many frames as crops."""
        runs = runs[runs[:, 1] >= least][:ROOM - self.n]
        self.spans[self.n:self.n + len(runs)] = runs
        self.n += len(runs)
        self.count.fill_(self.n)

    @torch.no_grad()
    def hear(self, runs, per_call=128):
        """Decode runs, each a stream, and note what they sound like."""
        m, dtype = self.t.model, self.t.features.dtype
        runs = runs[runs[:, 1].argsort()]
        for first, n in (r.T for r in runs.split(per_call)):
            column = torch.arange(int(n[-1]), device=n.device)
            inside = column < n[:, None]
            at = torch.where(inside, first[:, None] + column, 0)
            z = (self.latent[at] * inside[..., None]).transpose(1, 2)
            y = m.acoustic_tokenizer.decoder(z.to(dtype))
            sem = m.semantic_tokenizer.encoder(y.to(dtype)).transpose(1, 2)
            self.sem[at[inside]] = sem[inside].to(self.sem.dtype)
            self.there[at[inside]] = True
