"""The speech corpus: flite utterances of many speakers, cut into frames.

A speaker is a flite voice whose pitch and formants are moved together by
resampling; flite's own duration stretch takes the tempo back.  Everything is
a whole number of frames (3200 samples at 24 kHz) long, so that one global
frame index finds samples, phones and text position alike.
"""
import dataclasses
import math
import os
import random
import struct
import subprocess
from multiprocessing import RawArray, RawValue, get_context

import numpy as np
from scipy.signal import resample_poly

from bpe import Tokenizer

RATE, HOP, PARTS = 24000, 3200, 4      # PARTS labels per frame
PHONES = """pau aa ae ah ao aw ax ay b ch d dh eh er ey f g hh ih iy jh k l m
n ng ow oy p r s sh t th uh uw v w y z zh""".split()
VOICES = dict(rms=0.30, slt=0.46, kal16=0.14, awb=0.10)
RATIOS = [86, 90, 94, 106, 110, 115]   # percent of the natural pitch
NATURAL = 0.6                          # share of unchanged voices


@dataclasses.dataclass(frozen=True)
class Speaker:
    voice: str
    percent: int
    share: float


def speakers():
    out = [Speaker(v, 100, p * NATURAL) for v, p in VOICES.items()]
    out += [Speaker(v, r, p * (1 - NATURAL) / len(RATIOS))
            for v, p in VOICES.items() for r in RATIOS]
    return out


SPEAKERS = speakers()


@dataclasses.dataclass
class Utterance:
    text: int            # index of the sentence
    speaker: int
    audio: np.ndarray    # int16 [frames * HOP]
    phone: np.ndarray    # uint8 [frames, PARTS]
    token: np.ndarray    # int16 [frames, PARTS]: index into encode_line()


class Flite:
    """A running flite_align process."""

    def __init__(self, program):
        self.p = subprocess.Popen([program], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE)

    def say(self, voice, stretch, text):
        """(rate, int16 samples, [(end s, token, phone)])"""
        self.p.stdin.write(("%s\t%.4f\t%s\n" % (voice, stretch,
                                                text)).encode())
        self.p.stdin.flush()
        out = self.p.stdout
        rate, n, k = struct.unpack("<3i", out.read(12))
        x = np.frombuffer(out.read(2 * n), np.int16)
        phones = [struct.unpack("<fi8s", out.read(16)) for _ in range(k)]
        return rate, x, [(e, t, s.rstrip(b"\0").decode()) for e, t, s in phones]


def normalise(y):
    """Loudness of a voice prompt: -25 dBFS, no sample above 1."""
    y = y * (10 ** (-25 / 20) / (np.sqrt(np.mean(y * y)) + 1e-6))
    peak = np.abs(y).max()
    return y / (peak + 1e-6) if peak > 1 else y


def render(x, rate, percent):
    """int16 samples at `rate` to float32 at 24 kHz, pitch times percent/100."""
    up, down = RATE * 100, rate * percent
    g = math.gcd(up, down)
    y = resample_poly(x.astype(np.float32) / 32768, up // g, down // g)
    return normalise(y.astype(np.float32))


def encode_line(tok, text, end="\n"):
    """(ids of ' text\\n', index of the first id of every word)."""
    words, ids, first = text.split(), [], []
    for i, w in enumerate(words):
        first.append(len(ids))
        ids += tok.encode(" " + w + (end if i + 1 == len(words) else ""))
    return ids, first


def align(phones, n_frames, seconds, first, n_ids):
    """Phone and token index of every quarter frame, by flite's own clock."""
    ends = np.array([p[0] for p in phones]) * (seconds / phones[-1][0])
    begins = np.concatenate([[0], ends[:-1]])
    mid = (np.arange(n_frames * PARTS) + 0.5) * (HOP / PARTS / RATE)
    seg = np.minimum(np.searchsorted(ends, mid, side="right"),
                     len(phones) - 1)
    words = np.array([p[1] for p in phones])
    names = [PHONES.index(p[2]) if p[2] in PHONES else 0 for p in phones]
    span, last = {}, np.array(list(first[1:]) + [n_ids]) - 1
    for w in set(words) - {-1}:
        on = np.flatnonzero(words == w)
        span[w] = (begins[on[0]], ends[on[-1]])
    tokens = np.zeros(len(mid), np.int16)
    word = 0
    for i, s in enumerate(seg):
        if words[s] < 0:                       # a pause belongs to the
            tokens[i] = last[word] if i and s else first[0]   # word before it
            continue
        word = min(words[s], len(first) - 1)
        b, e = span[words[s]]
        n = last[word] - first[word] + 1
        part = min(n - 1, int(n * (mid[i] - b) / (e - b)))
        tokens[i] = first[word] + max(0, part)
    phone = np.array(names, np.uint8)[seg]
    phone[mid > seconds] = 0
    return phone.reshape(-1, PARTS), tokens.reshape(-1, PARTS)


class Maker:
    """Turns (sentence index, speaker index, stretch) into an Utterance."""

    def __init__(self, program, sentences, tokenizer):
        self.program, self.flite, self.owner = program, None, None
        with open(sentences) as f:
            self.texts = [s.strip() for s in f]
        self.tok = Tokenizer.load(tokenizer)

    def __call__(self, job):
        text, who, stretch = job
        if self.owner != os.getpid():
            self.flite, self.owner = Flite(self.program), os.getpid()
        sp = SPEAKERS[who]
        rate, x, phones = self.flite.say(
            sp.voice, stretch * sp.percent / 100, self.texts[text])
        if len(x) < rate // 4 or not phones:
            return None
        y = render(x, rate, sp.percent)
        n = -(-len(y) // HOP)
        audio = np.zeros(n * HOP, np.int16)
        audio[:len(y)] = np.clip(y * 32767, -32767, 32767)
        ids, first = encode_line(self.tok, self.texts[text])
        phone, token = align(phones, n, len(y) / RATE, first, len(ids))
        return Utterance(text, who, audio, phone, token)


def plan(n_texts, n_utterances, natural=NATURAL, seed=3):
    """Jobs: every sentence once before any is said again.

    seed says which comes first, and who says what.
    """
    rng = np.random.default_rng(seed)
    share = np.array([s.share * (natural / NATURAL if s.percent == 100
                                 else (1 - natural) / (1 - NATURAL))
                      for s in SPEAKERS])
    who = rng.choice(len(SPEAKERS), n_utterances, p=share / share.sum())
    jobs = []
    for i in range(n_utterances):
        stretch = 1.0
        if SPEAKERS[who[i]].percent != 100:
            stretch = float(rng.uniform(0.92, 1.08))
        jobs.append(((i + 4999 * seed) % n_texts, int(who[i]), stretch))
    return jobs


def shared(shape, dtype):
    """A zeroed array that forked processes see change."""
    raw = RawArray("b", int(np.prod(shape)) * np.dtype(dtype).itemsize)
    return np.frombuffer(raw, dtype).reshape(shape)


_maker = None


def _make(job):
    try:
        return _maker(job)
    except Exception as e:      # one odd sentence must not end a training run
        if random.random() < 0.02 or job[0] < 3:
            print("skipped", job, repr(e)[:100], flush=True)
        return None


# A talk is several utterances encoded as one stream, so that the codec's
# memory crosses from line to line as it does at inference.  As a row of
# integers: first frame, voices, speaker of voice 0..2, lines, and per line
# voice, utterances, utterance 0, utterance 1.
MAX_VOICES, MAX_LINES = 3, 4
TALK = 3 + MAX_VOICES + 4 * MAX_LINES


def pack_talk(at, who, lines):
    row = [at, len(who)] + list(who) + [0] * (MAX_VOICES - len(who))
    row.append(len(lines))
    for voice, utts in lines:
        row += [voice, len(utts)] + list(utts) + [0] * (2 - len(utts))
    return row + [0] * (TALK - len(row))


def unpack_talk(row):
    """(first frame, [speaker of each voice], [(voice, [utterance, ...])])"""
    row = [int(v) for v in row]
    lines = []
    for i in range(row[2 + MAX_VOICES]):
        k = 3 + MAX_VOICES + 4 * i
        lines.append((row[k], row[k + 2:k + 2 + row[k + 1]]))
    return row[0], row[2:2 + row[1]], lines


class Corpus:
    """Utterances as they arrive from worker processes; append-only arrays.

    token, index and n_utterances are shared with processes forked later, so
    that those who compose scripts see new speech without being told.
    """

    def __init__(self, maker, n_utterances, procs, capacity_frames,
                 natural=NATURAL, seed=3):
        global _maker
        _maker = maker
        self.audio = np.zeros((capacity_frames, HOP), np.int16)
        self.phone = np.zeros((capacity_frames, PARTS), np.uint8)
        self.token = shared((capacity_frames, PARTS), np.int16)
        self.index = shared((n_utterances, 4), np.int64)
        self.count = RawValue("q", 0)        # utterances in index
        self.ready = RawValue("q", 0)        # of them, with features
        self.talks = shared((n_utterances, TALK), np.int64)
        self.composed = RawValue("q", 0)     # talks with features
        self.n_frames = 0
        self.pool = get_context("fork").Pool(procs)
        jobs = plan(len(maker.texts), n_utterances, natural, seed)
        self.stream = self.pool.imap_unordered(_make, jobs, chunksize=8)

    def add(self, u):
        n, at = len(u.phone), self.n_frames
        if at + n > len(self.audio):
            return False
        self.audio[at:at + n] = u.audio.reshape(n, HOP)
        self.phone[at:at + n] = u.phone
        self.token[at:at + n] = u.token
        self.index[self.count.value] = at, n, u.text, u.speaker
        self.n_frames += n
        self.count.value += 1
        return True

    def pump(self):
        """Take everything there will be; meant for a thread of its own."""
        for u in self.stream:
            if u is not None and not self.add(u):
                break
        self.pool.terminate()

    def rows(self):
        """The utterances so far: [n, 4] first frame, frames, text, speaker."""
        return self.index[:self.count.value]

    def hours(self):
        return self.n_frames * HOP / RATE / 3600
