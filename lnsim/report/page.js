"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const style = () => getComputedStyle(document.documentElement);
  const ink = (role) => style().getPropertyValue("--" + role).trim();
  const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const clear = (hex, share) => hex + Math.round(share * 255).toString(16).padStart(2, "0");
  const LANE = 24;
  const touch = matchMedia("(pointer: coarse)").matches;
  const config = { displayModeBar: false, responsive: true };
  const byTime = [];

  const axis = (more) => ({
    gridcolor: ink("grid"), zerolinecolor: ink("rule"), linecolor: ink("rule"), tickcolor: ink("rule"),
    tickfont: { color: ink("soft"), size: 11 }, ...more,
  });
  const layout = (more) => ({
    margin: { l: 54, r: 10, t: 8, b: 26 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false,
    font: { family: style().getPropertyValue("--sans"), color: ink("soft"), size: 12 },
    hoverlabel: { bgcolor: ink("card"), bordercolor: ink("rule"), font: { color: ink("ink"), size: 12 } },
    hovermode: "x unified", dragmode: touch ? false : "zoom", ...more,
  });
  // A band where a mark lasted, a line where it was a moment: the same in every plot of the time axis.
  // What lasts for most of the run and is no fault would only tint the plot; the lanes tell of it.
  const telling = (mark) => mark.kind === "fault" || mark.until_s === null || mark.until_s - mark.at_s < data.duration_s / 2;
  const bands = () => data.marks.filter(telling).map((mark) => ({
    type: "rect", xref: "x", yref: "paper", y0: 0, y1: 1, layer: "below", x0: mark.at_s, x1: mark.until_s ?? mark.at_s,
    fillcolor: clear(ink(mark.kind), mark.kind === "fault" ? 0.14 : 0.07),
    line: { width: mark.until_s === null ? 1.2 : 0, color: ink(mark.kind), dash: mark.kind === "fault" ? "solid" : "dot" },
  }));
  const timeAxis = () => axis({
    range: [0, data.duration_s], ticksuffix: " s", showgrid: false, nticks: 8, zeroline: false,
    hoverformat: ".1f",
  });

  const lanes = (node) => {
    const faultsFirst = [...data.marks].sort((one, two) => (two.kind === "fault") - (one.kind === "fault"));
    const chosen = new Set([...new Set(faultsFirst.map((mark) => mark.text))].slice(0, data.max_lanes));
    const inTime = [...data.marks].sort((one, two) => one.at_s - two.at_s);
    const shown = [...new Set(inTime.map((mark) => mark.text))].filter((text) => chosen.has(text));
    const shapes = [], annotations = [];
    shown.forEach((text, lane) => {
      const marks = data.marks.filter((mark) => mark.text === text);
      for (const mark of marks) {
        const width = mark.until_s === null ? 0 : mark.until_s - mark.at_s;
        shapes.push({
          type: "rect", x0: mark.at_s, x1: mark.at_s + width, y0: lane - 0.32, y1: lane + 0.32, line: { width: width ? 0 : 3, color: ink(mark.kind) },
          fillcolor: clear(ink(mark.kind), 0.75),
        });
      }
      const last = marks[marks.length - 1];
      const end = last.until_s === null ? last.at_s : last.until_s;
      const before = marks[0].at_s > data.duration_s * 0.55;
      const after = end < data.duration_s * 0.7;
      const inside = !before && !after;
      annotations.push({
        x: before ? marks[0].at_s : after ? end : marks[0].at_s, y: lane, text: plain(marks.length > 1 ? `${text}  ×${marks.length}` : text),
        showarrow: false, xanchor: before ? "right" : "left", xshift: before ? -7 : 7, font: { size: 12, color: ink("ink") },
        bgcolor: inside ? clear(ink("paper"), 0.8) : "rgba(0,0,0,0)", borderpad: 1,
      });
    });
    node.style.height = shown.length * LANE + 34 + "px";
    Plotly.react(node, [{ x: [0], y: [0], mode: "markers", marker: { opacity: 0 }, hoverinfo: "skip" }], layout({
      shapes, annotations, xaxis: timeAxis(), hovermode: false,
      yaxis: { visible: false, fixedrange: true, range: [shown.length - 0.4, -0.6] },
    }), config);
  };

  const number = (unit) => ({
    s: { tickformat: "~s", ticksuffix: "s" }, "/s": { tickformat: "~s", ticksuffix: "/s" }, "B/s": { tickformat: "~s", ticksuffix: "B/s" },
    MB: { tickformat: ",~r", ticksuffix: " MB" }, ms: { tickformat: ",~r", ticksuffix: " ms" },
  }[unit] ?? { tickformat: ",~f", ticksuffix: unit ? " " + plain(unit) : "" });

  const overTime = (node, panel) => {
    const hover = { s: "%{y:.3s}s", "/s": "%{y:,.1f}/s", "B/s": "%{y:.3s}B/s", MB: "%{y:,.1f} MB", ms: "%{y:.3~g} ms" }[panel.unit] ?? "%{y:,.3~f}";
    const traces = panel.traces.map((trace) => ({
      x: trace.x, y: trace.y, name: plain(trace.name), mode: "lines", connectgaps: false,
      line: { color: ink(trace.colour), width: 1.6, dash: trace.dash ? "dot" : "solid" },
      fill: trace.fill ? "tozeroy" : "none", fillcolor: clear(ink(trace.colour), 0.12), hovertemplate: hover,
    }));
    const yaxis = axis({ rangemode: panel.from_zero ? "tozero" : "normal", fixedrange: true, nticks: 5, ...number(panel.unit) });
    Plotly.react(node, traces, layout({ shapes: bands(), xaxis: timeAxis(), yaxis }), config);
  };

  // 1, 2 and 5 of each power of ten within the data, thinned to what has room.
  const logTicks = (traces, width) => {
    const all = traces.flatMap((trace) => trace.x).filter((x) => x > 0);
    const low = Math.min(...all), high = Math.max(...all), ticks = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
      for (const digit of [1, 2, 5]) {
        const tick = Number((digit * 10 ** power).toPrecision(1));
        if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(tick);
      }
    const every = Math.ceil(ticks.length / Math.max(2, Math.floor(width / 70)));
    return ticks.filter((_, index) => index % every === 0);
  };

  const told = (value, unit) => {
    if (unit !== "s") return plain(`${value} ${unit}`.trim());
    return value < 1e-3 ? `${+(value * 1e6).toPrecision(3)} µs` : value < 1 ? `${+(value * 1e3).toPrecision(3)} ms` : `${value} s`;
  };

  const distribution = (node, panel) => {
    const ticks = logTicks(panel.traces, node.clientWidth);
    const traces = panel.traces.map((trace) => ({
      x: trace.x, y: trace.y, name: plain(trace.name), mode: "lines",
      line: { color: ink(trace.colour), width: 1.4, shape: "hv", dash: trace.dash ? "dot" : "solid" },
      fill: trace.fill ? "tozeroy" : "none", fillcolor: clear(ink(trace.colour), 0.16),
      hovertemplate: "%{y:.3~g} %",
    }));
    Plotly.react(node, traces, layout({
      xaxis: axis({ type: "log", tickvals: ticks, ticktext: ticks.map((tick) => told(tick, panel.unit)), showgrid: false, hoverformat: ".3~s", zeroline: false }),
      yaxis: axis({ rangemode: "tozero", fixedrange: true, nticks: 4, ticksuffix: " %" }),
    }), config);
  };

  let following = false;
  const follow = (from) => (change) => {
    if (following) return;
    const to = change["xaxis.autorange"] ? [0, data.duration_s]
      : "xaxis.range[0]" in change ? [change["xaxis.range[0]"], change["xaxis.range[1]"]] : null;
    if (!to) return;
    following = true;
    Promise.all(byTime.map((node) => Plotly.relayout(node, { "xaxis.range": to }))).finally(() => { following = false; });
  };

  const draw = () => {
    byTime.length = 0;
    document.querySelectorAll(".plot").forEach((node) => {
      if (node.classList.contains("lanes")) { lanes(node); byTime.push(node); return; }
      const panel = data.panels[Number(node.dataset.panel)];
      if (panel.log) distribution(node, panel); else { overTime(node, panel); byTime.push(node); }
    });
  };
  if (typeof Plotly === "undefined") return;
  draw();
  byTime.forEach((node) => node.on("plotly_relayout", follow(node)));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
