# ---
# description: A forty-minute workshop for a class - learn a boundary, learn a density, and ask both to classify, draw, fill in and recognise nonsense.
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Workshop: both families in forty minutes
#
# A class teaches the same digits to two models, one that learns the boundary between them and one that learns their density, and then puts both to five tests.

# %% [markdown]
# It needs one screen, no knowledge of machine learning and no network. Run the cells in a checkout of this site, after `make install`, in any editor that opens notebooks; choose the Python of `.venv`. All the cells together take a few seconds, so there is time to talk. The domain experts in the room are the ones who answer the discussions.
#
# **Learning goals.** Afterwards everyone can
#
# - say what a discriminative and a generative model learn, without a formula;
# - name two things that the density can do here and the boundary cannot, and their price;
# - explain why a confident answer is not a sign that the question made sense;
# - say what to measure before choosing one of the two.
#
# | Step | Minutes | The question to the class |
# |:-----|--------:|:--------------------------|
# | 1. Meet the data | 4 | Which two digits will a machine mix up? |
# | 2. Learn a boundary | 6 | What must you know to tell them apart? |
# | 3. Learn a density | 7 | Can you classify if you only know how each digit looks? |
# | 4. Draw new digits | 6 | What will be wrong with a drawn digit? |
# | 5. Hide half of each image | 6 | Who needs help when a part is missing? |
# | 6. Ask about nonsense | 5 | Who notices that the question makes no sense? |
# | 7. Count the labels | 4 | Who needs fewer examples? |
# | 8. The map | 2 | Where does your own problem belong? |

# %% [markdown]
# ## 1. Meet the data
#
# **Ask.** These thirty images have 8 × 8 pixels. Read the second row aloud. Which two digits will a machine mix up?

# %%
import numpy as np
from scipy.special import logsumexp, softmax
from sklearn.linear_model import LogisticRegression, Ridge

from snippets.shared.digits import load_split
from snippets.shared.notebooks import show
from snippets.shared.plots import DISCRIMINATIVE, GENERATIVE
from snippets.shared.plots import draw_digits, subplots

x_train, y_train, x_test, y_test = load_split(seed=0)
print(f"{len(x_train)} digits to learn from, {len(x_test)} kept for the test")
draw_digits(x_test[:30])
show("Thirty handwritten digits in three rows; some are hard to read.")

# %% [markdown]
# Now the truth, in the same order:

# %%
for row in y_test[:30].reshape(3, 10):
    print(*row, sep="   ")

# %% [markdown]
# **Discuss.** What does an 8 × 8 image of your own work look like: which few numbers describe one case, and what do they leave out? Who wrote the labels, and would two of your colleagues agree on them?
#
# <details class="success" markdown="1">
# <summary>Expected answer</summary>
#
# Usual guesses are 1 and 7, 3 and 8, 4 and 9. Write them on the board: step 2 lists the machine's mistakes, and they are other ones. If somebody in the room misreads an image, say so aloud: a model that is always right would be suspicious here.
#
# </details>

# %% [markdown]
# ## 2. Learn a boundary
#
# **Ask.** You must tell a 4 from a 9, and nobody asks you to draw either. What is enough to know?

# %%
boundary = LogisticRegression(C=10, max_iter=5000).fit(x_train, y_train)
said = boundary.predict(x_test)
wrong = np.flatnonzero(said != y_test)
print(f"the boundary is right for {np.mean(said == y_test):.1%}")
print("is  ", *y_test[wrong])
print("said", *said[wrong])
draw_digits(x_test[wrong], columns=len(wrong))
show("The test digits that the boundary gets wrong, in the order printed.")

# %% [markdown]
# **Look.** The figure shows all the mistakes, in the order of the printed lines. Which of them would you have made too?
#
# **Discuss.** In your field, is every mistake equally bad? Which wrong answer would you pay most to avoid, and who would notice it?
#
# <details class="success" markdown="1">
# <summary>Expected answer</summary>
#
# It is enough to look at the few pixels where 4 and 9 differ. [Logistic regression](../discriminative/logistic_regression.md) does exactly that: it weighs pixels for and against each digit, and models how probable each label is for a given image. How the image came about does not interest it. The family is called **discriminative**.
#
# </details>

# %% [markdown]
# ## 3. Learn a density
#
# **Ask.** Suppose you only know how each digit usually looks, pixel by pixel: the mean ink and how much it varies. Can you classify with that?
#
# The first function is the whole training. The second says how probable an image and a label are together, with every pixel on its own.

# %%
def describe(x, y, floor=0.01):
    groups = [x[y == digit] for digit in range(10)]
    share = np.array([len(group) / len(x) for group in groups])
    mean = np.array([group.mean(axis=0) for group in groups])
    variance = np.array([group.var(axis=0) for group in groups])
    return share, mean, variance + floor  # blank pixels never vary


def log_joint(model, x, seen=slice(None)):
    share, mean, variance = model
    gap = x[:, None] - mean  # (images, digits, pixels)
    log_p = -(gap**2) / (2 * variance) - np.log(2 * np.pi * variance) / 2
    return np.log(share) + log_p[..., seen].sum(axis=2)


# %% [markdown]
# To classify, compare the ten: the digit under which the image is most probable wins.

# %%
density = describe(x_train, y_train)
by_density = log_joint(density, x_test).argmax(axis=1)
print(f"the density is right for  {np.mean(by_density == y_test):.1%}")
print(f"the boundary is right for {np.mean(said == y_test):.1%}")
draw_digits(density[1])
show("The mean image of each digit, 0 to 9: blurred, but readable.")

# %% [markdown]
# **Look.** The figure is half of what the model knows: ten mean images. The other half is how much each pixel varies.
#
# **Discuss.** When a colleague explains a case to you, do they list what tells it from the others, or describe what such a case looks like? Which of the two could you check?
#
# <details class="success" markdown="1">
# <summary>Expected answer</summary>
#
# Yes, by Bayes' rule: a label is the more probable, the better it explains the image and the more common it is. This is [naive Bayes](../generative/naive_bayes.md), of the **generative** family. "Naive" is that every pixel counts as a witness of its own, although neighbours say nearly the same. Here that costs accuracy: the boundary, which learned nothing but the question, answers the question better. Training was counting and averaging.
#
# </details>

# %% [markdown]
# ## 4. Draw new digits
#
# **Ask.** The density says how each pixel of a 3 varies. So let it draw: every pixel with its own dice. What will be wrong with the result?

# %%
rng = np.random.default_rng(0)


def draw(model, labels):
    _, mean, variance = model
    return np.clip(rng.normal(mean[labels], np.sqrt(variance[labels])), 0, 1)


def mix(label):
    return [rng.choice(pixel) for pixel in x_train[y_train == label].T]


def draw_rows(rows):
    _, axes = subplots(len(rows), height=2.6)
    for axis, (title, images) in zip(axes, rows.items()):
        draw_digits(images, axes=axis, title=title)


# %%
ten = np.arange(10)
draw_rows({
    "real": [x_train[y_train == label][0] for label in ten],
    "drawn from the density": draw(density, ten),
    "each pixel from another real image of that digit": [mix(k) for k in ten],
})
show("The digits 0 to 9 in three rows: real ones with smooth strokes, drawn "
     "ones full of speckles, and ones mixed from real pixels, as speckled.")

# %% [markdown]
# Let one family judge the other: how many drawn digits does the boundary read as they were meant?

# %%
meant = np.repeat(ten, 100)
drawn = draw(density, meant)
as_meant = np.mean(boundary.predict(drawn) == meant)
print(f"as meant: {as_meant:.1%} of {len(drawn)} drawn digits")

# %% [markdown]
# **Look.** The third row has no model in it: all its pixels are real, each from another image of the same digit. It is as speckled as the second.
#
# **Discuss.** Would you accept drawn cases as test data in your field? The machine reads most of them as they were meant. Is that a proof that they look right?
#
# <details class="success" markdown="1">
# <summary>Expected answer</summary>
#
# A stroke is an agreement between neighbouring pixels, and the dice do not talk to each other. The third row shows that the bell curve is not to blame: independence alone makes the speckles. Models that let pixels agree draw smooth strokes; the [variational autoencoder](../generative/vae.md) is one. And no: a classifier looks only at what tells digits apart, so it is a poor judge of whether they look real.
#
# </details>

# %% [markdown]
# ## 5. Hide half of each image
#
# **Ask.** A hand covers the lower half of every test image. Which of the two models can still answer, and which needs help?

# %%
seen = np.arange(64) < 32  # the upper half
mean_below = np.where(seen, x_test, x_train.mean(axis=0))
helper = Ridge(alpha=1).fit(x_train[:, seen], x_train[:, ~seen])
guess_below = x_test.copy()
guess_below[:, ~seen] = helper.predict(x_test[:, seen])

answers = {
    "density, hidden pixels left out":
        log_joint(density, x_test, seen).argmax(axis=1),
    "boundary, hidden pixels = their mean":
        boundary.predict(mean_below),
    "boundary, hidden pixels = helper's guess":
        boundary.predict(guess_below),
}
right = {name: np.mean(answer == y_test) for name, answer in answers.items()}
for name, share in right.items():
    print(f"{name:42}{share:.1%}")

# %%
draw_rows({
    "what is seen": np.where(seen, x_test, 0)[:10],
    "the helper's guess": guess_below[:10],
    "what was there": x_test[:10],
})
show("Ten digits with the lower half hidden, the helper's blurred guess of "
     "the lower half, and the true images.")

# %% [markdown]
# **Look.** The density simply does not count the hidden pixels. The boundary has a weight for each pixel and must be given a number: first the mean of all digits, then the guess of a helper that learned to predict the lower half from the upper.
#
# **Discuss.** What is missing in your own data, and why? If the lower half is hidden just because it looks odd, which of these numbers still holds?
#
# <details class="success" markdown="1">
# <summary>Expected answer</summary>
#
# The density answers without help, and beats the boundary with the simplest filling. With a good helper the boundary is ahead again. But look at what the helper is: a model of one part of the image given the other, which is a piece of a density. So "generative models cope with missing data" is true with a caveat, and none of it holds when the hiding depends on what is hidden.
#
# </details>

# %% [markdown]
# ## 6. Ask about nonsense
#
# **Ask.** Both models are shown pure noise, and double exposures: two digits on top of each other. Who notices?

# %%
kinds = {
    "digits": x_test,
    "noise": rng.integers(17, size=x_test.shape) / 16,  # ink in sixteenths
    "double exposures": (x_test + x_test[rng.permutation(len(x_test))]) / 2,
}
draw_rows({name: x[:10] for name, x in kinds.items()})
show("Ten test digits, ten images of noise, and ten double exposures, in "
     "which two digits lie on top of each other.")

# %%
limit = np.quantile(logsumexp(log_joint(density, x_train), axis=1), 0.01)
sure, alarm = {}, {}
print(f"{'':17} how sure of the answer     density too low")
print(f"{'':17} boundary       density         for a digit")
for name, x in kinds.items():
    joint = log_joint(density, x)
    answers = boundary.predict_proba(x), softmax(joint, axis=1)
    sure[name] = [p.max(axis=1).mean() for p in answers]
    alarm[name] = np.mean(logsumexp(joint, axis=1) < limit)
    a, b = sure[name]
    print(f"{name:17} {a:8.2f} {b:13.2f} {alarm[name]:19.1%}")

# %% [markdown]
# **Look.** The first two columns are the probability of the winning digit: how sure each model is of its answer. The last column uses the density of the image itself: the share of images that are less probable than nearly every training digit (all but one in a hundred).
#
# **Discuss.** Who in your field would see a nonsensical input first, and what would the system do until then? Which nonsense would be the double exposure of your data?
#
# <details class="success" markdown="1">
# <summary>Expected answer</summary>
#
# Faced with noise, the boundary is less sure than usual but far from unsure, and the generative model's answer hardly wavers: an answer only weighs ten digits against each other, in both families. The density does notice, because it is about the image and not about the answer. The double exposures pass by it unseen: each pixel alone is quite normal, and this density knows nothing of what pixels do together. There the boundary's hesitation is the better sign. A density guards against what it models, not against nonsense as such.
#
# </details>

# %% [markdown]
# ## 7. Count the labels
#
# **Ask.** Somebody has to write every label. Who gets by with fewer? Vote before running the cell.

# %%
sizes, draws = [1, 2, 5, 10, 20, 50, 100], 5
curve = np.zeros((2, draws, len(sizes)))
for k in range(draws):
    order = np.random.default_rng(k).permutation(len(x_train))
    for j, size in enumerate(sizes):
        few = np.concatenate([order[y_train[order] == d][:size] for d in ten])
        x, y = x_train[few], y_train[few]
        line = LogisticRegression(C=10, max_iter=5000).fit(x, y)
        curve[0, k, j] = line.score(x_test, y_test)
        answer = log_joint(describe(x, y), x_test).argmax(axis=1)
        curve[1, k, j] = np.mean(answer == y_test)
for size, ahead in zip(sizes, (curve[0] - curve[1]).mean(axis=0)):
    print(f"{size:>3} of each digit: the boundary is ahead by {ahead:+.3f}")

# %%
_, axis = subplots()
names = ("boundary", DISCRIMINATIVE), ("density", GENERATIVE)
for (name, colour), runs in zip(names, curve):
    mean = runs.mean(axis=0)
    axis.errorbar(sizes, mean, runs.std(axis=0), color=colour)
    axis.text(110, mean[-1], name, color=colour, va="center")
axis.set(xscale="log", xlim=(0.9, 260), ylabel="share of test digits right",
         xlabel="labelled images of each digit")
axis.set_xticks(sizes, [str(size) for size in sizes])
axis.minorticks_off()
show("Accuracy against the number of labelled images of each digit. Both "
     "rise; the boundary starts level with the density and is ahead later.")

# %% [markdown]
# **Look.** The marks are means over five draws of the training images, the bars one standard deviation. The two answer the same test digits each time.
#
# **Discuss.** What does one label cost in your field, in minutes of an expert? At which point of the curve would you stop?
#
# <details class="success" markdown="1">
# <summary>Expected answer</summary>
#
# Both rules are in circulation: that generative models need more data, and that they need less. On these digits the boundary is never clearly behind, because independent pixels are a poor assumption about strokes, and no amount of data mends a wrong assumption: the density's curve goes flat. On other data, where the assumption fits, [it is the other way round](../choosing/data_efficiency.md). The rule to take home is to draw this curve for your own data.
#
# </details>

# %% [markdown]
# ## 8. The map
#
# **Ask.** Everybody names one problem of their own. Where on this map does it belong?
#
# | Kind of model | What is learned | What it can do | Read next |
# |:--|:--|:--|:--|
# | Discriminative | the boundary: labels, given the input | classify, predict | [Discriminative models](../discriminative/index.md) |
# | Generative | the density: how the inputs themselves come about | draw, score, fill in, and classify by Bayes' rule | [Generative models](../generative/index.md) |
# | Language models | the next piece of text, given the ones before | write, score and answer | [Language models](../language_models/index.md) |
# | Foundation models | one large model, adapted to many tasks | what it is adapted to | [Foundation models](../foundation_models/index.md) |
# | Self-supervised | features, from data without labels | make few labels go further | [Self-supervised learning](../self_supervised/index.md) |
#
# The first two rows are families: they differ in what is modelled. The others cut across them: most language models are generative, and a foundation model or a self-supervised one may be either.
#
# **Discuss.** Does your problem need new examples, a warning about strange inputs, or answers with parts missing? If not, is there a reason not to start with the boundary? [Choosing](../choosing/index.md) asks these questions in order, and the [claim register](../choosing/claims.md) lists what is often said about the families, with a verdict for each.
#
# **To take home.** Change one thing, and guess the result before you run it:
#
# - hide the upper half instead of the lower one (step 5);
# - turn the test images upside down and ask both models about them (step 6);
# - let the density keep one variance for all digits, and draw the curve again (step 7).
#
# <details class="success" markdown="1">
# <summary>Expected answer</summary>
#
# The upper half, hidden, gives the same order of the three. Upside down, both go on answering with confidence, and the density raises the alarm for some of the images but far from all: a 1, a 3, an 8 or a 0 may stand on its head. One variance for all digits changes little, and the curve goes flat again: the wrong assumption, independence, has stayed.
#
# </details>
