//! The command line: thin, calls the library.

fn main() {}
