//! (causality)
