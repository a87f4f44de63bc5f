// A box that scrolls must be reachable by keyboard (WCAG 2.1.1), and one that does not scroll must
// not be a stop on the way. Material does this for code only; tables, diagrams and formulas follow.
const SCROLLERS = ".md-typeset__scrollwrap, .diagram, .md-typeset p:has(> math[display=block])";

const observer = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (target.scrollWidth > target.clientWidth + 1) {
      target.tabIndex = 0;
      target.setAttribute("role", "group");
      target.setAttribute("aria-label", "Scrolls sideways");
    } else {
      target.removeAttribute("tabindex");
      target.removeAttribute("role");
      target.removeAttribute("aria-label");
    }
  }
});

// Material's `document$` speaks once its own script has wrapped the tables.
document$.subscribe(() => {
  observer.disconnect();
  for (const box of document.querySelectorAll(SCROLLERS)) observer.observe(box);
});
