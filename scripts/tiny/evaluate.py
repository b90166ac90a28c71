"""Measure the shipped model, as the program speaks it: evaluate.py [OPTION...]

Word errors are round_trip.py's business; this measures speakers, endings,
durations, spectral distance, and the words under other settings.  Needs flite,
pocketsphinx and NumPy; prints one line per bar.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import wave

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "speech"))
import round_trip as rt                                        # noqa: E402

LINES = ["The weather is very nice today.", "I would like to see your garden.",
         "We can walk along the river.", "The children are waiting at home.",
         "She works in a small hospital.", "My brother bought a new car.",
         "The train is late again.", "Please close the window now.",
         "He wrote a letter to his mother.", "They live near the old church."]


def read(path):
    """(16000, samples): one rate, so that windows and bands are comparable."""
    x = rt.to_16k(*rt.samples_of(path))
    return rt.RATE, np.array(x, np.float64) / 32768


def f0(rate, x):
    """Median pitch of the voiced 40 ms windows, by normalised correlation."""
    n, found = int(0.04 * rate), []
    lo, hi = int(rate / 400), int(rate / 55)
    loud = np.sqrt(np.mean(x * x)) * 0.5
    for at in range(0, len(x) - n - hi, n // 2):
        a = x[at:at + n]
        if np.sqrt(np.mean(a * a)) < loud:
            continue
        b = np.lib.stride_tricks.sliding_window_view(x[at:at + n + hi], n)
        norm = np.sqrt((b * b).sum(1) * (a * a).sum()) + 1e-9
        r = (b @ a) / norm
        peak = r[lo:hi].max()
        if peak > 0.75:                  # the first lag nearly as good
            found.append(rate / (lo + np.flatnonzero(
                r[lo:hi] > 0.93 * peak)[0]))
    return float(np.median(found)) if found else float("nan")


def cepstra(rate, x):
    """[T, 24] mel cepstra c1..c24 (natural log units), 5 ms apart."""
    n, hop, bands = 1024, rate // 200, 40
    pad = np.pad(x, n // 2)
    frames = np.lib.stride_tricks.sliding_window_view(pad, n)[::hop]
    p = np.abs(np.fft.rfft(frames * np.hanning(n))) ** 2
    f = np.arange(n // 2 + 1) * rate / n
    top = 2595 * np.log10(1 + 7000 / 700)
    e = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    w = np.maximum(0, np.minimum((f - e[:-2, None]) / (e[1:-1] - e[:-2])[:, None],
                                 (e[2:, None] - f) / (e[2:] - e[1:-1])[:, None]))
    log = 0.5 * np.log(p @ w.T + 1e-8)
    k = np.arange(1, 25)[:, None] * (np.arange(bands) + 0.5) * np.pi / bands
    return log @ np.cos(k).T * (2 / bands)


def trim(x, rate):
    on = np.flatnonzero(np.abs(x) > 0.02 * np.abs(x).max())
    return x[on[0]:on[-1] + rate // 20] if len(on) else x


def warp(d):
    """Mean of d [n, m] along the path of least sum, by antidiagonals."""
    n, m = d.shape

    def blank():
        return np.full(n + 1, np.inf), np.zeros(n + 1)
    back, last = blank(), blank()        # cost and steps by row: two and one
    back[0][0] = 0                       # antidiagonals ago
    for k in range(2, n + m + 1):
        i = np.arange(max(1, k - m), min(n, k - 1) + 1)
        came = [(back, i - 1), (last, i - 1), (last, i)]
        best = np.argmin([c[0][at] for c, at in came], 0)
        now = blank()
        now[0][i] = np.choose(best, [c[0][at] for c, at in came])
        now[1][i] = np.choose(best, [c[1][at] for c, at in came]) + 1
        now[0][i] += d[i - 1, k - i - 1]
        back, last = last, now
    return last[0][n] / last[1][n]


def mel_cepstral_distance(a, b):
    """dB along the best DTW path of two (rate, samples)."""
    A, B = (cepstra(r, trim(x / (np.sqrt(np.mean(x * x)) + 1e-9) * 0.05, r))
            for r, x in (a, b))
    d = np.sqrt(2 * ((A[:, None] - B[None]) ** 2).sum(-1)) * 10 / np.log(10)
    return warp(d)


def flite(voice, text, path, stretch=1.0):
    subprocess.run(["flite", "-voice", voice, "--setf",
                    "duration_stretch=%g" % stretch, "-t", text, "-o", path],
                   check=True, stdout=subprocess.DEVNULL)


class Bench:
    def __init__(self, a, folder):
        self.a, self.folder, self.n = a, folder, 0

    def path(self, name):
        return os.path.join(self.folder, name)

    def prompt(self, voice, percent=100):
        """A voice prompt; percent moves pitch and formants together."""
        path = self.path("prompt_%s_%d.wav" % (voice, percent))
        flite(voice, rt.PROMPT, path, percent / 100)
        if percent != 100:
            with wave.open(path) as w:
                rate, data = w.getframerate(), w.readframes(w.getnframes())
            x = np.frombuffer(data, np.int16)     # read faster or slower
            at = np.arange(0, len(x) - 1, percent / 100)
            x = np.interp(at, np.arange(len(x)), x).astype(np.int16)
            rt.write_wav(path, x, rate)
        return path

    def speak(self, scripts, voices, *more):
        """[(path, how it ended)] of scripts, all in one process."""
        self.n += 1
        names, out = [], self.path("out%d" % self.n)
        for i, text in enumerate(scripts):
            names.append(self.path("b%d_%03d.txt" % (self.n, i)))
            with open(names[-1], "w") as f:
                f.write(text + "\n")
        run = subprocess.run(
            [self.a.program, "--model", self.a.model, "--txt-path", *names,
             "--voice-files", *voices, "-d", out, "--json", "--quiet",
             "--threads", "1", *more],
            capture_output=True, text=True, check=True)
        said = [json.loads(line) for line in run.stdout.splitlines()]
        said.sort(key=lambda s: s["file"])
        return [(s["file"], s["finish"]) for s in said]


def speakers(b, n):
    """Turns whose pitch is nearer to their own prompt, and when swapped."""
    low, high = b.prompt("rms", 90), b.prompt("slt", 108)
    own = [f0(*read(p)) for p in (low, high)]
    scripts = ["Speaker %d: %s" % (1 + i % 2, LINES[i % len(LINES)])
               + "\nSpeaker %d: %s" % (2 - i % 2, LINES[(i + 3) % len(LINES)])
               for i in range(n)]
    good = total = 0
    for order in (0, 1):
        voices = [low, high] if not order else [high, low]
        for i, (path, _) in enumerate(b.speak(scripts, voices)):
            rate, x = read(path)
            half = quiet_middle(x, rate)
            for turn, part in enumerate((x[:half], x[half:])):
                who = (i + turn + order) % 2
                got = f0(rate, part)
                near = abs(np.log(got / own[who])) < abs(np.log(got / own[1 - who]))
                good, total = good + bool(near), total + 1
    print("speakers: prompts at %.0f and %.0f Hz; %d of %d turns nearer to "
          "their own, prompts in both orders" % (*own, good, total))


def quiet_middle(x, rate):
    """The longest silence in the middle 60 % of a dialogue of two turns."""
    n = rate // 50
    e = np.array([np.abs(x[i:i + n]).max() for i in range(0, len(x) - n, n)])
    k = max(3, int(0.16 / 0.02))
    smooth = np.convolve(e, np.ones(k) / k, "same")
    lo, hi = int(0.2 * len(e)), int(0.8 * len(e))
    return (lo + int(np.argmin(smooth[lo:hi]))) * n


def endings(b, sentences):
    voice = b.prompt(b.a.voice)
    said = b.speak(["Speaker 1: " + s for s in sentences], [voice])
    ended = close = 0
    ratios, distance, reference, rates = [], [], [], []
    for (path, finish), text in zip(said, sentences):
        ref = b.path("ref.wav")
        flite(b.a.voice, text, ref)
        a, r = read(path), read(ref)
        ratio = (len(a[1]) / a[0]) / (len(r[1]) / r[0])
        ratios.append(ratio)
        ended += finish == "end"
        close += finish == "end" and abs(ratio - 1) <= 0.4
        rates.append(len(a[1]) / a[0] / len(text.split()))
    for (path, _), text in list(zip(said, sentences))[:b.a.distances]:
        a, slow, fast = (b.path(k + ".wav") for k in ("ref", "slow", "fast"))
        for p, s in ((a, 1.0), (slow, 1.1), (fast, 0.9)):
            flite(b.a.voice, text, p, s)
        distance.append(mel_cepstral_distance(read(path), read(a)))
        reference.append(mel_cepstral_distance(read(slow), read(fast)))
    print("endings: %d of %d by end-of-text, %d within 40 %% of flite's "
          "duration (ratio %.2f to %.2f); %.2f s a word" % (
              ended, len(said), close, min(ratios), max(ratios),
              np.mean(rates)))
    if distance:
        print("mel-cepstral distance to flite: %.2f dB; flite slow to fast: "
              "%.2f dB; ratio %.2f" % (np.mean(distance), np.mean(reference),
                                       np.mean(distance) / np.mean(reference)))
    return said


def settings(b, sentences):
    """Word errors at other guidance scales and step counts."""
    voice = b.prompt("rms")
    for more in (["--cfg-scale", "1.0"], ["--cfg-scale", "1.3"],
                 ["--cfg-scale", "2.0"], ["--steps", "5"], ["--steps", "20"]):
        said = b.speak(["Speaker 1: " + s for s in sentences], [voice], *more)
        names = []
        for i, (path, _) in enumerate(said):
            names.append("set%02d" % i)
            rt.write_wav(b.path(names[-1] + ".wav"),
                         rt.to_16k(*rt.samples_of(path)))
        heard = rt.recognise(b.folder, names)
        print("%-16s %4.1f %% word errors, %d of %d ended" % (
            " ".join(more), rt.word_error_rate(
                sentences, [heard[n] for n in names]),
            sum(f == "end" for _, f in said), len(said)), flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--program", default=os.path.join(ROOT, "vibevoice"))
    ap.add_argument("--model", default=os.path.join(ROOT, "demo", "model"))
    ap.add_argument("--sentences", default=os.path.join(
        ROOT, "tests", "speech", "heldout.txt"))
    ap.add_argument("--voice", default="rms", help="of endings")
    ap.add_argument("--count", type=int, default=50)
    ap.add_argument("--dialogues", type=int, default=10)
    ap.add_argument("--distances", type=int, default=20)
    ap.add_argument("--only", choices=["speakers", "endings", "settings"])
    a = ap.parse_args()
    with open(a.sentences) as f:
        sentences = [s.strip() for s in f][:a.count]
    with tempfile.TemporaryDirectory() as folder:
        b = Bench(a, folder)
        if a.only in (None, "speakers"):
            speakers(b, a.dialogues)
        if a.only in (None, "endings"):
            endings(b, sentences)
        if a.only in (None, "settings"):
            settings(b, sentences)


if __name__ == "__main__":
    main()
