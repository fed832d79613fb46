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
/// tree. Mostly there is one request, which needs no list.
pub(crate) struct Queue {
    /// The request that entered the empty queue, until it leaves. It is earlier than all others.
    first: Option<Request>,
    /// The other requests.
    later: KVVec<Request>,
    next: u64,
}

impl Queue {
    /// Creates an empty queue.
    pub(crate) const fn new() -> Self {
        Self {
            first: None,
            later: KVVec::new(),
            next: 0,
        }
    }

    /// Adds a request.
    ///
    /// # Errors
    ///
    /// If memory is short, returns an earlier request for the caller to wait for, and marks it as
    /// awaited. There always is one, because a request enters the empty queue without an
    /// allocation. The failed request has no place in the queue yet, so later requests may enter
    /// before it does.
    pub(crate) fn enter(&mut self, range: Range, mode: Mode) -> Result<Ticket, Ticket> {
        let ticket = Ticket(self.next);
        let request = || Request {
            ticket,
            range,
            mode,
            awaited: false,
        };
        if self.first.is_none() && self.later.is_empty() {
            self.first = Some(request());
        } else {
            self.push(request())?;
        }
        // The counter wraps after five centuries at one request per nanosecond.
        self.next = self.next.wrapping_add(1);
        Ok(ticket)
    }

    /// Adds a request to a queue that is not empty.
    ///
    /// # Errors
    ///
    /// Those of [`enter`](Self::enter).
    #[cold]
    fn push(&mut self, request: Request) -> Result<(), Ticket> {
        let ticket = request.ticket;
        let flags = GFP_KERNEL_ACCOUNT | __GFP_NOWARN;
        if self.later.push(request, flags).is_ok() {
            return Ok(());
        }
        let earliest = self.first.as_mut().or(self.later.first_mut());
        Err(earliest.map_or(ticket, |earliest| {
            earliest.awaited = true;
            earliest.ticket
        }))
    }

    /// Returns the index of a request in the list of later ones.
    fn position(&self, ticket: Ticket) -> Option<usize> {
        let place = self.later.binary_search_by_key(&ticket, |r| r.ticket);
        place.ok()
    }

    /// Returns the request that `ticket` has to wait for, and marks it as awaited: the last of the
    /// earlier requests that conflict with it. Choosing the last one keeps the number of waiters
    /// per request small, and after the wait it is mostly the turn of the waiter. Returns `None`
    /// if `ticket` holds its range or is not in the queue.
    pub(crate) fn blocker_of(&mut self, ticket: Ticket) -> Option<Ticket> {
        if self.later.is_empty() {
            return None;
        }
        self.blocker_among_others(ticket)
    }

    /// Like [`blocker_of`](Self::blocker_of), if there are later requests than the first one.
    #[cold]
    fn blocker_among_others(&mut self, ticket: Ticket) -> Option<Ticket> {
        let place = self.position(ticket)?;
        let (own, earlier) = self.later.get_mut(..=place)?.split_last_mut()?;
        let mut earlier = Iterator::chain(earlier.iter_mut().rev(), self.first.as_mut());
        let blocker = earlier.find(|other| other.conflicts(own))?;
        blocker.awaited = true;
        Some(blocker.ticket)
    }

    /// Removes a request. Returns whether another request waited for it.
    #[must_use]
    pub(crate) fn leave(&mut self, ticket: Ticket) -> bool {
        let first = self.first.take_if(|first| first.ticket == ticket);
        match first {
            Some(request) => request.awaited,
            None => self.remove(ticket),
        }
    }

    /// Removes a request from the list of later ones. Returns whether another request waited for
    /// it.
    #[cold]
    fn remove(&mut self, ticket: Ticket) -> bool {
        let place = self.position(ticket);
        let left = place.and_then(|place| self.later.remove(place).ok());
        left.is_some_and(|request| request.awaited)
    }

    /// Returns the number of requests.
    pub(crate) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.later.len()
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
        let mut queue = Queue::new();
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
    fn later_request_waits_for_those_that_entered_after_the_first() -> Result {
        let mut queue = Queue::new();
        let a = enter(&mut queue, r(0, 9), Mode::Exclusive)?;
        let b = enter(&mut queue, r(0, 9), Mode::Exclusive)?;
        assert_eq!(queue.blocker_of(b), Some(a));
        assert!(queue.leave(a) && queue.blocker_of(b).is_none());
        // The place of the first request is free, but the queue is not empty.
        let c = enter(&mut queue, r(9, 9), Mode::Exclusive)?;
        assert_eq!((queue.len(), queue.blocker_of(c)), (2, Some(b)));
        assert!(queue.leave(b) && !queue.leave(c) && !queue.leave(c));
        assert_eq!(queue.len(), 0);
        Ok(())
    }

    #[test]
    fn disjoint_requests_go_together() -> Result {
        let mut queue = Queue::new();
        let a = enter(&mut queue, r(0, 9), Mode::Exclusive)?;
        let b = enter(&mut queue, r(10, 19), Mode::Exclusive)?;
        assert_eq!((queue.blocker_of(a), queue.blocker_of(b)), (None, None));
        assert!(!queue.leave(b) && !queue.leave(a));
        Ok(())
    }

    #[test]
    fn shared_requests_go_together_but_overtake_nobody() -> Result {
        let mut queue = Queue::new();
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
