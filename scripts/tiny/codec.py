"""Stages 1 and 2: acoustic tokenizer, then semantic encoder.

Speech is synthesised by worker processes while the tokenizer already trains
on what there is.  Stage 1 is a sigma-VAE; stage 2 reads phones from the
tokenizer's own reconstructions, because that is what it hears at inference.
Ends by writing the weights (codec.pt) and some reconstructions (recon.pt).
"""
import argparse
import os
import threading
import time

os.environ.setdefault("OMP_NUM_THREADS", "2")

import speech

T0 = time.time()


def log(*words):
    print("[%6.1f]" % (time.time() - T0), *words, flush=True)


def arguments():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--flite", required=True, help="flite_align program")
    ap.add_argument("--sentences", required=True)
    ap.add_argument("--tokenizer", required=True)
    ap.add_argument("--out", required=True, help="weights and log")
    ap.add_argument("--resume", help="codec.pt or model folder to start from")
    ap.add_argument("--anchor", type=float, default=0.0, metavar="WEIGHT",
                    help="hold latents near those of --resume")
    ap.add_argument("--utterances", type=int, default=45000)
    ap.add_argument("--capacity", type=int, default=1300000, help="frames")
    ap.add_argument("--procs", type=int, default=15)
    ap.add_argument("--codec-seconds", type=float, default=400)
    ap.add_argument("--semantic-seconds", type=float, default=60)
    ap.add_argument("--gan-at", type=float, default=0.35)
    ap.add_argument("--batch", type=int, default=64)
    ap.add_argument("--frames", type=int, default=12, help="of a crop")
    ap.add_argument("--lr", type=float, default=1e-3)
    ap.add_argument("--compile", action="store_true")
    ap.add_argument("--seed", type=int, default=0)
    return ap.parse_args()


def main():
    a = arguments()
    os.makedirs(a.out, exist_ok=True)
    maker = speech.Maker(a.flite, a.sentences, a.tokenizer)
    corpus = speech.Corpus(maker, a.utterances, a.procs, a.capacity)
    pump = threading.Thread(target=corpus.pump, daemon=True)
    pump.start()                      # the pool forked before CUDA is touched

    import torch
    import model as M
    from export import load_weights
    from train_codec import (SIGMA, Acoustic, Features, Feed, Semantic,
                             measure, sample)

    torch.manual_seed(a.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    net = M.new_model(a.seed)
    feed = Feed(corpus, device)
    while corpus.n_frames < 2000 and pump.is_alive():
        time.sleep(0.2)
    assert corpus.n_frames, "nothing could be synthesised"
    feed.refresh()
    log("first %d frames are there" % feed.n)

    def keep():
        torch.save({k: v.detach().to("cpu", torch.bfloat16)
                    for k, v in net.state_dict().items() if "tokenizer" in k
                    or "factor" in k}, os.path.join(a.out, "codec.pt"))
    if a.resume:
        net.load_state_dict(load_weights(a.resume), strict=False)
    net.to(device)
    if a.codec_seconds:
        Acoustic(net, feed, a, log, device, SIGMA).run(a.codec_seconds)
        keep()
    if a.semantic_seconds:
        Semantic(net, feed, a, log, device).run(a.semantic_seconds)
        keep()
    log("corpus: %d utterances, %.1f h" % (corpus.count.value,
                                           corpus.hours()))
    if not a.anchor:              # anchored latents keep their scale
        features = Features(net, feed, corpus, device)
        features.update()
        measure(net, features, log)
        keep()
    sample(net, feed, corpus, a, log)
    log("done")


if __name__ == "__main__":
    main()
