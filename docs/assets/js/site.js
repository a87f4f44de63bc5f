// What Material leaves undone for readers who use a keyboard or a screen reader.

// A box that scrolls must be reachable by keyboard (WCAG 2.1.1), and one that does not scroll must
// not be a stop on the way. Material does this for code only; tables, diagrams and formulas follow.
const SCROLLERS = ".md-typeset__scrollwrap, .diagram, math[display=block]";

const sizes = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (target.scrollWidth > target.clientWidth + 1) {
      target.tabIndex = 0;
      target.setAttribute("role", "group");
      target.setAttribute("aria-label", "Scrolls sideways");
    } else {
      for (const name of ["tabindex", "role", "aria-label"]) target.removeAttribute(name);
    }
  }
});

// Material puts the buttons of each block of code into a nav of its own: no landmarks, please.
const unmark = () => {
  for (const nav of document.querySelectorAll("nav.md-code__nav:not([role])")) {
    nav.setAttribute("role", "presentation");
  }
};
const buttons = new MutationObserver(unmark);

// Material's `document$` speaks once its own script has wrapped the tables.
document$.subscribe(() => {
  sizes.disconnect();
  for (const box of document.querySelectorAll(SCROLLERS)) sizes.observe(box);
  unmark();
  buttons.observe(document.querySelector("article"), { childList: true, subtree: true });
});

// The buttons that lie over labels (menu, search, sections) press them.
addEventListener("keydown", (event) => {
  if ((event.key === " " || event.key === "Enter") && event.target.matches(".press")) {
    event.preventDefault();
    event.target.closest("label").click();
  }
});
