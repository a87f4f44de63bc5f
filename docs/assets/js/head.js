// What must happen before Material's script runs.

// The fonts that the page names (main.html) start to load now, not when the first line is laid out.
for (const { content } of document.querySelectorAll("meta[name=font]")) {
  if (location.protocol !== "file:") {
    const link = { rel: "preload", as: "font", type: "font/woff2", crossOrigin: "", href: content };
    document.head.append(Object.assign(document.createElement("link"), link));
  } else if (content.includes("text")) {
    // From a folder the browser preloads nothing, and the style sheet's own font comes too late.
    const style = content.includes("italic") ? "italic" : "normal";
    new FontFace("Site Text", `url("${content}")`, { style, weight: "400 700" }).load()
      .then((face) => document.fonts.add(face));
  }
}

// From a folder the search index comes as a script; there is nothing to wait for.
if (location.protocol !== "file:") {

  // Material fetches the index of the whole site, and starts its search engine, with every page.
  // Most readers of a page do not search: wait until this one turns to the search field.
  const asked = new Promise((resolve) => {
    // A link from a search result marks the words that were looked for; for that it needs the index.
    if (/[?&][hq]=/.test(location.search)) resolve();
    const turn = ({ target }) => target.closest?.("#__search, [for=__search], .md-search") && resolve();
    for (const event of ["focusin", "change", "pointerover"]) addEventListener(event, turn);
  });

  const { open, send } = XMLHttpRequest.prototype;
  XMLHttpRequest.prototype.open = function (method, url, ...rest) {
    open.call(this, method, url, ...rest);
    if (`${url}`.endsWith("/search_index.json")) this.send = () => asked.then(() => send.call(this));
  };

  // The first worker of a page is the search's; every later one is an ordinary worker.
  const Worker = window.Worker;
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      window.Worker = Worker;
      this.ready = asked.then(() => {
        const worker = new Worker(url);
        worker.onmessage = ({ data }) => this.dispatchEvent(new MessageEvent("message", { data }));
        return worker;
      });
    }

    postMessage(data) {
      this.ready.then((worker) => worker.postMessage(data));
    }
  };
}
