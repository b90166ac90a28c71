"""A small byte-level BPE tokenizer in Qwen's form: bpe.py SENTENCES OUT

Writes tokenizer.json, vocab.json, merges.txt and tokenizer_config.json into
OUT.  Merges of the sentences come first (about two characters a token, so
about one token per frame of speech); then come merges that make the fixed
words of the prompt short.  Training texts are ASCII, and so is this encoder.
"""
import collections
import json
import os
import re
import sys

PIECE = re.compile(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\nA-Za-z0-9]?[A-Za-z]+"
                   r"|[0-9]| ?[^\sA-Za-z0-9]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)"
                   r"|\s+", re.A)
QWEN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>",
           "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>"]
SYSTEM = (" Transform the text provided by various speakers into speech "
          "output, utilizing the distinct voice of each respective speaker.\n")
VOICE, TEXT, SPEECH = " Voice input:\n", " Text input:\n", " Speech output:\n"
VOCABULARY = 512    # embedding rows; the tokenizer may use fewer
TEXT_MERGES = 190


def byte_symbols():
    """GPT-2's printable stand-in for every byte."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {b: chr(b) for b in keep}
    for i, b in enumerate(b for b in range(256) if b not in table):
        table[b] = chr(256 + i)
    return table


SYMBOL = byte_symbols()


def pieces(text):
    return ["".join(SYMBOL[b] for b in p.encode()) for p in PIECE.findall(text)]


def merge_once(word, pair):
    out, i = [], 0
    while i < len(word):
        if word[i:i + 2] == pair:
            out.append(pair[0] + pair[1])
            i += 2
        else:
            out.append(word[i])
            i += 1
    return tuple(out)


def learn(words, n):
    """Up to n merges of {tuple of symbols: count}; also the merged words."""
    merges = []
    while len(merges) < n:
        pairs = collections.Counter()
        for word, count in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append(best)
        words = {merge_once(w, best): c for w, c in words.items()}
    return merges


def train(sentences):
    counts = collections.Counter(p for s in sentences
                                 for p in pieces(" " + s + "\n"))
    merges = learn({tuple(p): c for p, c in counts.items()}, TEXT_MERGES)
    fixed = pieces(SYSTEM + VOICE + TEXT + SPEECH + " Speaker")
    words = collections.Counter()
    for p in fixed:
        word = tuple(p)
        for m in merges:
            word = merge_once(word, m)
        words[word] += 1
    room = VOCABULARY - 256 - len(SPECIAL) - len(merges)
    return merges + learn(words, room)


class Tokenizer:
    def __init__(self, merges):
        self.merges = merges
        self.rank = {m: i for i, m in enumerate(merges)}
        names = sorted(SYMBOL.values()) + [a + b for a, b in merges]
        self.vocab = {s: i for i, s in enumerate(names)}
        assert len(self.vocab) == len(names), "a merge was learned twice"
        self.special = {s: len(names) + i for i, s in enumerate(SPECIAL)}
        assert len(names) + len(SPECIAL) <= VOCABULARY
        self.cache = {}

    @classmethod
    def load(cls, folder):
        with open(os.path.join(folder, "tokenizer.json")) as f:
            model = json.load(f)["model"]
        return cls([tuple(m) for m in model["merges"]])

    def piece(self, p):
        word = tuple(p)
        while True:
            ranked = [(self.rank[q], q) for q in zip(word, word[1:])
                      if q in self.rank]
            if not ranked:
                return word
            word = merge_once(word, min(ranked)[1])

    def encode(self, text):
        ids = []
        for p in pieces(text):
            if p not in self.cache:
                self.cache[p] = [self.vocab[s] for s in self.piece(p)]
            ids += self.cache[p]
        return ids


def added(token, content):
    return dict(id=token, content=content, single_word=False, lstrip=False,
                rstrip=False, normalized=False, special=True)


def save(tok, out):
    os.makedirs(out, exist_ok=True)

    def write(name, text):
        with open(os.path.join(out, name), "w", encoding="utf-8") as f:
            f.write(text)
    tokens = [added(i, s) for s, i in tok.special.items()]
    level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True,
                 use_regex=False)
    write("tokenizer.json", json.dumps(dict(
        version="1.0", truncation=None, padding=None, added_tokens=tokens,
        normalizer=dict(type="NFC"),
        pre_tokenizer=dict(type="Sequence", pretokenizers=[
            dict(type="Split", pattern=dict(Regex=QWEN), behavior="Isolated",
                 invert=False), level]),
        post_processor=None,
        decoder=dict(level, add_prefix_space=True, use_regex=True),
        model=dict(type="BPE", dropout=None, unk_token=None,
                   continuing_subword_prefix=None, end_of_word_suffix=None,
                   fuse_unk=False, byte_fallback=False, ignore_merges=False,
                   vocab=tok.vocab, merges=[list(m) for m in tok.merges])),
        ensure_ascii=False, indent=1) + "\n")
    write("vocab.json", json.dumps(tok.vocab, ensure_ascii=False) + "\n")
    write("merges.txt", "#version: 0.2\n" +
          "".join(a + " " + b + "\n" for a, b in tok.merges))
    write("tokenizer_config.json", json.dumps(dict(
        added_tokens_decoder={str(t["id"]): {k: v for k, v in t.items()
                                             if k != "id"} for t in tokens},
        add_prefix_space=False, bos_token=None, eos_token="<|endoftext|>",
        pad_token="<|endoftext|>", tokenizer_class="Qwen2Tokenizer",
        unk_token=None), indent=1) + "\n")


def main():
    sentences, out = sys.argv[1:]
    lines = [s.strip() for s in open(sentences)]
    tok = Tokenizer(train(lines))
    save(tok, out)
    n = sum(len(tok.encode(" " + s)) for s in lines[:2000])
    chars = sum(1 + len(s) for s in lines[:2000])
    print("%d entries, %.2f characters a token; prompt %d tokens" % (
        len(tok.vocab) + len(tok.special), chars / n,
        len(tok.encode(SYSTEM + VOICE + TEXT + SPEECH))))


if __name__ == "__main__":
    main()
