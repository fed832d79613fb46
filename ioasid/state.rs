// SPDX-License-Identifier: GPL-2.0

//! The states of an id.

/// The state of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Allocated, but not in use.
    Idle,
    /// Bound to an address space or a context.
    Active,
    /// Freed, but references still exist.
    FreePending,
}

impl State {
    /// Returns the state's name as debugfs shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Active => "active",
            Self::FreePending => "free-pending",
        }
    }
}
