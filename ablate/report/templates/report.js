"use strict";
// Draws the figures as they come into view, sorts and filters the tables. Nothing here leaves the page.
(() => {
  const read = (id) => document.getElementById(id).textContent;
  const darkOf = JSON.parse(read("palette"));
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const NARROW = 520;
  const PRINTED = { third: 212, half: 325, whole: 670 }; // px on A4 with the style sheet's margins
  const LOW = 0.54; // of a figure's height on paper, where nobody zooms
  let printing = false;
  const drawn = new Set();
  let specs = {}; // id → figure as it was sent

  // --- figures -------------------------------------------------------------------------------------------------------

  // Colours by name of the field, so that a label which looks like a colour stays as it is.
  const themed = (value, isColour) => {
    if (typeof value === "string") {
      const twin = isColour && darkOf[value.slice(0, 7)];
      return twin ? twin + value.slice(7) : value;
    }
    if (Array.isArray(value)) return value.map((item) => themed(item, isColour));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, themed(item, /color/i.test(key))]));
    }
    return value;
  };

  // Of many ticks on a logarithmic axis, powers of ten remain.
  const thin = (axis) => {
    if (axis.type !== "log" || !axis.tickvals || axis.tickvals.length <= 6) return;
    const kept = axis.tickvals.map((value, i) => [value, i]).filter(([value]) => Number.isInteger(Math.log10(value)));
    axis.ticktext = kept.map(([, i]) => axis.ticktext[i]);
    axis.tickvals = kept.map(([value]) => value);
  };

  // Of the ticks around zero every second, where all of them would be written aslant.
  const halve = (axis, width) => {
    const zero = axis.tickvals?.indexOf(0) ?? -1;
    if (zero < 1 || axis.type === "log" || axis.ticktext.join("").length * 6.5 < 0.45 * width) return;
    for (const key of ["tickvals", "ticktext"]) axis[key] = axis[key].filter((_, i) => (i - zero) % 2 === 0);
  };

  // On a narrow figure the names of points go on on further lines; the spaces within a name hold.
  const wrap = (text) =>
    text.split(/<br>| /).reduce((lines, word) => {
      const longer = `${lines.at(-1)} ${word}`;
      return longer.length > 18 ? [...lines, word] : [...lines.slice(0, -1), longer];
    }, [""]).join("<br>").replace(/^(<br>| )+/, "");

  // Of names that would cover each other, or leave the figure, the first stays; a tap tells the others.
  const clear = (element, layout) => {
    const kept = [];
    const whole = element.getBoundingClientRect();
    (layout.annotations ?? []).forEach((note, i) => {
      if (note.name !== "caption") return;
      const shown = element.querySelector(`.annotation[data-index="${i}"]`);
      if (!shown) return; // plotly leaves out what lies beyond its axes
      const box = shown.getBoundingClientRect();
      const covers = (other) =>
        box.left < other.right && other.left < box.right && box.top < other.bottom && other.top < box.bottom;
      if (box.left < whole.left || box.right > whole.right || kept.some(covers)) shown.style.visibility = "hidden";
      else kept.push(box);
    });
  };

  // Numbers that do not fit into their cells are left to the colours.
  const unwrite = (trace, width) => {
    const longest = Math.max(...trace.text.flat().map((text) => text.length));
    if ((width - 130) / trace.x.length < 6.5 * longest) delete trace.texttemplate;
  };

  // A figure that a run logged: in its own colours and layout, as wide as there is room.
  const asLogged = (element, spec) => {
    const layout = { ...spec.layout, width: printing ? PRINTED.third : element.clientWidth, autosize: false };
    layout.paper_bgcolor ??= "#ffffff";
    layout.margin ??= { l: 48, r: 12, t: layout.title ? 48 : 12, b: 40 }; // Plotly's own take half of a small figure
    element.style.height = `${layout.height}px`;
    return { data: spec.data, layout };
  };

  const fitted = (element, spec) => {
    if (spec.own) return asLogged(element, JSON.parse(JSON.stringify(spec)));
    const isDark = dark.matches && !printing;
    const figure = isDark ? themed(spec, false) : JSON.parse(JSON.stringify(spec));
    const layout = figure.layout;
    const whole = element.closest(".half") ? "half" : "whole";
    const share = !element.classList.contains("small") ? whole : element.closest(".two") ? "half" : "third";
    layout.width = printing ? PRINTED[share] : element.clientWidth;
    const names = layout.yaxis.ticktext;
    const isRoomy = names && (figure.data[0]?.type === "scatter" || names.some((name) => String(name).includes("<br>")));
    if (printing) layout.height = Math.round((isRoomy ? 0.8 : LOW) * layout.height);
    element.style.height = `${layout.height}px`;
    layout.autosize = false;
    if (layout.width < NARROW) {
      layout.font.size = 11;
      layout.margin = { ...layout.margin, l: 40, r: 12 };
      for (const axis of [layout.xaxis, layout.yaxis]) if (!axis.tickvals && !axis.dtick) axis.nticks = 6;
      thin(layout.xaxis);
      halve(layout.xaxis, layout.width);
      for (const note of layout.annotations ?? []) if (note.name === "caption") note.text = wrap(note.text);
    }
    for (const trace of figure.data) if (trace.type === "heatmap") unwrite(trace, layout.width);
    // A finger that scrolls the page must not zoom into a figure.
    if (matchMedia("(pointer: coarse)").matches) layout.dragmode = false;
    return figure;
  };

  const draw = (element) => {
    const again = drawn.has(element);
    drawn.add(element);
    stale.delete(element);
    const { data, layout } = fitted(element, specs[element.id]);
    // Drag to zoom, double-click for all of it: a tool bar would stand over the data.
    const config = { displayModeBar: false, responsive: false };
    // One of somebody else's that cannot be drawn must not keep the others from it.
    const excuseIt = (error) => {
      if (!specs[element.id].own) throw error;
      element.textContent = `Cannot be drawn here (${error.message}).`;
    };
    try {
      globalThis.Plotly[again ? "react" : "newPlot"](element, data, layout, config).catch(excuseIt);
    } catch (error) {
      excuseIt(error);
    }
    if (specs[element.id].own) {
      element.dataset.drawn = "";
      return;
    }
    if (layout.width < NARROW) clear(element, layout);
    element.dataset.drawn = "";
  };

  const inflate = async (text) => {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  };

  const unpack = async () => {
    specs = JSON.parse(await inflate(read("figures")));
    const script = document.createElement("script");
    script.textContent = await inflate(read("library"));
    document.head.append(script);
  };

  const figures = [...document.querySelectorAll(".figure")];
  const excuse = (why) => {
    for (const element of figures) {
      element.textContent = `This browser cannot draw the figures (${why}); the tables hold their numbers.`;
      element.style.height = "auto";
    }
  };

  // One figure at a time, the nearest first, while nobody waits for anything else: a picture of the whole page has them all.
  const idle = globalThis.requestIdleCallback ?? ((work) => setTimeout(work, 30));
  const isFolded = (element) => element.closest("details:not([open])") !== null;
  const distance = (element) => {
    const { top, bottom } = element.getBoundingClientRect();
    return Math.max(top - innerHeight, -bottom, 0);
  };
  const stale = new Set(figures);
  let working = false;
  const work = () => {
    const due = printing ? [] : [...stale].filter((element) => !isFolded(element));
    working = due.length > 0;
    if (!working) return;
    draw(due.reduce((a, b) => (distance(b) < distance(a) ? b : a)));
    idle(work);
  };
  const redraw = () => {
    for (const element of drawn) stale.add(element);
    if (!working) work();
  };

  const watch = () => {
    document.documentElement.dataset.ready = "";
    const observer = new IntersectionObserver(
      (entries) => {
        for (const { isIntersecting, target } of entries) {
          if (isIntersecting && stale.has(target) && !isFolded(target)) draw(target);
        }
      },
      { rootMargin: "600px 0px" },
    );
    for (const element of figures) observer.observe(element);
    working = true;
    idle(work);
  };

  let width = innerWidth;
  let timer = 0;
  addEventListener("resize", () => {
    if (innerWidth === width || printing) return; // a phone's address bar resizes the height alone
    width = innerWidth;
    clearTimeout(timer);
    timer = setTimeout(redraw, 120);
  });
  dark.addEventListener("change", redraw);

  // Paper: everything drawn, light, and as wide as the sheet. The event waits for nothing, so neither may this.
  const opened = [];
  const toPaper = () => {
    if (printing || !globalThis.Plotly) return;
    printing = true;
    for (const details of document.querySelectorAll("details:not([open], .folded)")) {
      details.open = true;
      opened.push(details);
    }
    figures.filter((element) => !element.closest(".folded")).forEach((element) => draw(element));
  };
  const fromPaper = () => {
    if (!printing) return;
    printing = false;
    for (const details of opened.splice(0)) details.open = false;
    redraw();
  };
  addEventListener("beforeprint", toPaper);
  addEventListener("afterprint", fromPaper);

  if (typeof DecompressionStream === "undefined") excuse("it cannot inflate gzip");
  else unpack().then(watch, (error) => excuse(error.message));

  // --- tables --------------------------------------------------------------------------------------------------------

  const valueOf = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    return cell.textContent.trim();
  };

  // Numbers before texts, what is empty always last.
  const compare = (a, b, down) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    const order =
      typeof a === "number" && typeof b === "number"
        ? a - b
        : String(a).localeCompare(String(b), undefined, { numeric: true });
    return down ? -order : order;
  };

  const sortable = (table, rowsOf, show) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      head.querySelector("button")?.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = rowsOf().map((row) => [valueOf(row, column), row]);
        rows.sort(([a], [b]) => compare(a, b, down));
        show(rows.map(([, row]) => row));
      });
    });
  };

  const arms = document.getElementById("arms-table");
  // A search has no arms.
  if (arms) sortable(arms, () => [...arms.tBodies[0].rows], (rows) => arms.tBodies[0].append(...rows));

  // Of thousands of runs only some stand in the table at a time: those that the filter keeps, from the top.
  const runs = document.getElementById("runs-table");
  const words = document.getElementById("runs-words");
  const outcome = document.getElementById("runs-outcome");
  const more = document.getElementById("runs-more");
  if (!runs) return; // the page of a single figure has none
  const step = runs.tBodies[0].rows.length;
  let all = [...runs.tBodies[0].rows];
  let most = step;
  const showRuns = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const kept = all.filter((row) => {
      if (outcome.value && row.dataset.outcome !== outcome.value) return false;
      if (!wanted.length) return true;
      const text = `${row.textContent} ${row.cells[0].title}`.toLowerCase();
      return wanted.every((word) => text.includes(word));
    });
    runs.tBodies[0].replaceChildren(...kept.slice(0, most));
    const whole = `${all.length} run${all.length === 1 ? "" : "s"}`;
    document.getElementById("runs-count").textContent = kept.length === all.length ? whole : `${kept.length} of ${whole}`;
    if (more) more.hidden = kept.length <= most;
  };
  const filter = () => {
    most = step;
    showRuns();
  };
  words.addEventListener("input", filter);
  outcome.addEventListener("input", filter);
  more?.addEventListener("click", () => {
    most += step;
    showRuns();
  });
  document.getElementById("runs-filter").addEventListener("submit", (event) => event.preventDefault());
  sortable(runs, () => all, (rows) => {
    all = rows;
    showRuns();
  });
  for (const body of document.querySelectorAll("tbody[data-packed]")) {
    inflate(body.dataset.packed).then((html) => {
      body.innerHTML = html;
      delete body.dataset.packed;
      // A link to one of these rows was followed before it was there.
      const wanted = location.hash && document.getElementById(location.hash.slice(1));
      if (wanted && body.contains(wanted)) location.replace(location.hash);
    }, () => {});
  }

  if (more && typeof DecompressionStream !== "undefined") {
    inflate(read("runs-rest")).then((html) => {
      const template = document.createElement("template");
      template.innerHTML = html;
      all = all.concat([...template.content.children]);
      showRuns();
    });
  }
})();
