#!/usr/bin/env python3
"""Text in, words out: does a recogniser hear what the script says?

    round_trip.py [--program P] [--model DIR] [--sentences FILE] [--count N]
                  [--voice NAME] [--max-wer PERCENT] [--reversed N]
                  [--wavs DIR] [-- ARGUMENT...]

Each sentence is spoken by the program with a flite voice as its prompt, and
recognised by pocketsphinx (Debian: pocketsphinx, pocketsphinx-en-us, flite).
In the same run flite's own rendering must be understood (word error rate at
most 10 %) and the same reversed (of the first --reversed sentences) must not
(at least 80 %); otherwise the harness is broken and the speech is not judged.
--wavs DIR judges NN.wav files made elsewhere.  Arguments after -- go to the
program.

Exit: 0 understood, 1 not understood, 2 broken harness or program,
77 skipped because a tool is missing.
"""
import argparse
import array
import math
import operator
import os
import re
import shutil
import subprocess
import sys
import tempfile
import wave

MODEL = "/usr/share/pocketsphinx/model/en-us"
HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
RATE = 16000             # what the recogniser was trained on
CONTROL_MAX, REVERSED_MIN = 10.0, 80.0
PROMPT = ("The voice that you are listening to now is going to read every "
          "one of the lines that follow.")


def samples_of(path):
    """(rate, mono 16-bit samples) of a PCM WAV file."""
    with wave.open(path) as w:
        if w.getsampwidth() != 2 or w.getnchannels() != 1:
            raise ValueError(path + ": not 16-bit mono")
        x = array.array("h", w.readframes(w.getnframes()))
        return w.getframerate(), x


def to_16k(rate, x):
    """Band-limited resampling of 24 kHz to 16 kHz: two samples out of three."""
    if rate == RATE:
        return x
    if rate != 24000:
        raise ValueError("%d Hz is neither 16 nor 24 kHz" % rate)
    half, cut = 24, 7600 / 24000
    phases = []
    for shift in (0.0, 0.5):              # outputs fall on samples and between
        taps = []
        for i in range(-half + 1, half + 1):
            t = i - shift
            sinc = 2 * cut if t == 0 else (math.sin(2 * math.pi * cut * t)
                                           / (math.pi * t))
            taps.append(sinc * (0.5 + 0.5 * math.cos(math.pi * t
                                                     / (half + 1))))
        phases.append(taps)
    x = [0.0] * half + [float(v) for v in x] + [0.0] * (half + 2)
    out = array.array("h")
    for n in range((len(x) - 2 * half - 2) * 2 // 3):
        at, odd = divmod(3 * n, 2)
        v = sum(map(operator.mul, phases[odd], x[at + 1:at + 1 + 2 * half]))
        out.append(max(-32768, min(32767, round(v))))
    return out


def write_wav(path, x, rate=RATE):
    with wave.open(path, "wb") as w:
        w.setnchannels(1)
        w.setsampwidth(2)
        w.setframerate(rate)
        w.writeframes(x.tobytes())


def recognise(folder, names):
    """{name: words heard} of folder/name.wav, all at 16 kHz."""
    jobs = []
    n = max(1, min(os.cpu_count() or 1, len(names)))
    for k in range(n):
        ctl = os.path.join(folder, "ctl%d" % k)
        with open(ctl, "w") as f:
            f.write("".join(name + "\n" for name in names[k::n]))
        jobs.append(subprocess.Popen(
            ["pocketsphinx_batch", "-adcin", "yes", "-adchdr", "44",
             "-cepdir", folder, "-cepext", ".wav", "-ctl", ctl,
             "-hyp", ctl + ".hyp", "-hmm", MODEL + "/en-us",
             "-lm", MODEL + "/en-us.lm.bin",
             "-dict", MODEL + "/cmudict-en-us.dict", "-logfn", os.devnull],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    heard = {name: "" for name in names}
    for k, job in enumerate(jobs):
        if job.wait():
            raise OSError("pocketsphinx_batch failed")
        with open(os.path.join(folder, "ctl%d.hyp" % k)) as f:
            for line in f:
                m = re.match(r"(.*)\((\S+) -?\d+\)\s*$", line)
                heard[m[2]] = re.sub(r"\(\d+\)", "", m[1]).strip()
    return heard


def words(text):
    return re.sub(r"[^a-z' ]", " ", text.lower()).split()


def distance(a, b):
    """Substitutions, insertions and deletions between two word lists."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        new = [i]
        for j, y in enumerate(b, 1):
            new.append(min(row[j] + 1, new[-1] + 1, row[j - 1] + (x != y)))
        row = new
    return row[-1]


def word_error_rate(said, heard):
    """Percent, of all words together."""
    errors = sum(distance(words(s), h.split()) for s, h in zip(said, heard))
    return 100.0 * errors / sum(len(words(s)) for s in said)


def flite(voice, text, path):
    subprocess.run(["flite", "-voice", voice, "-t", text, "-o", path],
                   check=True, stdout=subprocess.DEVNULL)


def speak(a, folder, sentences):
    """The program's WAV of every sentence: one batch, one process."""
    prompt = os.path.join(folder, "prompt.wav")
    flite(a.voice, PROMPT, prompt)
    scripts = [os.path.join(folder, "%02d.txt" % i)
               for i in range(len(sentences))]
    for script, text in zip(scripts, sentences):
        with open(script, "w") as f:
            f.write("Speaker 1: %s\n" % text)
    run = subprocess.run(
        [a.program, "--model", a.model, "--txt-path", *scripts,
         "--voice-files", prompt, "-d", folder, "--quiet",
         "--threads", "1", "--seed", str(a.seed)] + a.more,
        capture_output=True, text=True)
    if run.returncode:
        print("FAIL: %s: exit %d: %s" % (a.program, run.returncode,
                                         run.stderr.strip()))
        sys.exit(2)
    return [s[:-len(".txt")] + "_generated.wav" for s in scripts]


def missing():
    need = [t for t in ("flite", "pocketsphinx_batch") if not shutil.which(t)]
    return need + [p for p in [MODEL + "/en-us"] if not os.path.isdir(p)]


def health(path):
    """Defects a recogniser is deaf to, as a list of sentences."""
    rate, x = samples_of(path)
    if not x:
        return ["no samples"]
    peak = max(abs(v) for v in x)
    clipped = sum(1 for v in x if abs(v) >= 32767)
    rms = math.sqrt(sum(v * v for v in x) / len(x)) / 32768
    faults = []
    if peak < 1000:
        faults.append("peak %d of 32768: nearly silent" % peak)
    if clipped > len(x) // 1000:
        faults.append("%d of %d samples clipped" % (clipped, len(x)))
    if not 0.01 < rms < 0.25:
        faults.append("rms %.3f is not between 0.01 and 0.25" % rms)
    quiet = longest = 0
    for i in range(0, len(x) - rate // 50, rate // 50):
        loud = max(abs(v) for v in x[i:i + rate // 50]) > 330   # -40 dBFS
        quiet = 0 if loud else quiet + 1
        longest = max(longest, quiet)
    if longest > 50:
        faults.append("%.1f s of silence on end" % (longest / 50))
    return faults


def arguments():
    ap = argparse.ArgumentParser()
    ap.add_argument("--program", default=os.path.join(ROOT, "vibevoice"))
    ap.add_argument("--model", default=os.path.join(ROOT, "demo", "model"))
    ap.add_argument("--sentences", default=os.path.join(HERE, "heldout.txt"))
    ap.add_argument("--count", type=int, default=0, help="first N only")
    ap.add_argument("--voice", default="rms")
    ap.add_argument("--max-wer", type=float, default=30.0)
    ap.add_argument("--seed", type=int, default=42)
    ap.add_argument("--reversed", type=int, default=50, metavar="N",
                    help="reverse only the first N controls")
    ap.add_argument("--wavs")
    ap.add_argument("more", nargs="*", help="after --: for the program")
    return ap.parse_args()


def judge(a, folder, sentences):
    wavs = ([os.path.join(a.wavs, "%02d.wav" % i)
             for i in range(len(sentences))] if a.wavs
            else speak(a, folder, sentences))
    names = {"said": [], "flite": [], "back": []}
    for i, (text, path) in enumerate(zip(sentences, wavs)):
        control = os.path.join(folder, "control.wav")
        flite(a.voice, text, control)
        x = to_16k(*samples_of(control))
        for kind, samples in (("said", to_16k(*samples_of(path))),
                              ("flite", x), ("back", x[::-1])):
            if kind == "back" and i >= a.reversed:
                continue
            name = "%s_%02d" % (kind, i)
            write_wav(os.path.join(folder, name + ".wav"), samples)
            names[kind].append(name)
    heard = recognise(folder, sum(names.values(), []))
    rate = {k: word_error_rate(sentences[:len(v)], [heard[n] for n in v])
            for k, v in names.items()}
    for i, text in enumerate(sentences):
        h = heard["said_%02d" % i]
        if words(text) != h.split():
            print("  said:  %s\n  heard: %s" % (text, h))
    faults = ["%s: %s" % (os.path.basename(p), f) for p in wavs
              for f in health(p)]
    return rate, faults


def main():
    a = arguments()
    absent = missing()
    if absent:
        print("SKIP: speech round trip: not installed: " + ", ".join(absent))
        return 77
    with open(a.sentences) as f:
        sentences = [s.strip() for s in f if s.strip()]
    sentences = sentences[:a.count or None]
    folder = tempfile.mkdtemp(prefix="round_trip.")
    try:
        rate, faults = judge(a, folder, sentences)
    finally:
        shutil.rmtree(folder)
    print("word error rate: %.1f %% (flite itself %.1f %%, reversed %.0f %%; "
          "%d sentences)" % (rate["said"], rate["flite"], rate["back"],
                             len(sentences)))
    if rate["flite"] > CONTROL_MAX or rate["back"] < REVERSED_MIN:
        print("BROKEN HARNESS: flite must be at most %.0f %% and reversed at "
              "least %.0f %%" % (CONTROL_MAX, REVERSED_MIN))
        return 2
    for f in faults:
        print("FAULT: " + f)
    if rate["said"] > a.max_wer or faults:
        print("FAIL: speech round trip: the bar is %.0f %%" % a.max_wer)
        return 1
    print("PASS: speech round trip")
    return 0


if __name__ == "__main__":
    sys.exit(main())
