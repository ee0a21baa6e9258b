//! Small histories by hand: for each property one that holds it and one that breaks it.

pub fn cases() -> Vec<(&'static str, fn())> {
    Vec::new()
}
