//! The limit of neighbours: a process that does what a guest does that misbehaves, to be given as low a priority.

use std::{hint::black_box, io, process, thread};

/// Memory, in bytes, that it takes at a time: what a guest may have by default.
const MEMORY: usize = 256 << 20;

/// What it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Pest {
    /// Nothing, without end.
    Spins,
    /// Takes memory, touches it, gives it back and begins again.
    Allocates,
}

/// Goes on until standard input ends.
pub fn pester(pest: Pest) {
    thread::spawn(move || {
        loop {
            match pest {
                Pest::Spins => std::hint::spin_loop(),
                Pest::Allocates => drop(black_box(vec![1_u8; MEMORY])),
            }
        }
    });
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
    process::exit(0);
}
