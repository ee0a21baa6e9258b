//! What was broken, and when: a row for each kind of fault, and below it the time to recover.

use super::figure::Figure;
use super::markup::shortened;
use super::plot::{Drawing, Plot, Width, line, rectangle};
use super::stage::{Band, Stage};
use super::words;

const ROW: f64 = 24.0;

/// The width of a letter of 12 pixels, rather more than less.
const LETTER: f64 = 6.8;

/// What is said in more words than this belongs into the scenario's text.
const LABEL_LETTERS_MAX: usize = 60;

pub(super) fn figure(stage: &Stage) -> Option<Figure> {
    if stage.bands.is_empty() {
        return None;
    }
    let caption = match stage.recovery() {
        Some(recovery) => format!("{}.", capital(&recovery)),
        None => String::new(),
    };
    Some(
        Figure::new("faults", "What was broken, and when", |width| draw(stage, width))
            .caption(caption),
    )
}

fn draw(stage: &Stage, width: Width) -> Drawing {
    let mut labels: Vec<&str> = Vec::new();
    for band in &stage.bands {
        if !labels.contains(&band.label.as_str()) {
            labels.push(&band.label);
        }
    }
    let recovery = usize::from(stage.healed.is_some());
    let mut plot = Plot::unlabelled(stage, width, ROW * (labels.len() + recovery) as f64);
    for (index, label) in labels.iter().enumerate() {
        let top = plot.top + ROW * index as f64;
        let bands: Vec<&Band> = stage.bands.iter().filter(|band| band.label == **label).collect();
        row(&mut plot, &bands, &shortened(label, LABEL_LETTERS_MAX), top);
    }
    if let Some(healed) = stage.healed {
        let y = plot.top + ROW * labels.len() as f64 + ROW / 2.0;
        let end = stage.converged.unwrap_or(stage.seconds);
        let (from, to) = (plot.x(healed), plot.x(end));
        line(&mut plot.body, "recovery", (from, y), (to, y));
        let words = match stage.converged {
            Some(_) => format!("{} to equal copies", words::convergence(stage)),
            None => "not seen equal".to_owned(),
        };
        let fits = to + 8.0 + words.chars().count() as f64 * LETTER <= width.total();
        let (x, anchor) = if fits { (to + 8.0, "start") } else { (from - 8.0, "end") };
        plot.text(x, y + 4.0, "fault-beside", anchor, &words);
    }
    plot.finish()
}

/// The boxes of one kind of fault, with its name where there is room: in the widest, else before the
/// first, where no mark of healing is in the way.
fn row(plot: &mut Plot<'_>, bands: &[&Band], label: &str, top: f64) {
    let (y, height) = (top + 4.0, ROW - 8.0);
    let mut widest = (0.0, 0.0);
    let (mut first, mut last) = (plot.width.right(), plot.width.left());
    for band in bands {
        let (from, to) = (plot.x(band.from), plot.x(band.to));
        rectangle(&mut plot.body, "fault", (from, y), ((to - from).max(2.0), height));
        if to - from > widest.1 - widest.0 {
            widest = (from, to);
        }
        (first, last) = (first.min(from), last.max(to));
    }
    let needed = label.chars().count() as f64 * LETTER + 8.0;
    let baseline = y + height - 4.0;
    let right = plot.width.total() - last;
    // Down to the edge: there are no numbers of an axis in the way.
    let left = first;
    if widest.1 - widest.0 >= needed {
        plot.text(f64::midpoint(widest.0, widest.1), baseline, "fault-name", "middle", label);
    } else if left >= needed || left >= right {
        let label = shortened(label, ((left - 6.0) / LETTER) as usize);
        plot.text(first - 6.0, baseline, "fault-beside", "end", &label);
    } else {
        let label = shortened(label, ((right - 6.0) / LETTER) as usize);
        plot.text(last + 6.0, baseline, "fault-beside", "start", &label);
    }
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}
