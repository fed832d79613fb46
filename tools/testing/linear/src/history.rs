// SPDX-License-Identifier: GPL-2.0

//! What happened: requests with the times at which they were sent and returned.

use crate::op::{
    Answer,
    Call,
    describe, //
};
use std::fmt;

/// A request. Times come from one counter, which all threads increment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<C = Call, A = Answer> {
    /// What was asked.
    pub call: C,
    /// When it was sent.
    pub invoked: u64,
    /// When it returned; nothing if it had not.
    pub returned: Option<u64>,
    /// What it returned; nothing if that is to be left open.
    pub answer: Option<A>,
}

impl<C, A> Entry<C, A> {
    /// A request that returned.
    pub fn new(call: C, invoked: u64, returned: u64, answer: A) -> Self {
        Self {
            call,
            invoked,
            returned: Some(returned),
            answer: Some(answer),
        }
    }

    /// A request that was sent and has not returned.
    pub fn pending(call: C, invoked: u64) -> Self {
        Self {
            call,
            invoked,
            returned: None,
            answer: None,
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.returned {
            Some(returned) => write!(f, "[{:>5} {returned:>5}]", self.invoked)?,
            None => write!(f, "[{:>5}   ...]", self.invoked)?,
        }
        write!(f, " {} = ", self.call)?;
        match (&self.answer, self.returned) {
            (Some(answer), _) => f.write_str(&describe(answer)),
            (None, Some(_)) => f.write_str("(any)"),
            (None, None) => f.write_str("has not returned"),
        }
    }
}
