"""Training step of the language model, diffusion head and connectors."""
import os
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

import model as M
import speech
from export import load_weights
from graph import Average, Step, adam, drop_grads, set_lr
from made import Made
from rows import FRAME, PROMPT, Batch, choose_lines
from train_codec import (SIGMA, Features, Feed, cosine, round_to_bf16,
                         synchronise)

MUL = 4                 # timesteps per frame, as ddpm_batch_mul
TAUGHT = (2, 3, 4)      # layers: 2 and 3 show the text, 3 and 4 the voice
INPUT_NOISE = 0.45      # of the scaled latents fed back
FRAME_DROP = 0.04
OWN = 0.5               # share of rows that hear what the model made
OWN_NOISE = 0.15
SHARP = 0.3             # what the head keeps of the spread about the mean
SHARP_AT = 0.2          # of the time; the helper has learned the mean by then
LISTEN_S, MAKE_S, MAKE = 25, 50, 25
NAMES = "diff latent phone align voice choice stop right".split()
WEIGHTS = dict(diff=1.0, latent=0.5, phone=0.4, align=0.2, voice=0.1,
               choice=0.3)


class Trainer:
    def __init__(self, a, corpus, bank, log):
        self.a, self.bank, self.log = a, bank, log
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        if self.device == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = True
        torch.manual_seed(a.seed)
        net = M.new_model(a.seed)
        net.load_state_dict(load_weights(a.codec), strict=False)
        self.net = net.to(self.device)
        self.model = net.model
        self.helpers(net)
        self.named = [(k, p) for k, p in net.named_parameters()
                      if "tokenizer" not in k and "factor" not in k]
        self.named += [("aux." + k, p) for k, p in self.aux.named_parameters()]
        self.params = [p for _, p in self.named]
        self.initialise()
        if a.resume:
            self.restore(load_weights(a.resume))
        self.features = Features(net, Feed(corpus, self.device), corpus,
                                 self.device, int(a.capacity * 3 * a.talks))
        self.phone, self.rng = self.features.phone, np.random.default_rng(5)
        self.scale = self.model.speech_scaling_factor.item()
        self.bias = self.model.speech_bias_factor.item()
        self.batch = {k: torch.from_numpy(v).to(self.device) for k, v in
                      Batch(a.rows).fields().items()}
        if self.device == "cuda":
            self.stage = {k: v.cpu().pin_memory()
                          for k, v in self.batch.items()}
        self.made = Made(self)
        self.sharp = torch.ones((), device=self.device)
        self.bars = M.alpha_bars().to(self.device)
        self.sums = torch.zeros(len(NAMES), device=self.device)
        self.vocab = torch.arange(
            net.cfg["decoder_config"]["vocab_size"], device=self.device)

    def restore(self, saved):
        """Take what is trained here; a model folder has no helpers."""
        with torch.no_grad():
            for name, p in self.named:
                if name in saved:
                    p.copy_(saved[name])

    def helpers(self, net):
        h = net.cfg["decoder_config"]["hidden_size"]
        self.aux = nn.ModuleDict(dict(
            latent=nn.Sequential(nn.Linear(h, 2 * h), nn.SiLU(),
                                 nn.Linear(2 * h, 64)),
            phone=nn.Linear(h, speech.PARTS * len(speech.PHONES)))
        ).to(self.device)

    def initialise(self):
        """Small embeddings; diffusion layers begin as the identity."""
        m = self.model
        with torch.no_grad():
            m.language_model.embed_tokens.weight.normal_(0, 0.05)
            for layer in m.language_model.layers:
                for w in (layer.self_attn.o_proj.weight,
                          layer.mlp.down_proj.weight):
                    w.mul_(0.4)
            for layer in list(m.prediction_head.layers) + [
                    m.prediction_head.final_layer]:
                layer.adaLN_modulation[1].weight.mul_(0.05)
            m.prediction_head.final_layer.linear.weight.mul_(0.1)

    def scaled(self, latent):
        return (latent.float() + self.bias) * self.scale

    def latent(self, at):
        return self.scaled(self.features.latent[at])

    # ------------------------------------------------------------- the model

    def embed(self):
        """Input embeddings of the batch, with noise where inference has it."""
        b, m = self.batch, self.model
        kind, at = b["kind"], b["frame"]
        prompt, frame = kind == PROMPT, kind == FRAME
        rows = kind.shape[0]
        x = self.latent(at)
        own = torch.rand(rows, 1, device=x.device) < OWN
        own = (own & frame & self.made.there[at])[..., None]
        x = torch.where(own, self.scaled(self.made.latent[at]), x)
        level = INPUT_NOISE * torch.rand(rows, 1, device=x.device)
        level = torch.where(own[..., 0], OWN_NOISE, level)
        level = torch.where(prompt, SIGMA * self.scale * b["noise"], level)
        x = x + level[..., None] * torch.randn_like(x)
        sem = torch.where(own, self.made.sem[at],
                          self.features.sem[at]).float()
        keep = (torch.rand(kind.shape, device=x.device) > FRAME_DROP) | prompt
        speech_in = m.acoustic_connector(x)
        speech_in = speech_in + frame[..., None] * m.semantic_connector(sem)
        speech_in = speech_in * keep[..., None]
        # a product, not a look-up: its gradient needs no sorting
        e = m.language_model.embed_tokens.weight
        text = (b["ids"][..., None] == self.vocab).to(e.dtype) @ e
        return torch.where((prompt | frame)[..., None], speech_in.to(
            text.dtype), text)

    def mask(self):
        doc = self.batch["doc"]
        n = doc.shape[1]
        same = doc[:, :, None] == doc[:, None, :]
        causal = torch.ones(n, n, dtype=torch.bool, device=doc.device).tril()
        return (same & causal)[:, None]

    @staticmethod
    def look(qk, head, group, mask):
        """Log attention [rows, S, S] of one head."""
        q = qk[0][:, head].float()
        k = qk[1][:, head // group if head >= 0 else -1].float()
        s = (q @ k.transpose(1, 2)) * q.shape[-1] ** -0.5
        return s.masked_fill(~mask[:, 0], -1e4).log_softmax(-1)

    def align_loss(self, qk, group, mask):
        """Cross-entropy of head 0's attention against the spoken text."""
        align, total = self.batch["align"], 0.0
        known = align >= 0
        for layer in qk:
            got = self.look(layer, 0, group, mask).gather(2,
                                                          align.clamp(min=0))
            total = total - (got * known).sum() / known.sum().clamp(min=1)
        return total / len(qk)

    def voice_loss(self, qk, group, mask):
        """How little the last head looks at the speaker's own voice."""
        voice, total = self.batch["voice"], 0.0
        known = voice[..., 0] >= 0
        column = torch.arange(voice.shape[1], device=voice.device)
        own = (column >= voice[..., :1]) & (column < voice[..., 1:])
        for layer in qk:
            got = self.look(layer, -1, group, mask)
            got = got.masked_fill(~own, -1e4).logsumexp(-1)
            total = total - (got * known).sum() / known.sum().clamp(min=1)
        return total / len(qk)

    def diffusion_loss(self, h, x0, on):
        """v-prediction over MUL random timesteps; `on` weighs positions."""
        n = x0.shape[0]
        h = h.repeat(MUL, 1)
        x0, on = x0.repeat(MUL, 1), on.repeat(MUL)
        t = torch.randint(0, 1000, (n * MUL,), device=x0.device)
        a = self.bars[t].sqrt()[:, None]
        s = (1 - self.bars[t]).sqrt()[:, None]
        noise = torch.randn_like(x0)
        v = self.model.prediction_head(a * x0 + s * noise, t, h)
        err = (v.float() - (a * noise - s * x0)).pow(2).mean(-1)
        return (err * on).sum() / on.sum().clamp(min=1)

    def choice_loss(self, h):
        """Cross-entropy of the control token; also the stop tokens' alone."""
        e = self.model.language_model.embed_tokens.weight
        special = self.bank.tok.special
        rows = [special["<|vision_pad|>"], self.bank.end, self.bank.eos,
                self.bank.start]
        logits = torch.stack([h @ e[r] for r in rows], -1).float()
        target = self.batch["choice"].flatten()
        ce = F.cross_entropy(logits, target.clamp(min=0), reduction="none")
        on = (target >= 0).float()
        stop = (target > 0).float()
        weight = on + 3 * stop
        return ((ce * weight).sum() / weight.sum().clamp(min=1),
                (ce * stop).sum() / stop.sum().clamp(min=1))

    def select(self, h, target):
        """Hidden states of a fixed number of frame positions.

        A graph has fixed shapes: take the first `room` target positions and
        weigh the surplus, if the batch has fewer, with zero.
        """
        room = int(target.numel() * 0.30)
        order = torch.argsort((target < 0).to(torch.int8), stable=True)[:room]
        return h.index_select(0, order), target[order]

    def losses(self):
        b, lm = self.batch, self.model.language_model
        mask = self.mask()
        with torch.autocast(self.device, dtype=torch.bfloat16,
                            cache_enabled=False):
            x = self.embed()
            h, qk = lm(x, b["pos"], mask, taught=TAUGHT)
            h = h.flatten(0, 1)
            hs, target = self.select(h, b["target"].flatten())
            on = (target >= 0).float()
            target = target.clamp(min=0)
            x0 = self.latent(target)
            guess = self.aux["latent"](hs).float()
            diff = self.diffusion_loss(
                hs, torch.lerp(guess.detach(), x0, self.sharp), on)
            phones = self.aux["phone"](hs).float().view(
                len(hs), speech.PARTS, -1)
            choice, stop = self.choice_loss(h)
        n = on.sum().clamp(min=1)
        latent = ((guess - x0).pow(2).mean(-1) * on).sum() / n
        said = self.phone[target].long()
        ce = F.cross_entropy(phones.flatten(0, 1), said.flatten(),
                             reduction="none").view_as(said).mean(1)
        right = (phones.argmax(-1) == said).float().mean(1)
        group = qk[0][0].shape[1] // qk[0][1].shape[1]
        align = self.align_loss(qk[:2], group, mask)
        voice = self.voice_loss(qk[1:], group, mask)
        out = dict(diff=diff, latent=latent, phone=(ce * on).sum() / n,
                   align=align, voice=voice, choice=choice, stop=stop,
                   right=(right * on).sum() / n)
        return sum(w * out[k] for k, w in WEIGHTS.items()), out

    def step(self):
        drop_grads(self.params)
        loss, out = self.losses()
        loss.backward()
        nn.utils.clip_grad_norm_(self.params, 1.0)
        self.opt.step()
        with torch.no_grad():
            self.sums += torch.stack([out[k].detach() for k in NAMES])

    # -------------------------------------------------------------- the loop

    def load(self, fields):
        for k, v in fields.items():
            if self.device == "cuda":
                self.stage[k].copy_(torch.from_numpy(v))
                self.batch[k].copy_(self.stage[k], non_blocking=True)
            else:
                self.batch[k].copy_(torch.from_numpy(v))

    def listen(self):
        """Encode the speech that has been synthesised meanwhile."""
        begin = time.time()
        n = self.features.update()
        if n:
            self.bank.update()
            self.features.compose([choose_lines(self.bank, self.rng)
                                   for _ in range(int(n * self.a.talks))])
            synchronise(self.device)
            self.log("%d new utterances, %d talks in all, in %.1f s" % (
                n, self.bank.corpus.composed.value, time.time() - begin))

    def make(self, batches):
        """Let the model hear itself in place of the speech it is shown."""
        begin = time.time()
        runs = torch.cat([self.made.add(next(batches)) for _ in range(
            MAKE if self.device == "cuda" else 1)])
        self.made.hear(runs)
        synchronise(self.device)
        self.log("%d frames made in %.1f s" % (runs[:, 1].sum(),
                                               time.time() - begin))

    def save(self, average, name):
        state = {k: v.detach().to("cpu", torch.bfloat16)
                 for (k, _), v in zip(self.named, average.value)}
        torch.save(state, os.path.join(self.a.out, name))

    def run(self, batches):
        a, begin = self.a, time.time()
        decayed = [p for k, p in self.named if p.dim() > 1 and "embed" not in k]
        rest = [p for k, p in self.named if p.dim() < 2 or "embed" in k]
        self.opt = adam(decayed + rest, a.lr, (0.9, 0.98), 0.02, self.device)
        self.listen()
        self.load(next(batches))
        set_lr(self.opt, 0)          # the first steps of a capture are real
        step = Step(self.step, self.device == "cuda")
        drop_grads(self.params)
        average = Average(self.params, 0.9995)
        self.sums.zero_()
        n = since = 0
        last = saved = heard = made = time.time()
        waited = 0.0
        while time.time() - begin < a.seconds:
            t = time.time() - begin
            w = time.time()
            fields = next(batches)
            waited += time.time() - w
            synchronise(self.device)     # the staging buffers are free again
            self.load(fields)
            lr = cosine(a.lr, t / a.seconds, n, a.floor)
            set_lr(self.opt, lr)
            self.sharp.fill_(SHARP if t > SHARP_AT * a.seconds else 1.0)
            step()
            average.update(n)
            n, since = n + 1, since + 1
            if time.time() - last > 20 or n == 20:
                means = (self.sums / since).tolist()
                self.log("step %d, %.0f s, %.1f/s, wait %.0f%%, lr %.1e:" % (
                    n, t, since / (time.time() - last),
                    100 * waited / (time.time() - last), lr),
                    " ".join("%s %.4f" % p for p in zip(NAMES, means)))
                self.sums.zero_()
                since, last, waited = 0, time.time(), 0.0
            if time.time() - heard > LISTEN_S:
                self.listen()
                heard = time.time()
            if time.time() - made > MAKE_S:
                self.make(batches)
                made = time.time()
            if time.time() - saved > a.save_every:
                self.save(average, "lm.pt")
                saved = time.time()
        average.copy_to_params()
        round_to_bf16(self.params)
        drop_grads(self.params)
        self.save(average, "lm.pt")
        self.log("trained %d steps of %d rows" % (n, a.rows))
