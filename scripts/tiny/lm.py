"""Stages 3 and 4: language model, diffusion head and connectors on frozen
latents, then decoder and head on what they make.

Speech is synthesised while training already uses what there is.
Besides the model's own losses (v-prediction, control choice) three helpers
make a small model learn fast, and are dropped at export: reading the latent
and the phones of the coming frame from the hidden state, and pointing one
attention head of two layers at the text that is being spoken.
"""
import argparse
import os
import threading
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
from multiprocessing import get_context

import speech
from rows import Bank, build

T0 = time.time()


def log(*words):
    print("[%6.1f]" % (time.time() - T0), *words, flush=True)


def arguments():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--flite", required=True, help="flite_align program")
    ap.add_argument("--utterances", type=int, default=46000)
    ap.add_argument("--first", type=int, default=8000,
                    help="utterances to wait for before training")
    ap.add_argument("--capacity", type=int, default=1300000, help="frames")
    ap.add_argument("--talks", type=float, default=0.7,
                    help="several utterances as one stream, per utterance")
    ap.add_argument("--natural", type=float, default=speech.NATURAL,
                    help="share of voices as flite has them")
    ap.add_argument("--speakers", type=int, default=12,
                    help="processes that synthesise")
    ap.add_argument("--codec", required=True, help="codec.pt")
    ap.add_argument("--sentences", required=True)
    ap.add_argument("--tokenizer", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--resume", help="lm.pt or model folder to start from")
    ap.add_argument("--seconds", type=float, default=540)
    ap.add_argument("--until", type=float,
                    help="end so many seconds after the start instead")
    ap.add_argument("--rows", type=int, default=48)
    ap.add_argument("--procs", type=int, default=16,
                    help="processes that compose scripts")
    ap.add_argument("--lr", type=float, default=1.5e-3)
    ap.add_argument("--floor", type=float, default=0.05)
    ap.add_argument("--save-every", type=float, default=120)
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--tune-seconds", type=float, default=200,
                    help="of stage 4, after the others")
    ap.add_argument("--tune-lr", type=float, default=7e-4)
    ap.add_argument("--batch", type=int, default=64, help="crops")
    ap.add_argument("--frames", type=int, default=14, help="of a crop")
    ap.add_argument("--gan-at", type=float, default=0.15)
    ap.set_defaults(anchor=0.0, compile=False)
    return ap.parse_args()


_bank = None


def _build(job):
    rows, seed = job
    return build(_bank, rows, seed).fields()


def stream(pool, a):
    """An endless iterator of batches from worker processes."""
    base = 1000003 * (a.seed + 1)
    jobs = ((a.rows, base + i) for i in range(10 ** 9))
    waiting = []
    for job in jobs:
        waiting.append(pool.apply_async(_build, (job,)))
        if len(waiting) > 4 * a.procs:
            yield waiting.pop(0).get()


def main():
    global _bank
    a = arguments()
    os.makedirs(a.out, exist_ok=True)
    maker = speech.Maker(a.flite, a.sentences, a.tokenizer)
    corpus = speech.Corpus(maker, a.utterances, a.speakers, a.capacity,
                           a.natural, a.seed)
    _bank = Bank(corpus, maker.texts, maker.tok)
    pool = get_context("fork").Pool(a.procs)   # before threads and CUDA
    threading.Thread(target=corpus.pump, daemon=True).start()
    from train_lm import Trainer
    from train_tune import Tuning
    trainer = Trainer(a, corpus, _bank, log)
    while corpus.count.value < a.first:
        time.sleep(0.2)
    log("%d utterances are there" % corpus.count.value)
    batches, until = stream(pool, a), a.until

    def left():
        return until - (time.time() - T0)
    if until and a.seconds:
        a.seconds = left() - a.tune_seconds
    if a.seconds > 0:
        trainer.run(batches)
    if a.tune_seconds:
        a.lr = a.tune_lr
        tuning = Tuning(trainer, batches)
        tuning.run(left() if until else a.tune_seconds)
    log("%d utterances, %.1f h" % (corpus.count.value, corpus.hours()))
    os._exit(0)                  # do not wait for the workers


if __name__ == "__main__":
    main()
