//! Each node's view of the others: a strip for every pair, grouped by who looks.
//!
//! ```text
//!   n1 sees  n2 ████████████████████
//!            n4 ████▒▒░░░░░░░░░░████   alive, suspect, down, alive
//!   n2 sees  n1 ...
//! ```
//!
//! A split shows as two kinds of groups that are each other's mirror image, a link that is cut one
//! way only as a single group that differs. What always holds: a row for every pair, also for those
//! whose view never changed; until the first change a peer is alive.

use std::collections::BTreeSet;

use super::figure::Figure;
use super::input::ScenarioRecord;
use super::markup::{listed, shortened};
use super::number;
use super::plot::{Drawing, Plot, Width, rectangle};
use super::stage::Stage;

/// More nodes than this, and the rows are too thin for a name each.
const NAMED_NODES_MAX: usize = 8;

/// The states, as the records name them and as they are drawn.
const STATES: [&str; 4] = ["alive", "suspect", "down", "silent"];

/// One node's view of another while it does not change.
struct Stretch<'a> {
    from: f64,
    to: f64,
    state: &'a str,
}

pub(super) fn strip(stage: &Stage, record: &ScenarioRecord) -> Option<Figure> {
    let nodes = &record.scenario.nodes;
    if nodes.len() < 2 || record.scenario.views.is_empty() {
        return None;
    }
    let legend = STATES.iter().map(|state| (format!("box is-{state}"), (*state).to_owned()));
    let title = "How each node (bold) sees the others";
    let mut figure = Figure::new("views", title, |width| draw(stage, record, width))
        .caption(words(stage, record))
        .legend(legend.collect());
    figure.legend_always = true;
    Some(figure)
}

fn draw(stage: &Stage, record: &ScenarioRecord, width: Width) -> Drawing {
    let nodes = &record.scenario.nodes;
    let named = nodes.len() <= NAMED_NODES_MAX;
    let (row, between) = if named { (12.0, 7.0) } else { (5.0, 5.0) };
    let group = row * (nodes.len() - 1) as f64 + between;
    let mut plot = Plot::rows(stage, width, group * nodes.len() as f64);
    for (index, node) in nodes.iter().enumerate() {
        let top = plot.top + group * index as f64 + between / 2.0;
        let letters = if width == Width::Wide { 4 } else { 2 };
        plot.text(0.0, top + 9.0, "observer", "start", &shortened(node, letters));
        let peers = nodes.iter().filter(|peer| *peer != node);
        for (place, peer) in peers.enumerate() {
            let y = top + row * place as f64;
            if named {
                let name = shortened(peer, letters);
                plot.text(width.left() - 7.0, y + row - 3.0, "peer", "end", &name);
            }
            for stretch in stretches(stage, record, node, peer) {
                draw_stretch(&mut plot, &stretch, y, row - 1.0);
            }
        }
    }
    plot.finish()
}

fn draw_stretch(plot: &mut Plot<'_>, stretch: &Stretch<'_>, y: f64, height: f64) {
    let (from, to) = (plot.x(stretch.from), plot.x(stretch.to));
    let wide = (to - from).max(1.0);
    // Nobody was there to ask: a thread instead of a band, so that it is seen without its colour.
    let (y, height) = match stretch.state {
        "silent" => (y + height / 2.0 - 0.8, 1.6),
        _ => (y, height),
    };
    let class = if STATES.contains(&stretch.state) { stretch.state } else { "other" };
    rectangle(&mut plot.body, &format!("is-{class}"), (from, y), (wide, height));
}

fn stretches<'a>(
    stage: &Stage,
    record: &'a ScenarioRecord,
    node: &str,
    peer: &str,
) -> Vec<Stretch<'a>> {
    let mut stretches = vec![Stretch { from: 0.0, to: stage.seconds, state: "alive" }];
    let views = record.scenario.views.iter();
    for view in views.filter(|view| view.node == node && view.peer == peer) {
        let at = stage.at(view.at_ms).clamp(0.0, stage.seconds);
        if let Some(last) = stretches.last_mut() {
            if last.state == view.state {
                continue;
            }
            last.to = at;
        }
        stretches.push(Stretch { from: at, to: stage.seconds, state: &view.state });
    }
    stretches.retain(|stretch| stretch.to > stretch.from);
    stretches
}

/// Who was taken to be down by whom, at the worst moment of each.
fn words(stage: &Stage, record: &ScenarioRecord) -> String {
    let nodes = &record.scenario.nodes;
    let mut down: BTreeSet<(&String, &String)> = BTreeSet::new();
    let mut first = f64::INFINITY;
    for view in record.scenario.views.iter().filter(|view| view.state == "down") {
        down.insert((&view.peer, &view.node));
        first = first.min(stage.at(view.at_ms));
    }
    if down.is_empty() {
        return "No node was taken to be down by another.".to_owned();
    }
    let of: Vec<String> = nodes
        .iter()
        .filter_map(|peer| {
            let by = down.iter().filter(|(of, _)| *of == peer).count();
            (by > 0).then(|| format!("{peer} by {by}"))
        })
        .collect();
    let silent = record.scenario.views.iter().any(|view| view.state == "silent");
    let thread = if silent { " A thread: the node itself did not answer." } else { "" };
    format!(
        "Taken to be down by so many of the others: {}; the first at {}.{thread}",
        listed(&of),
        number::tick(first.max(0.0).floor())
    )
}
