// SPDX-License-Identifier: GPL-2.0

//! A kernel that answers anything, for the tests of this crate.

use super::Memory;
use fastrand::Rng;
use nix::errno::Errno;
use std::cell::RefCell;

/// A kernel in the place of the real one.
pub(crate) enum Kernel {
    /// Answers at random.
    Random(Rng),
    /// Fulfils every request, and answers with this number everywhere.
    Always(u32),
}

thread_local! {
    /// The kernel of this thread, if it is not the real one.
    static KERNEL: RefCell<Option<Kernel>> = const { RefCell::new(None) };
}

/// Runs a function, all whose requests `kernel` answers.
pub(crate) fn with<T>(kernel: Kernel, run: impl FnOnce() -> T) -> T {
    KERNEL.set(Some(kernel));
    let result = run();
    KERNEL.set(None);
    result
}

/// Answers a request whose argument is a value.
pub(super) fn value() -> Option<Result<i32, Errno>> {
    KERNEL.with_borrow_mut(|kernel| kernel.as_mut().map(returned))
}

/// Answers a request, and writes to its structure.
pub(super) fn structure(memory: &Memory, offset: usize) -> Option<Result<i32, Errno>> {
    KERNEL.with_borrow_mut(|kernel| {
        let kernel = kernel.as_mut()?;
        let mut bytes = memory.to_vec(offset, memory.len() - offset);
        match kernel {
            Kernel::Random(rng) => scribble(rng, &mut bytes),
            Kernel::Always(number) => {
                for word in bytes.chunks_exact_mut(4) {
                    word.copy_from_slice(&number.to_ne_bytes());
                }
            }
        }
        memory.write(offset, &bytes);
        Some(returned(kernel))
    })
}

/// Changes nothing, some words or all bytes of a structure.
fn scribble(rng: &mut Rng, bytes: &mut [u8]) {
    match rng.u8(..8) {
        0 => {}
        1 => rng.fill(bytes),
        _ => {
            for word in bytes.chunks_exact_mut(4) {
                if rng.bool() {
                    word.copy_from_slice(&number(rng).to_ne_bytes());
                }
            }
        }
    }
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
fn returned(kernel: &mut Kernel) -> Result<i32, Errno> {
    const SUCCESS: i32 = 0x1000_0000;
    let Kernel::Random(rng) = kernel else {
        return Ok(SUCCESS);
    };
    match rng.u8(..8) {
        0 => Err(Errno::from_raw(rng.i32(1..134))),
        1 => Err(Errno::EMSGSIZE),
        2 => Ok(rng.i32(i32::MIN..0)),
        3 => Ok(rng.i32(SUCCESS..)),
        _ => Ok(SUCCESS),
    }
}
