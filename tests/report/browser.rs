//! A real browser opens the report: what it draws, and what it complains about.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Asks each plot for its size, and for letters that lie on each other or outside. Moves the pointer
/// over each as well, so that the script of the page has run.
const MEASURE: &str = "
addEventListener('load', () => {
  const plots = [];
  for (const figure of document.querySelectorAll('figure')) {
    const under = figure.querySelector('.plot').getBoundingClientRect();
    figure.querySelector('.plot').dispatchEvent(new PointerEvent('pointermove',
      { clientX: under.left + under.width / 2, clientY: under.top + 5, bubbles: true }));
    for (const svg of figure.querySelectorAll('.plot > svg')) {
      const outer = svg.getBoundingClientRect();
      if (outer.width === 0) continue;
      const inner = svg.getBBox();
      const texts = [...svg.querySelectorAll('text')].filter((text) => text.textContent);
      const boxes = texts.map((text) => [text.textContent, text.getBoundingClientRect()]);
      const outside = boxes.filter(([, box]) =>
        box.left < outer.left - 2 || box.right > outer.right + 2);
      const crossing = [];
      boxes.forEach(([one, a], index) => boxes.slice(index + 1).forEach(([other, b]) => {
        const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (wide > 1 && high > 3) crossing.push(`${one} × ${other}`);
      }));
      plots.push({ id: figure.id, drawn: svg.classList[0], width: outer.width, height: outer.height,
        inside: [inner.width, inner.height],
        shapes: svg.querySelectorAll('path, rect, circle, line').length, texts: texts.length,
        outside: outside.map(([text]) => text), crossing });
    }
  }
  const read = [...document.querySelectorAll('.readout:not([hidden]) span')]
    .map((span) => span.textContent);
  const out = document.createElement('pre');
  out.id = 'measured';
  out.textContent = JSON.stringify({ plots, read, width: innerWidth,
    scroll: document.documentElement.scrollWidth });
  document.body.append(out);
});
";

/// The Chromium on PATH; without one, says so and gives nothing.
pub fn chromium() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|at| at.join("chromium")).find(|at| at.is_file());
    if found.is_none() {
        eprintln!("skipped: no chromium on PATH (Debian: apt-get install chromium)");
    }
    found
}

/// Opens a page in a window so wide, and gives what was measured and what the console said.
pub fn measure(chromium: &Path, html: &str, width: u32, scratch: &Path) -> (Value, Vec<String>) {
    fs::create_dir_all(scratch).unwrap();
    let page = scratch.join(format!("measured-{width}.html"));
    let script = format!("<script>{MEASURE}</script></body>");
    fs::write(&page, html.replace("</body>", &script)).unwrap();
    // A browser that hangs fails the test instead of stopping it.
    let output = Command::new("timeout")
        .arg("60")
        .arg(chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--enable-logging=stderr", "--dump-dom", "--virtual-time-budget=2000"])
        .arg(format!("--window-size={width},900"))
        .arg(format!("--user-data-dir={}", scratch.join("profile").display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    let dom = String::from_utf8(output.stdout).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let console = said.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned).collect();
    let measured =
        dom.split("<pre id=\"measured\">").nth(1).and_then(|rest| rest.split("</pre>").next());
    let measured = measured.unwrap_or_else(|| panic!("the page was not measured: {said}"));
    let measured = measured.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    (serde_json::from_str(&measured).unwrap(), console)
}
