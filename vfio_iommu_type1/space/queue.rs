// SPDX-License-Identifier: GPL-2.0

//! The queue of a range lock.

use kernel::prelude::*;

use kernel_ext::iova::Range;

/// Whether other requests may hold the same addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// No other request holds any of them.
    Exclusive,
    /// Only shared requests hold them.
    Shared,
}

/// The number of a request. Later requests have higher numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

impl Ticket {
    /// Returns the number.
    pub(crate) fn number(self) -> u64 {
        self.0
    }
}

/// A request that holds its range or waits for it.
struct Request {
    ticket: Ticket,
    range: Range,
    mode: Mode,
    /// Whether a later request waits until this one leaves.
    awaited: bool,
}

impl Request {
    /// Returns whether the two requests cannot hold their ranges at the same time.
    fn conflicts(&self, other: &Self) -> bool {
        self.range.overlaps(other.range)
            && (self.mode == Mode::Exclusive || other.mode == Mode::Exclusive)
    }
}

/// The requests of a range lock, in the order of their arrival.
///
/// A request holds its range once no earlier request conflicts with it. It never overtakes a
/// request that it conflicts with, so no request starves. A request never waits for a later one,
/// so there is no deadlock among requests.
///
/// The queue of a container has one entry for each thread that runs a request on it, which are
/// few. For so few entries, a list that each new request scans once is faster than an interval
/// tree.
pub(crate) struct Queue {
    requests: KVVec<Request>,
    next: u64,
}

impl Queue {
    /// The number of requests for which memory is allocated in advance.
    const FIRST: usize = 2;

    /// Creates an empty queue.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            requests: KVVec::with_capacity(Self::FIRST, GFP_KERNEL_ACCOUNT)?,
            next: 0,
        })
    }

    /// Adds a request.
    ///
    /// # Errors
    ///
    /// If memory is short, returns an earlier request for the caller to wait for, and marks it as
    /// awaited. There always is one, because memory for the first request is allocated in advance.
    /// The failed request has no place in the queue yet, so later requests may enter before it
    /// does.
    pub(crate) fn enter(&mut self, range: Range, mode: Mode) -> Result<Ticket, Ticket> {
        let ticket = Ticket(self.next);
        let request = Request {
            ticket,
            range,
            mode,
            awaited: false,
        };
        let flags = GFP_KERNEL_ACCOUNT | __GFP_NOWARN;
        if self.requests.push(request, flags).is_err() {
            return Err(self.requests.first_mut().map_or(ticket, |first| {
                first.awaited = true;
                first.ticket
            }));
        }
        // The counter wraps after five centuries at one request per nanosecond.
        self.next = self.next.wrapping_add(1);
        Ok(ticket)
    }

    /// Returns the index of a request in the list.
    fn position(&self, ticket: Ticket) -> Option<usize> {
        let place = self.requests.binary_search_by_key(&ticket, |r| r.ticket);
        place.ok()
    }

    /// Returns the request that `ticket` has to wait for, and marks it as awaited: the last of the
    /// earlier requests that conflict with it. Choosing the last one keeps the number of waiters
    /// per request small, and after the wait it is mostly the turn of the waiter. Returns `None`
    /// if `ticket` holds its range or is not in the queue.
    pub(crate) fn blocker_of(&mut self, ticket: Ticket) -> Option<Ticket> {
        let place = self.position(ticket)?;
        let (own, earlier) = self.requests.get_mut(..=place)?.split_last_mut()?;
        let blocker = earlier
            .iter_mut()
            .rev()
            .find(|other| other.conflicts(own))?;
        blocker.awaited = true;
        Some(blocker.ticket)
    }

    /// Removes a request. Returns whether another request waited for it.
    #[must_use]
    pub(crate) fn leave(&mut self, ticket: Ticket) -> bool {
        let is_last = self.requests.last().map(|last| last.ticket) == Some(ticket);
        let left = if is_last {
            self.requests.pop()
        } else {
            let place = self.position(ticket);
            place.and_then(|place| self.requests.remove(place).ok())
        };
        left.is_some_and(|request| request.awaited)
    }

    /// Returns the number of requests.
    pub(crate) fn len(&self) -> usize {
        self.requests.len()
    }
}

#[cfg(CONFIG_KUNIT)]
#[kernel::macros::kunit_tests(vfio_type1_queue)]
mod tests {
    use super::*;

    const fn r(start: u64, last: u64) -> Range {
        Range { start, last }
    }

    fn enter(queue: &mut Queue, range: Range, mode: Mode) -> Result<Ticket> {
        queue.enter(range, mode).map_err(|_| ENOMEM)
    }

    #[test]
    fn overlapping_requests_go_one_after_another() -> Result {
        let mut queue = Queue::new()?;
        let a = enter(&mut queue, r(0, 9), Mode::Exclusive)?;
        let b = enter(&mut queue, r(5, 14), Mode::Exclusive)?;
        let c = enter(&mut queue, r(10, 19), Mode::Exclusive)?;
        assert_eq!((queue.blocker_of(a), queue.blocker_of(b)), (None, Some(a)));
        // The third request does not overtake the second, although it does not conflict with the
        // first.
        assert_eq!(queue.blocker_of(c), Some(b));
        assert!(queue.leave(a));
        assert_eq!((queue.blocker_of(b), queue.blocker_of(c)), (None, Some(b)));
        assert!(queue.leave(b));
        assert_eq!(queue.blocker_of(c), None);
        assert!(!queue.leave(c));
        assert_eq!(queue.len(), 0);
        Ok(())
    }

    #[test]
    fn disjoint_requests_go_together() -> Result {
        let mut queue = Queue::new()?;
        let a = enter(&mut queue, r(0, 9), Mode::Exclusive)?;
        let b = enter(&mut queue, r(10, 19), Mode::Exclusive)?;
        assert_eq!((queue.blocker_of(a), queue.blocker_of(b)), (None, None));
        assert!(!queue.leave(b) && !queue.leave(a));
        Ok(())
    }

    #[test]
    fn shared_requests_go_together_but_overtake_nobody() -> Result {
        let mut queue = Queue::new()?;
        let a = enter(&mut queue, r(0, 9), Mode::Shared)?;
        let b = enter(&mut queue, r(0, 9), Mode::Shared)?;
        let c = enter(&mut queue, Range::ALL, Mode::Exclusive)?;
        let d = enter(&mut queue, r(3, 3), Mode::Shared)?;
        assert_eq!((queue.blocker_of(a), queue.blocker_of(b)), (None, None));
        assert_eq!(
            (queue.blocker_of(c), queue.blocker_of(d)),
            (Some(b), Some(c))
        );
        assert!(queue.leave(b));
        assert_eq!(queue.blocker_of(c), Some(a));
        assert!(queue.leave(a));
        assert_eq!((queue.blocker_of(c), queue.blocker_of(d)), (None, Some(c)));
        assert!(queue.leave(c));
        assert_eq!(queue.blocker_of(d), None);
        Ok(())
    }
}
