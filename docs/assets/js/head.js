// What must happen before Material's script runs. Over file:// nothing of this applies: there the
// browser refuses early fonts, and the search index comes as a script.
if (location.protocol !== "file:") {
  // The fonts that the page names (main.html) start to load now, not when the first line is laid out.
  for (const { content } of document.querySelectorAll("meta[name=font]")) {
    const link = { rel: "preload", as: "font", type: "font/woff2", crossOrigin: "", href: content };
    document.head.append(Object.assign(document.createElement("link"), link));
  }

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
