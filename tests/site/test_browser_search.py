"""Search finds the page that a reader means, in whatever words: among the first three results."""

import pytest
from browsing import lessons, reader

pytestmark = pytest.mark.browser

# Page -> what a reader may type who wants it. Synonyms that stand nowhere on the page are kept in
# the search terms of its front matter or the glossary.
QUERIES = {
    "index": ["boundary and density", "map of models"],
    "discriminative/index": ["discriminative", "support vector machine", "discriminant function"],
    "discriminative/linear_regression": [
        "linear regression",
        "least squares",
        "ridge",
        "prediction interval",
        "extrapolation",
        "linear regresion",
    ],
    "discriminative/logistic_regression": [
        "logistic regression",
        "regression",
        "softmax",
        "cross-entropy",
        "overconfident",
        "calibration",
        "decision boundary",
        "linear classifier",
        "log-odds",
    ],
    "discriminative/neural_networks": [
        "neural network",
        "backpropagation",
        "hidden layer",
        "multilayer perceptron",
        "overfitting",
        "neural netwrok",
    ],
    "discriminative/object_detection": [
        "object detection",
        "bounding box",
        "average precision",
        "IoU",
        "non-maximum suppression",
        "YOLO",
        "object detecton",
    ],
    "discriminative/spam_filter": [
        "spam filter",
        "junk mail",
        "phishing",
        "bag of words",
        "TF-IDF",
        "spam fliter",
    ],
    "discriminative/fraud_detection": [
        "fraud detection",
        "imbalanced classes",
        "class weights",
        "rare events",
        "precision recall",
        "fruad detection",
    ],
    "discriminative/support_vector_machines": [
        "support vector machines",
        "SVM",
        "kernel trick",
        "maximum margin",
        "Platt scaling",
        "suport vector",
    ],
    "discriminative/decision_trees": [
        "decision tree",
        "CART",
        "pruning",
        "gini",
        "if-then rules",
        "descision tree",
    ],
    "discriminative/random_forests": [
        "random forest",
        "boosting",
        "XGBoost",
        "bagging",
        "out-of-bag",
        "feature importance",
    ],
    "discriminative/convolutional_networks": [
        "convolutional network",
        "CNN",
        "saliency map",
        "feature maps",
        "image classification",
        "puppy or bagel",
        "convolutional netwrok",
    ],
    "generative/index": ["generative", "contest", "which generative model"],
    "generative/naive_bayes": [
        "naive bayes",
        "independent pixels",
        "missing pixels",
        "Bayes' rule",
        "class prior",
        "generative classifier",
    ],
    "generative/energy_based": [
        "energy-based model",
        "Langevin dynamics",
        "partition function",
        "JEM",
        "contrastive divergence",
    ],
    "generative/autoregressive": [
        "autoregressive",
        "PixelCNN",
        "MADE",
        "chain rule",
        "leaking mask",
        "exact likelihood",
    ],
    "generative/gaussian_mixtures": [
        "gaussian mixture",
        "GMM",
        "EM algorithm",
        "expectation maximisation",
        "fill in pixels",
        "singular covariance",
        "gausian mixture",
    ],
    "generative/diffusion": [
        "diffusion",
        "diffusion model",
        "flow matching",
        "DDPM",
        "classifier-free guidance",
        "noise schedule",
        "stable diffusion",
        "denoising diffusion",
    ],
    "generative/sample_quality": [
        "judging samples",
        "FID",
        "two-sample test",
        "copying ratio",
        "synthetic data",
    ],
    "generative/normalizing_flows": ["normalizing flow", "change of variables", "RealNVP"],
    "generative/vae": [
        "vae",
        "variational autoencoder",
        "autoencoder",
        "latent",
        "posterior",
        "posterior collapse",
        "ELBO",
        "KL divergence",
        "encoder decoder",
        "compression",
        "reparameterisation",
    ],
    "generative/gan": [
        "GAN",
        "generative adversarial network",
        "mode collapse",
        "adversarial",
        "discriminator",
        "deepfake",
        "gradient penalty",
        "generative adverserial",
    ],
    "language_models/index": ["language model", "bits per byte", "ladder"],
    "language_models/tokenization": ["byte pair encoding", "tokenizer", "price per token"],
    "language_models/n_grams": ["n-gram", "Kneser-Ney", "Markov model"],
    "language_models/sampling": ["temperature", "nucleus sampling", "top-p", "KV cache"],
    "language_models/gpt": ["GPT", "next token", "transformer", "self-attention", "causal mask"],
    "language_models/instructions_and_agents": [
        "agents",
        "tool use",
        "function calling",
        "prompt injection",
        "preference tuning",
        "DPO",
        "RLHF",
    ],
    "language_models/as_classifier": ["sentiment analysis", "text classification"],
    "language_models/in_context_learning": ["in-context learning", "induction head", "few-shot"],
    "language_models/hallucination": ["hallucination", "BM25", "abstain", "Good-Turing"],
    "language_models/fine_tuning": ["LoRA", "catastrophic forgetting", "adapter"],
    "foundation_models/index": ["foundation model", "fine-tuning", "transfer"],
    "self_supervised/index": ["self-supervised", "unlabelled data", "contrastive"],
    "domains/index": ["text to image", "protein", "music"],
    "choosing/index": ["which model should I use", "choose a family"],
    "choosing/data_efficiency": [
        "how many labels",
        "less data",
        "sample efficiency",
        "learning curve",
    ],
    "choosing/claims": ["claim register", "verdict", "myths"],
    "practice/index": ["deploy", "drift"],
    "notebooks/both_families": ["workshop", "nonsense"],
    "how_numbers_are_made": ["reproducible", "tolerance", "random seed"],
    "contributing": ["contribute", "add a page", "new page"],
    "glossary": ["glossary", "abbreviations"],
}
ASK = """async queries => {
    const { base, search } = JSON.parse(document.getElementById("__config").textContent)
    const address = new URL("search/search_index.json", new URL(base, location))
    const index = await (await fetch(address)).json()
    const worker = new Worker(new URL(search, location))
    const answer = message => new Promise(done => {
        worker.onmessage = ({ data }) => done(data)
        worker.postMessage(message)
    })
    await answer({ type: 0, data: { ...index, options: { suggest: true } } })
    const found = {}
    for (const query of queries) {
        const { data } = await answer({ type: 2, data: query })
        found[query] = data.items.map(group => group[0].location.split("#")[0] || "index.html")
    }
    return found
}"""


def test_search_finds_what_is_meant(browser, site_address):
    """Asks the theme's own search engine, in its worker, with the site's own index."""
    wanted = {query: f"{page}.html" for page, queries in QUERIES.items() for query in queries}
    with reader(browser, site_address) as (page, log):
        page.goto(site_address + "index.html")
        found = page.evaluate(ASK, list(wanted))
        assert not log.take()
    lines = [
        f"“{query}”: {target} comes {_place(found[query], target)}; first are {found[query][:3]}"
        for query, target in wanted.items()
        if target not in found[query][:3]
    ]
    assert not lines, f"{len(lines)} of {len(wanted)} queries\n" + "\n".join(lines)


def _place(found: list[str], target: str) -> str:
    return f"{found.index(target) + 1}." if target in found else "nowhere"


def test_search_by_keyboard(browser, site_address):
    """/ opens it, typing finds, the arrow and Enter lead there, the words are marked."""
    with reader(browser, site_address) as (page, log):
        page.goto(site_address + lessons()[0].address)
        page.keyboard.press("/")
        page.keyboard.type("variational autoencoder", delay=5)
        page.locator(".md-search-result__item a").first.wait_for()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        page.wait_for_url("**/generative/vae.html*")
        page.locator("article mark, h1 mark").first.wait_for()
        assert not log.take()


def test_search_says_when_it_finds_nothing(browser, site_address):
    with reader(browser, site_address, width=390) as (page, _):
        page.goto(site_address + "index.html")
        page.keyboard.press("/")
        page.keyboard.type("xyzzyplugh")
        page.get_by_text("No matching documents").wait_for()
        page.keyboard.press("Escape")
        page.wait_for_function("!document.querySelector('#__search').checked")
