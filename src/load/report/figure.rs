//! A plot with what belongs to it: a title that says what is seen, a sentence with the numbers in
//! it, a legend, and one drawing for each width of page.

use super::plot::{Drawing, Width};

/// A finished plot.
#[derive(Debug, Clone, Default)]
pub(super) struct Figure {
    /// Its name in links, unique within a section.
    pub slug: String,
    /// What is seen, and in which unit.
    pub title: String,
    /// What came out, in words. For those who see the plot, and instead of it for those who do not.
    pub caption: String,
    /// Class of the colour, and name.
    pub legend: Vec<(String, String)>,
    /// The legend is needed even where lines carry their names.
    pub legend_always: bool,
    pub wide: Drawing,
    pub narrow: Drawing,
    /// What to read at a moment: from, to (seconds), and the values in words.
    pub readings: Vec<(f64, f64, String)>,
}

impl Figure {
    pub fn new(slug: &str, title: impl Into<String>, draw: impl Fn(Width) -> Drawing) -> Self {
        Self {
            slug: slug.to_owned(),
            title: title.into(),
            wide: draw(Width::Wide),
            narrow: draw(Width::Narrow),
            ..Self::default()
        }
    }

    pub fn caption(mut self, caption: impl Into<String>) -> Self {
        self.caption = caption.into();
        self
    }

    pub fn legend(mut self, legend: Vec<(String, String)>) -> Self {
        self.legend = legend;
        self
    }

    pub fn readings(mut self, readings: Vec<(f64, f64, String)>) -> Self {
        self.readings = readings;
        self
    }
}

/// The class of the colour of a side, an operation or another thing that is told apart by colour.
pub(super) fn colour(index: usize) -> String {
    // As many as the style sheet has; more lines than that are not told apart by colour anyway.
    format!("c{}", index % 6 + 1)
}
