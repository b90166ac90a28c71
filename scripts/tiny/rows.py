"""Scripts for the language model: packed rows of prompt and speech.

A script is laid out exactly as the program lays it out: system text, voices,
lines, "Speech output", then one frame of input per frame spoken.  Several
scripts share a row of SPAN positions; `doc` keeps them apart.
"""
import numpy as np

import bpe
from speech import PARTS, SPEAKERS, encode_line, unpack_talk

SPAN = 512
TALKS = 0.6                            # share of scripts of several utterances
TEXT, PROMPT, FRAME = 0, 1, 2          # what a position is fed with
DIFFUSION, END, EOS, START = range(4)  # the control choices


class Bank:
    """Utterances grouped by speaker, and the prompt's constant pieces.

    The corpus may grow (its arrays are shared); `ready` says how many
    utterances may be used, and update() takes up the new ones.
    """

    def __init__(self, corpus, texts, tok):
        self.index, self.token = corpus.index, corpus.token
        self.ready, self.corpus = corpus.ready, corpus
        self.lines, self.taken = {}, 0
        self.texts, self.tok = texts, tok
        self.by_speaker = [[] for _ in SPEAKERS]
        self.fixed = {k: tok.encode(v) for k, v in dict(
            system=bpe.SYSTEM, voice=bpe.VOICE, text=bpe.TEXT,
            speech=bpe.SPEECH, newline="\n").items()}
        self.start = tok.special["<|vision_start|>"]
        self.end = tok.special["<|vision_end|>"]
        self.eos = tok.special["<|endoftext|>"]

    def update(self):
        n = self.ready.value
        for i in range(self.taken, n):
            self.by_speaker[self.index[i][3]].append(i)
        if n != self.taken:
            share = np.array([s.share if len(u) > 3 else 0.0 for s, u in
                              zip(SPEAKERS, self.by_speaker)])
            self.share = share / share.sum()
        self.taken = n

    def line(self, text, end):
        if (text, end) not in self.lines:
            self.lines[text, end] = encode_line(self.tok, self.texts[text],
                                                end)[0]
        return self.lines[text, end]

    def pick(self, who, rng):
        pool = self.by_speaker[who]
        return pool[rng.integers(len(pool))]


class Doc:
    """Columns of one script, grown position by position."""

    def __init__(self):
        self.ids, self.kind, self.frame, self.noise = [], [], [], []
        self.target, self.choice, self.align = [], [], []
        self.from_, self.to = [], []      # columns of the speaker's own voice

    def put(self, ids):
        n = len(ids)
        at = len(self.ids)
        self.ids += ids
        self.kind += [TEXT] * n
        self.frame += [0] * n
        self.noise += [0.0] * n
        self.blank(n)
        return at

    def put_frames(self, kind, frames, noise):
        n = len(frames)
        self.ids += [0] * n
        self.kind += [kind] * n
        self.frame += list(frames)
        self.noise += [noise] * n
        self.blank(n)

    def blank(self, n):
        self.target += [-1] * n
        self.choice += [-1] * n
        self.align += [(-1,) * PARTS] * n
        self.from_ += [-1] * n
        self.to += [-1] * n

    def __len__(self):
        return len(self.ids)


def voice_frames(bank, who, rng):
    """Global frame numbers of a voice prompt of 1.6 to 8 s."""
    want, frames = int(rng.integers(12, 60)), []
    while len(frames) < want:
        at, n, _, _ = bank.index[bank.pick(who, rng)]
        frames += range(at, at + n)
    return frames[:want]


def choose_lines(bank, rng):
    """A talk: ([speaker of each voice], [(voice, [utterance, ...])])"""
    n_lines = int(rng.choice([1, 2, 3, 4], p=[0.12, 0.40, 0.26, 0.22]))
    n_voices = min(int(rng.choice([1, 2, 3], p=[0.2, 0.7, 0.1])), n_lines)
    who = rng.choice(len(SPEAKERS), n_voices, replace=False, p=bank.share)
    order = list(rng.permutation(n_voices))
    while len(order) < n_lines:
        order.append(int(rng.integers(n_voices)))
    rng.shuffle(order)
    lines = []
    for v in order:
        n = 2 if n_lines == 1 or n_lines < 4 and rng.random() < 0.2 else 1
        lines.append((int(v), [bank.pick(who[v], rng) for _ in range(n)]))
    return [int(w) for w in who], lines


def any_script(bank, rng):
    """(speakers, lines, first frame of the talk or None)"""
    n = bank.corpus.composed.value
    if n and rng.random() < TALKS:
        at, who, lines = unpack_talk(bank.corpus.talks[rng.integers(n)])
        return who, lines, at
    who = int(rng.choice(len(SPEAKERS), p=bank.share))
    return [who], [(0, [bank.pick(who, rng)])], None


def speak(doc, bank, lines, talk, columns, voices):
    """Append the speech: frames in, next frame and control choice out."""
    frames, tokens, own = [], [], []
    for (v, utts), firsts in zip(lines, columns):
        for u, first in zip(utts, firsts):
            at, n = (int(x) for x in bank.index[u][:2])
            frames += range(at, at + n)
            tokens += [tuple(first + t) for t in bank.token[at:at + n]]
            own += [voices[v] if voices else (-1, -1)] * n
    if talk is not None:
        frames = range(talk, talk + len(frames))
    at = len(doc) - 1                       # the speech_start position
    doc.put_frames(FRAME, frames, 0.0)
    for i, (f, t, v) in enumerate(zip(frames, tokens, own)):
        doc.target[at + i], doc.choice[at + i] = f, DIFFUSION
        doc.from_[at + i], doc.to[at + i] = v
        if columns[0][0] >= 0:
            doc.align[at + i] = t
    doc.choice[at + len(frames)] = END


def conditional(bank, rng):
    who, lines, talk = any_script(bank, rng)
    doc, voices = Doc(), []
    doc.put(bank.fixed["system"])
    if rng.random() > 0.06 or who[0] != 0 or len(who) > 1:
        doc.put(bank.fixed["voice"])
        for i, w in enumerate(who):
            doc.put(bank.tok.encode(" Speaker %d:" % i) + [bank.start])
            frames = voice_frames(bank, w, rng)
            voices.append((len(doc), len(doc) + len(frames)))
            doc.put_frames(PROMPT, frames, abs(rng.standard_normal()))
            doc.put([bank.end] + bank.fixed["newline"])
    doc.put(bank.fixed["text"])
    columns = []
    for v, utts in lines:
        doc.put(bank.tok.encode(" Speaker %d:" % v))
        first = []
        for k, u in enumerate(utts):
            end = "\n" if k + 1 == len(utts) else ""
            first.append(doc.put(bank.line(bank.index[u][2], end)))
        columns.append(first)
    doc.put(bank.fixed["speech"] + [bank.start])
    speak(doc, bank, lines, talk, columns, voices)
    doc.put([bank.end])
    doc.choice[-1] = EOS
    return doc


def unconditional(bank, rng):
    """What the negative branch sees: speech_start, then frames."""
    _, lines, talk = any_script(bank, rng)
    doc = Doc()
    doc.put([bank.start])
    speak(doc, bank, lines, talk, [[-1] * len(u) for _, u in lines], [])
    doc.choice = [-1] * len(doc)
    return doc


class Batch:
    """Row-packed arrays; `doc` is -1 in the unused tail of a row."""

    def __init__(self, rows):
        shape = (rows, SPAN)
        self.ids = np.zeros(shape, np.int64)
        self.kind = np.zeros(shape, np.int64)
        self.frame = np.zeros(shape, np.int64)
        self.noise = np.zeros(shape, np.float32)
        self.target = np.full(shape, -1, np.int64)
        self.choice = np.full(shape, -1, np.int64)
        self.align = np.full(shape + (PARTS,), -1, np.int64)
        self.voice = np.full(shape + (2,), -1, np.int64)
        self.pos = np.zeros(shape, np.int64)
        self.doc = np.full(shape, -1, np.int64)

    def fields(self):
        return vars(self)

    def write(self, row, at, doc, number):
        n = len(doc)
        cut = (row, slice(at, at + n))
        for name in ("ids", "kind", "frame", "noise", "target", "choice"):
            getattr(self, name)[cut] = getattr(doc, name)
        align = np.array(doc.align)
        self.align[cut] = np.where(align < 0, -1, align + at)
        voice = np.array([doc.from_, doc.to]).T
        self.voice[cut] = np.where(voice < 0, -1, voice + at)
        self.pos[cut] = np.arange(n)
        self.doc[cut] = number


def build(bank, rows, seed, drop=0.12):
    bank.update()
    rng = np.random.default_rng(seed)
    batch, spare = Batch(rows), None
    for row in range(rows):
        at = number = 0
        while at < SPAN - 40:
            doc = spare or (unconditional if rng.random() < drop
                            else conditional)(bank, rng)
            spare = None
            if len(doc) > SPAN:
                continue
            if at + len(doc) > SPAN:
                spare = doc if number else None
                break
            batch.write(row, at, doc, number)
            at += len(doc)
            number += 1
    return batch
