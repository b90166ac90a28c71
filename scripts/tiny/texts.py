"""Write the training sentences: texts.py SHARE DICT HELDOUT OUT

  SHARE    a /usr/share with wordnet/data.* (package wordnet-base) and
           games/fortunes/* (packages fortunes, fortunes-min)
  DICT     the recogniser's dictionary, cmudict-en-us.dict
  HELDOUT  sentences that must never be trained on
  OUT      one sentence per line, in a fixed random order

Every word is in DICT, so that a recogniser can judge what is spoken.
"""
import glob
import os
import random
import re
import sys

WORDS = dict(
    name="""John Mary Peter Sarah David Susan Thomas Alice Robert Helen George
    Laura William Emma Anna Jack Linda Frank Tom Kate""",
    place="""London Paris Boston Chicago Texas France Germany China Japan
    Canada Spain Mexico Italy school work home town""",
    person="""man woman child teacher doctor farmer driver student lawyer
    writer singer painter soldier captain king queen neighbor friend brother
    sister mother father uncle daughter son nurse judge guard pilot sailor
    hunter manager worker leader player officer reporter visitor""",
    thing="""book letter box table chair window door house garden river
    mountain road bridge train boat car truck bicycle picture story song
    question answer problem plan paper report dinner breakfast apple bread
    cheese coffee water milk lamp clock phone camera radio computer engine
    machine hammer knife bottle cup plate basket blanket jacket hat shoe key
    wall roof floor kitchen office church market station hospital library
    museum village city field forest lake beach valley tree flower bird horse
    dog cat ship wheel stone message ticket map piano guitar game weather
    music movie voice word room street morning evening summer winter""",
    adj="""old young tall short small large heavy light quiet loud bright dark
    warm cold happy sad angry gentle brave clever honest famous strange simple
    difficult beautiful broken empty full clean fresh dry green yellow orange
    brown white black blue red narrow wide thick rough smooth soft hard sharp
    sweet expensive cheap modern tired careful friendly serious perfect useful
    good great nice important interesting""",
    did="""carried bought sold found lost opened closed painted cleaned fixed
    moved watched followed described remembered forgot loved wanted needed
    noticed studied borrowed returned washed pushed pulled dropped lifted
    measured covered collected checked finished started changed missed visited
    chose brought kept showed sent took received liked heard saw made""",
    do="""carry buy sell find open close paint clean fix move watch follow
    describe remember forget love want need notice study borrow return wash
    push pull drop lift measure check finish start change visit choose bring
    keep show send take like hear see make""",
    number="""two three four five six seven eight nine ten eleven twelve
    fifteen twenty thirty forty fifty sixty ninety""",
    when="""yesterday|today|last week|last night|this morning|every day|
    in the winter|after lunch|before sunset|at noon|on Monday|on Friday|
    in July|two years ago|at seven o'clock|in the evening|all summer|tomorrow|
    once a month|at midnight|on Saturday afternoon|right now|next week""",
    where="""in on under near behind beside above across through around inside
    outside beyond toward""",
    the="the a this that his her my our their your",
)

TEMPLATES = """Hello {name}, how are you {when}?
Good morning, {name}.
Thank you very much, {name}.
I am very {adj}, thank you.
Welcome to the {adj} {thing}.
What do you think about the {thing}?
I think the {thing} is very {adj}.
Do you like the {adj} {thing}?
Yes, I like it very much.
No, I don't like the {thing}.
Where is the {thing}?
The {thing} is {where} the {thing}.
Can you {do} the {thing} {when}?
Please {do} {the} {thing} and {do} {the} {thing}.
{name} {did} {the} {adj} {thing} {when}.
{name} and {name} {did} the {thing} in {place}.
The {adj} {person} {did} {the} {thing}.
The {person} {did} {the} {adj} {thing} {where} the {thing}.
There were {number} {adj} people {where} the {thing}.
It costs {number} dollars and {number} cents.
I have {number} {adj} friends in {place}.
We will {do} the {thing} {when}.
We should {do} the {thing} before the {person} can {do} it.
It was too {adj} to {do} the {thing} {when}.
{name} said the {thing} would be {adj} {when}.
Did you {do} the {thing} {when}?
I have never seen such a {adj} {thing} in {place}.
Let's {do} the {adj} {thing} {when}.
My {person} lives in {place} with a {adj} dog.
The {thing} was {adj}, but the {thing} was {adj}.
She {did} it because it was {adj}.
If the {thing} is {adj}, then {do} it {when}.
Why did the {person} {do} my {thing}?
That's a {adj} {thing}, isn't it?
I'm sure you're right, {name}.
We're going to {place} {when}.
He can't {do} the {thing} without a {thing}.
They'll {do} it in {number} minutes.
Nice to meet you, {name}.
See you {when}, {name}.
Oh, that is really {adj}.
The {person} is {adj} and the {thing} is {adj}.""".split("\n")

SHORT = """Yes. No. Maybe. Hello. Goodbye. Please. Sorry. Okay. Really? Why?
Thank you. Of course. Good night. Come in. Not yet. Very well. I see.
Never mind. Wait a minute. Who is there? That's right. I don't know.
How are you? I'm fine. See you later. What time is it? Let me think.
You're welcome. Excuse me. Good idea. Come here. Sit down. Look at that.
Are you sure? I agree. Not at all. No problem. Good luck.""".replace("\n", " ")

N_TEMPLATED = 9000
MIN_WORDS, MAX_WORDS = 2, 15


def templated(rng):
    words = {k: ([w.strip() for w in v.split("|")] if "|" in v else v.split())
             for k, v in WORDS.items()}
    s = re.sub(r"\{(\w+)\}", lambda m: rng.choice(words[m[1]]),
               rng.choice(TEMPLATES))
    s = re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", s)
    return s[0].upper() + s[1:]


def wordnet(share):
    """The example sentences in WordNet's glosses."""
    for path in sorted(glob.glob(os.path.join(share, "wordnet", "data.*"))):
        for quote in re.findall(r'"([^"]+)"', open(path).read()):
            yield quote


def fortunes(share):
    for path in sorted(glob.glob(os.path.join(share, "games/fortunes/*"))):
        if "." in os.path.basename(path):
            continue
        text = open(path, encoding="utf-8", errors="replace").read()
        for cookie in re.split(r"\n%\n", text):
            cookie = re.sub(r"\n\s*--.*", "", cookie, flags=re.S)
            for s in re.split(r"(?<=[.!?])\s+", " ".join(cookie.split())):
                yield s


def tidy(s, known):
    """s as a plain sentence, or None if it is not one."""
    s = s.strip().replace("--", ",").replace(";", ",").replace(":", ",")
    s = re.sub(r"\s+", " ", s).replace(" ,", ",").strip(" ,.`'")
    if not s or not re.fullmatch(r"[A-Za-z][A-Za-z' ,]*[A-Za-z][?!]?", s):
        return None
    words = [w.strip(",?!'") for w in s.split()]
    if not MIN_WORDS <= len(words) <= MAX_WORDS:
        return None
    if any(w.lower() not in known or (len(w) > 1 and w.isupper())
           for w in words):
        return None
    s = s[0].upper() + s[1:]
    return s if s[-1] in "?!" else s + "."


def key(s):
    return re.sub(r"[^a-z' ]", "", s.lower())


def main():
    share, dictionary, heldout, out = sys.argv[1:]
    known = {re.sub(r"\(\d+\)$", "", line.split()[0])
             for line in open(dictionary) if line.strip()}
    banned = {key(line.strip()) for line in open(heldout)}
    rng = random.Random(7)
    texts, seen = [], set(banned)
    sources = [re.findall(r"[^.?!]+[.?!]", SHORT),
               (templated(rng) for _ in range(N_TEMPLATED)),
               wordnet(share), fortunes(share)]
    for source in sources:
        n = len(texts)
        for s in source:
            s = s.strip() if source is sources[0] else tidy(s, known)
            if s and key(s) not in seen:
                seen.add(key(s))
                texts.append(s)
        print("%d sentences" % (len(texts) - n))
    rng.shuffle(texts)
    with open(out, "w") as f:
        f.write("\n".join(texts) + "\n")
    n_words = [len(t.split()) for t in texts]
    print("%d in all, %.1f words on average, %d different words" % (
        len(texts), sum(n_words) / len(texts),
        len({w for t in texts for w in key(t).split()})))


if __name__ == "__main__":
    main()
