// Checks that the browser tests run inside a visited page; each returns a list of plain lines.
// Evaluated as one expression whose value has the checks as methods.
(() => {
  const AA_TEXT = 4.5, AA_SHAPE = 3

  /** A short selector that a person can find: ids and classes, at most three levels. */
  function name(element) {
    const parts = []
    for (let e = element; e && e !== document.body && parts.length < 3; e = e.parentElement) {
      const id = e.id && !/^\d/.test(e.id) ? `#${e.id}` : ""
      const classes = [...e.classList].slice(0, 2).map(c => `.${c}`).join("")
      parts.unshift(e.localName + (id || classes))
      if (id) break
    }
    return parts.join(" > ")
  }

  function words(element) {
    return (element.textContent || element.getAttribute("aria-label") || "").trim()
      .replace(/\s+/g, " ").slice(0, 40)
  }

  // Colours are read back from a canvas: the browser then understands every notation for us.
  const pen = Object.assign(document.createElement("canvas"), { width: 1, height: 1 })
    .getContext("2d", { willReadFrequently: true })
  const known = new Map()

  /** [red, green, blue, alpha], the last in 0..1. */
  function rgba(colour) {
    if (!known.has(colour)) {
      pen.clearRect(0, 0, 1, 1)
      pen.fillStyle = "#0000"
      pen.fillStyle = colour
      pen.fillRect(0, 0, 1, 1)
      const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data
      known.set(colour, [r, g, b, a / 255])
    }
    return known.get(colour)
  }

  function over(top, bottom, opacity = 1) {
    const alpha = top[3] * opacity
    return [0, 1, 2].map(k => top[k] * alpha + bottom[k] * (1 - alpha)).concat(1)
  }

  function luminance(colour) {
    const [r, g, b] = [...colour].map(v => v / 255)
      .map(v => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }

  function contrast(a, b) {
    const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y)
    return (high + 0.05) / (low + 0.05)
  }

  /** What shows through behind an element: backgrounds laid over each other, page last. */
  function paper(element) {
    const layers = []
    for (let e = element; e; e = e.parentElement) {
      const colour = rgba(getComputedStyle(e).backgroundColor)
      if (colour[3] > 0) layers.push(colour)
      if (colour[3] === 1) break
    }
    return layers.reduceRight((below, layer) => over(layer, below), [255, 255, 255, 1])
  }

  function opacity(element, root) {
    let value = 1
    for (let e = element; e && e !== root.parentElement; e = e.parentElement)
      value *= Number(getComputedStyle(e).opacity)
    return value
  }

  function shown(element) {
    if (!element.checkVisibility({ visibilityProperty: true })) return false
    const box = element.getBoundingClientRect()
    return box.width > 0 && box.height > 0
  }

  /** Colour under the middle of a text in a drawing: the last opaque shape drawn there before it. */
  function ground(text, root, page) {
    const box = text.getBoundingClientRect()
    const [x, y] = [box.x + box.width / 2, box.y + box.height / 2]
    let colour = page
    for (const shape of root.querySelectorAll("path, rect, circle, ellipse, polygon, foreignObject *")) {
      if (shape.contains(text) && !(shape instanceof HTMLElement)) continue
      if (!(shape.compareDocumentPosition(text) & Node.DOCUMENT_POSITION_FOLLOWING)) break
      if (shape.closest("clipPath, defs")) continue
      const style = getComputedStyle(shape)
      if (shape instanceof HTMLElement) {
        const hit = shape.contains(text)
        if (hit) colour = over(rgba(style.backgroundColor), colour, opacity(shape, root))
        continue
      }
      if (style.fill === "none") continue
      const matrix = shape.getScreenCTM()
      if (!matrix) continue
      const point = new DOMPoint(x, y).matrixTransform(matrix.inverse())
      if (shape.isPointInFill(point))
        colour = over(rgba(style.fill), colour, Number(style.fillOpacity) * opacity(shape, root))
    }
    return colour
  }

  const show = colour => `rgb(${colour.slice(0, 3).map(Math.round).join(" ")})`

  /** Texts of a drawing against what lies under them. */
  function drawnTexts(root, page) {
    const found = []
    const texts = [...root.querySelectorAll("text, foreignObject")].filter(shown)
    for (const text of texts) {
      const leaf = text.localName === "text" ? text
        : [...text.querySelectorAll("*")].reverse().find(e => words(e)) || text
      if (!words(text)) continue
      const style = getComputedStyle(leaf)
      const svg = text.localName === "text"
      const ink = rgba(svg ? style.fill : style.color)
      const alpha = (svg ? Number(style.fillOpacity) : 1) * opacity(leaf, root)
      let below = page
      if (svg && contrast(over(ink, page, alpha), page) >= AA_TEXT && root.matches(".plot")) continue
      below = ground(leaf, root, page)
      const ratio = contrast(over(ink, below, alpha), below)
      if (ratio < AA_TEXT)
        found.push(`text “${words(text)}” has contrast ${ratio.toFixed(2)} on ${show(below)}`)
    }
    return found
  }

  const self = {
    /** Nothing may make the whole page scroll sideways. */
    overflow() {
      const page = document.scrollingElement
      if (page.scrollWidth <= page.clientWidth) return []
      const guilty = [...document.body.querySelectorAll("*")].filter(e => {
        const right = e.getBoundingClientRect().right + scrollX
        return right > page.clientWidth + 0.5 && shown(e) && !clipped(e)
      })
      return [`the page is ${page.scrollWidth} px wide in a window of ${page.clientWidth}: ` +
        guilty.slice(-3).map(name).join("; ")]
      function clipped(e) {
        for (let p = e.parentElement; p && p !== document.body; p = p.parentElement)
          if (getComputedStyle(p).overflowX !== "visible" || getComputedStyle(p).position === "fixed")
            return true
        return false
      }
    },

    /** Layout shifts while loading, summed; the shifted elements are named. */
    async shifts(limit) {
      const entries = await new Promise(resolve => {
        const all = []
        new PerformanceObserver(list => all.push(...list.getEntries()))
          .observe({ type: "layout-shift", buffered: true })
        setTimeout(() => resolve(all), 0)
      })
      const own = entries.filter(e => !e.hadRecentInput)
      const total = own.reduce((sum, e) => sum + e.value, 0)
      if (total <= limit) return []
      const moved = own.flatMap(e => e.sources || []).map(s => s.node)
        .map(n => n && (n.nodeType === 1 ? n : n.parentElement)).filter(Boolean).map(name)
      return [`layout shift ${total.toFixed(3)}: ${[...new Set(moved)].slice(0, 4).join("; ")}`]
    },

    /** Fonts that the page asked for and did not get; the fallback is the machine's own, or is not. */
    fonts() {
      return [...document.fonts].filter(f => f.status === "error" && !f.family.includes("Fallback"))
        .map(f => `font ${f.family} fails`)
    },

    /** Plots: there, wide enough, texts and shapes told from the background. */
    plots() {
      const found = []
      for (const plot of document.querySelectorAll("svg.plot")) {
        if (!plot.checkVisibility()) continue
        const label = plot.closest("[role=img]")?.getAttribute("aria-label")?.slice(0, 40) || "no label"
        const add = line => found.push(`plot “${label}…”: ${line}`)
        const box = plot.getBoundingClientRect()
        if (box.width < 60 || box.height < 20) add(`only ${box.width} × ${box.height} px`)
        const page = paper(plot)
        drawnTexts(plot, page).forEach(add)
        const seen = new Set()
        for (const shape of plot.querySelectorAll("path, rect, circle, polygon, line, use")) {
          if (shape.closest("clipPath, defs") || !shown(shape) && shape.localName !== "path") continue
          const style = getComputedStyle(shape)
          const faint = opacity(shape, plot)
          for (const kind of ["fill", "stroke"]) {
            const colour = style[kind]
            const alpha = Number(style[`${kind}Opacity`]) * faint
            // Washes and grid lines are faint on purpose; a halo has the colour of the page.
            if (colour === "none" || alpha < 0.6 || seen.has(colour + alpha)) continue
            seen.add(colour + alpha)
            const ratio = contrast(over(rgba(colour), page, alpha), page)
            if (ratio > 1.02 && ratio < AA_SHAPE)
              add(`${kind} ${colour} has contrast ${ratio.toFixed(2)} on ${show(page)}`)
          }
        }
      }
      return found
    },

    /** Rasterised parts of plots, as filtered by the style sheet: the strongest of their pixels show. */
    async pictures() {
      const found = []
      const canvas = document.createElement("canvas")
      const brush = canvas.getContext("2d", { willReadFrequently: true })
      for (const plot of document.querySelectorAll("svg.plot")) {
        const images = [...plot.querySelectorAll("image")].filter(shown).slice(0, 4)
        if (!images.length) continue
        const page = paper(plot)
        let best = 1
        for (const image of images) {
          const picture = new Image()
          picture.src = image.href.baseVal
          await picture.decode()
          // At its own size: made smaller, the dots of a cloud would melt into the paper.
          const [width, height] = [picture.naturalWidth, picture.naturalHeight]
          Object.assign(canvas, { width, height })
          brush.filter = "none"
          brush.fillStyle = show(page)
          brush.fillRect(0, 0, width, height)
          brush.filter = getComputedStyle(image).filter
          brush.drawImage(picture, 0, 0)
          const { data } = brush.getImageData(0, 0, width, height)
          const inked = []
          for (let k = 0; k < data.length; k += 4) {
            const ratio = contrast(data.subarray(k, k + 3), page)
            if (ratio > 1.1) inked.push(ratio)
          }
          inked.sort((x, y) => y - x)
          best = Math.max(best, inked[Math.floor(inked.length / 10)] ?? 1)  // a tenth of the ink, no speck
        }
        if (best < AA_SHAPE)
          found.push(`picture “${plot.closest("[role=img]")?.ariaLabel?.slice(0, 40)}…” is faint: ${best.toFixed(2)}`)
      }
      return found
    },

    /** Diagrams: the words in their boxes and on their arrows. */
    diagrams() {
      return [...document.querySelectorAll(".diagram svg, svg.diagram")].filter(shown)
        .flatMap(d => drawnTexts(d, paper(d)).map(line => `diagram: ${line}`))
    },

    /** Formulas: typeset, with ink that shows. */
    formulas() {
      const found = new Set()
      for (const math of document.querySelectorAll("math")) {
        if (!math.checkVisibility()) continue
        const tex = (math.getAttribute("alttext") || "no alttext").slice(0, 40)
        const box = math.getBoundingClientRect()
        if (box.width < 3 || box.height < 5) found.add(`formula ${tex} is ${box.width} × ${box.height} px`)
        const page = paper(math)
        const ratio = contrast(over(rgba(getComputedStyle(math).color), page, opacity(math, math)), page)
        if (ratio < AA_TEXT) found.add(`formula ${tex} has contrast ${ratio.toFixed(2)} on ${show(page)}`)
        if (math.querySelector("merror")) found.add(`formula ${tex} has an error`)
      }
      return [...found]
    },

    /** Every colour of code, also of the one-letter tokens that axe leaves out. */
    code() {
      const found = new Map()
      for (const token of document.querySelectorAll("pre code, pre code span")) {
        const text = [...token.childNodes].filter(n => n.nodeType === 3).map(n => n.data).join("").trim()
        if (!text || !token.checkVisibility()) continue
        const key = `${getComputedStyle(token).color} ${token.className}`
        if (found.has(key)) continue
        const page = paper(token)
        const ratio = contrast(over(rgba(getComputedStyle(token).color), page), page)
        found.set(key, ratio < AA_TEXT &&
          `code “${text.slice(0, 20)}” (.${token.className}) has contrast ${ratio.toFixed(2)} on ${show(page)}`)
      }
      return [...found.values()].filter(Boolean)
    },

    /** Note from now on every element that takes focus, and whether one sees it. */
    watchFocus() {
      self.reached = new Set()
      self.order = []
      const outlined = e => {
        if (!e) return false
        const style = getComputedStyle(e)
        const outline = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0 &&
          rgba(style.outlineColor)[3] > 0
        return outline || style.boxShadow !== "none"
      }
      document.addEventListener("focusin", ({ target: e }) => {
        const again = self.reached.has(e)
        self.reached.add(e)
        const label = e.id && document.querySelector(`label[for="${CSS.escape(e.id)}"]`)
        const seen = [e, label, e.closest(".md-search__form")].some(outlined)
        self.order.push({ name: name(e), words: words(e), seen, again })
      })
    },

    /** What can take focus, is on the page, and was not reached since `watchFocus`. */
    missed() {
      const groups = new Set([...self.reached].filter(e => e.type === "radio").map(e => e.name))
      return [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex]")]
        .filter(e => e.tabIndex >= 0 && !e.disabled && shown(e) && !self.reached.has(e))
        // Of a group of radio buttons, Tab reaches one; the arrow keys reach the others.
        .filter(e => !(e.type === "radio" && groups.has(e.name)))
        .map(e => `Tab never reaches ${name(e)} “${words(e)}”`)
    },

    /** Elements whose focus one does not see. */
    unseen() {
      return self.order.filter(e => !e.seen).map(e => `focus does not show on ${e.name} “${e.words}”`)
    },

    /** Wide code and tables scroll inside themselves; a keyboard must get at them. */
    scrollers() {
      return [...document.querySelectorAll("pre code, .md-typeset__table, .md-typeset__scrollwrap, pre")]
        .filter(e => shown(e) && e.scrollWidth > e.clientWidth + 1)
        .filter(e => getComputedStyle(e).overflowX !== "visible" && e.tabIndex < 0 &&
          !e.querySelector("a[href], button, [tabindex]")).map(e => `${name(e)} scrolls but cannot be focused`)
    },

    /** On paper: no navigation, no code cut off, folds keep their titles, ink on white. */
    printed() {
      const lines = []
      const all = selector => [...document.querySelectorAll(selector)]
      for (const e of all(".md-header, .md-tabs, .md-sidebar, .md-footer, .md-search, .md-top"))
        if (shown(e)) lines.push(`${e.className} is printed`)
      for (const e of all("pre, pre code, .md-typeset__scrollwrap, svg.plot"))
        if (shown(e) && e.clientWidth && e.scrollWidth > e.clientWidth + 1)
          lines.push(`cut off: ${name(e)} ${words(e)}`)
      for (const e of all("summary")) if (!shown(e)) lines.push(`a fold has lost its title: ${words(e)}`)
      for (const e of all("article p, article h2, article code, article td, svg.plot text, math")) {
        const style = getComputedStyle(e)
        const ink = rgba(e.localName === "text" ? style.fill : style.color)
        if (shown(e) && contrast(over(ink, [255, 255, 255, 1]), [255, 255, 255]) < AA_TEXT)
          lines.push(`pale ink: ${name(e)}`)
      }
      return lines.concat(self.overflow())
    },

    /**
     * [violations, undecided] of axe. Words of code and shapes of plots are most of a lesson's elements:
     * axe is shown a block of code as one text, and plots (hidden from screen readers) without their
     * inside; `code`, `plots` and `pictures` above compare their colours. So this comes last on a visit.
     */
    async axe(wcag, practice) {
      for (const code of document.querySelectorAll("pre code")) code.textContent = code.textContent
      for (const plot of document.querySelectorAll("svg.plot[aria-hidden=true]")) plot.replaceChildren()
      const rules = axe.getRules(wcag).filter(rule => !rule.tags.includes("experimental"))
      const run = await axe.run(document, {
        runOnly: { type: "rule", values: rules.map(rule => rule.ruleId).concat(practice) },
        resultTypes: ["violations", "incomplete"], preload: false, iframes: false,
      })
      const open = document.querySelector("#__drawer:checked, #__search:checked")
      const list = kind => run[kind].flatMap(rule => rule.nodes.map(node => {
        const [failed] = [...node.any, ...node.all, ...node.none]
        const [target] = document.querySelectorAll(node.target.flat().join(" "))
        const where = target?.closest(".diagram") ? "diagram" : target?.closest("math") ? "formula"
          : open ? "behind what is open" : "page"
        return [rule.id, name(target), failed?.message ?? rule.help, failed?.data?.messageKey ?? "", where]
      }))
      return [list("violations"), list("incomplete")]
    },
  }
  return self
})()
