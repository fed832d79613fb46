// SPDX-License-Identifier: GPL-2.0

//! The queue of a range lock.

use kernel::prelude::*;

use iommu_group::ranges::Range;

/// Whether others may hold the same addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nobody else holds any of them.
    Exclusive,
    /// Only shared holders do.
    Shared,
}

/// The number of a request. Later requests have higher ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

impl Ticket {
    /// The number.
    pub(crate) fn number(self) -> u64 {
        self.0
    }
}

/// A request that holds its range, or waits for it.
struct Request {
    ticket: Ticket,
    range: Range,
    mode: Mode,
    /// Whether a later request waits until this one leaves.
    awaited: bool,
}

impl Request {
    /// Whether the two can't hold their ranges at the same time.
    fn conflicts(&self, other: &Self) -> bool {
        self.range.overlaps(other.range)
            && (self.mode == Mode::Exclusive || other.mode == Mode::Exclusive)
    }
}

/// The requests of a range lock, in the order in which they came.
///
/// A request has its turn once no earlier one conflicts with it; requests don't overtake others
/// with which they conflict. So no request starves, and a request never waits for a later one,
/// hence none waits for itself in a circle.
///
/// A container has as many requests at a time as there are threads in its ioctls: few. A list that
/// each new request goes through once is faster for these than an interval tree.
pub(crate) struct Queue {
    requests: KVec<Request>,
    next: u64,
}

impl Queue {
    /// Requests for which there is memory from the start.
    const FIRST: usize = 2;

    /// An empty queue.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            requests: KVec::with_capacity(Self::FIRST, GFP_KERNEL_ACCOUNT)?,
            next: 0,
        })
    }

    /// Adds a request.
    ///
    /// # Errors
    ///
    /// Without memory for it, an earlier request, which is noted as awaited. There is one, as there is
    /// always memory for the first. Who comes later may be in the queue before the request that failed:
    /// it has no place there yet.
    pub(crate) fn enter(&mut self, range: Range, mode: Mode) -> Result<Ticket, Ticket> {
        let ticket = Ticket(self.next);
        let request = Request {
            ticket,
            range,
            mode,
            awaited: false,
        };
        if self.requests.push(request, GFP_KERNEL_ACCOUNT).is_err() {
            return Err(self.requests.first_mut().map_or(ticket, |first| {
                first.awaited = true;
                first.ticket
            }));
        }
        // Wrapping takes five centuries at a request a nanosecond.
        self.next = self.next.wrapping_add(1);
        Ok(ticket)
    }

    /// Where a request is in the list.
    fn position(&self, ticket: Ticket) -> Option<usize> {
        let place = self.requests.binary_search_by_key(&ticket, |r| r.ticket);
        place.ok()
    }

    /// What a request has to wait for: of the earlier ones with which it conflicts the last, which is noted
    /// as awaited. So each is awaited by few, and who has waited mostly has its turn. `None` if it has its
    /// turn, or isn't in the queue.
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

    /// Takes a request out. Returns whether another one waited for that.
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

    /// How many requests there are.
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
        // It doesn't overtake the second one, though the first one doesn't mind.
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
