// SPDX-License-Identifier: GPL-2.0

//! Histories: requests with the times at which they were sent and returned.

use crate::op::{
    Answer,
    Call,
    describe, //
};
use std::fmt;

/// A request. Times come from one counter, which all threads increment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<C = Call, A = Answer> {
    /// The request.
    pub call: C,
    /// The time at which it was sent.
    pub invoked: u64,
    /// The time at which it returned; `None` if it has not returned.
    pub returned: Option<u64>,
    /// The answer; `None` if any answer is accepted.
    pub answer: Option<A>,
}

impl<C, A> Entry<C, A> {
    /// Creates an entry for a request that returned.
    pub fn new(call: C, invoked: u64, returned: u64, answer: A) -> Self {
        Self {
            call,
            invoked,
            returned: Some(returned),
            answer: Some(answer),
        }
    }

    /// Creates an entry for a request that has not returned.
    pub fn pending(call: C, invoked: u64) -> Self {
        Self {
            call,
            invoked,
            returned: None,
            answer: None,
        }
    }
}

impl<O: fmt::Display> fmt::Display for Entry<Call<O>, Answer> {
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
