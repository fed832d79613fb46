// SPDX-License-Identifier: GPL-2.0

//! A kernel that answers anything, for the tests of this crate.

use super::Memory;
use fastrand::Rng;
use nix::errno::Errno;
use std::cell::RefCell;

thread_local! {
    /// The kernel of this thread, in the place of the real one.
    static KERNEL: RefCell<Option<Rng>> = const { RefCell::new(None) };
}

/// Runs a function, all whose requests are answered at random.
pub(crate) fn with<T>(seed: u64, run: impl FnOnce() -> T) -> T {
    KERNEL.set(Some(Rng::with_seed(seed)));
    let result = run();
    KERNEL.set(None);
    result
}

/// Answers a request whose argument is a value.
pub(super) fn value() -> Option<Result<i32, Errno>> {
    KERNEL.with_borrow_mut(|rng| rng.as_mut().map(returned))
}

/// Answers a request, and writes to its structure.
pub(super) fn structure(memory: &Memory, offset: usize) -> Option<Result<i32, Errno>> {
    KERNEL.with_borrow_mut(|rng| {
        let rng = rng.as_mut()?;
        let mut bytes = memory.to_vec(offset, memory.len() - offset);
        match rng.u8(..8) {
            // Nothing is written.
            0 => {}
            1 => rng.fill(&mut bytes),
            _ => {
                for word in bytes.chunks_exact_mut(4) {
                    if rng.bool() {
                        word.copy_from_slice(&number(rng).to_ne_bytes());
                    }
                }
            }
        }
        memory.write(offset, &bytes);
        Some(returned(rng))
    })
}

/// Returns a number such as a size, an offset, a count or an index.
fn number(rng: &mut Rng) -> u32 {
    match rng.u8(..10) {
        0 => 0,
        1 => u32::MAX,
        2 => u32::MAX - rng.u32(..64),
        3 => 1 << rng.u32(..32),
        4 => (1 << rng.u32(..32)) - 1,
        5 => rng.u32(..),
        6 => rng.u32(..16) * 8,
        _ => rng.u32(..128),
    }
}

/// Returns the result of a request. It is the number of no descriptor that the process has.
fn returned(rng: &mut Rng) -> Result<i32, Errno> {
    match rng.u8(..8) {
        0 => Err(Errno::from_raw(rng.i32(1..134))),
        1 => Err(Errno::EMSGSIZE),
        2 => Ok(rng.i32(i32::MIN..0)),
        3 => Ok(rng.i32(0x1000_0000..)),
        _ => Ok(0x1000_0000),
    }
}
