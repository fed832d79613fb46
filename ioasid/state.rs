// SPDX-License-Identifier: GPL-2.0

//! What an id can be in.

/// What an id can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Allocated, and not in use.
    Idle,
    /// Bound to an address space or a context.
    Active,
    /// Freed, but somebody still has a reference.
    FreePending,
}

impl State {
    /// The state's name, as debugfs shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Active => "active",
            Self::FreePending => "free-pending",
        }
    }
}
