//! Distributions with exact figures.
