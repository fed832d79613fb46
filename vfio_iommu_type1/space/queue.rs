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

    /// Adds a request. Returns `None` without memory for it. There is always memory for the first one,
    /// so others are in the queue then, of which at least one has its turn, and is noted as awaited.
    pub(crate) fn enter(&mut self, range: Range, mode: Mode) -> Option<Ticket> {
        let ticket = Ticket(self.next);
        let request = Request {
            ticket,
            range,
            mode,
            awaited: false,
        };
        if self.requests.push(request, GFP_KERNEL_ACCOUNT).is_err() {
            if let Some(first) = self.requests.first_mut() {
                first.awaited = true;
            }
            return None;
        }
        // Wrapping takes five centuries at a request a nanosecond.
        self.next = self.next.wrapping_add(1);
        Some(ticket)
    }

    /// Where a request is in the list.
    fn position(&self, ticket: Ticket) -> Option<usize> {
        let place = self.requests.binary_search_by_key(&ticket, |r| r.ticket);
        place.ok()
    }

    /// Whether a request has its turn. If not, the first one that it has to wait for is noted as awaited.
    pub(crate) fn is_turn_of(&mut self, ticket: Ticket) -> bool {
        let earlier_and_own = self.position(ticket).map_or(0, |place| place + 1);
        let Some((own, earlier)) = self
            .requests
            .get_mut(..earlier_and_own)
            .and_then(<[Request]>::split_last_mut)
        else {
            return false;
        };
        match earlier.iter_mut().find(|other| other.conflicts(own)) {
            Some(blocker) => {
                blocker.awaited = true;
                false
            }
            None => true,
        }
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
        queue.enter(range, mode).ok_or(ENOMEM)
    }

    #[test]
    fn overlapping_requests_go_one_after_another() -> Result {
        let mut queue = Queue::new()?;
        let a = enter(&mut queue, r(0, 9), Mode::Exclusive)?;
        let b = enter(&mut queue, r(5, 14), Mode::Exclusive)?;
        let c = enter(&mut queue, r(10, 19), Mode::Exclusive)?;
        assert!(queue.is_turn_of(a) && !queue.is_turn_of(b));
        // It doesn't overtake the second one, though the first one doesn't mind.
        assert!(!queue.is_turn_of(c));
        assert!(queue.leave(a));
        assert!(queue.is_turn_of(b) && !queue.is_turn_of(c));
        assert!(queue.leave(b));
        assert!(queue.is_turn_of(c));
        assert!(!queue.leave(c));
        assert_eq!(queue.len(), 0);
        Ok(())
    }

    #[test]
    fn disjoint_requests_go_together() -> Result {
        let mut queue = Queue::new()?;
        let a = enter(&mut queue, r(0, 9), Mode::Exclusive)?;
        let b = enter(&mut queue, r(10, 19), Mode::Exclusive)?;
        assert!(queue.is_turn_of(a) && queue.is_turn_of(b));
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
        assert!(queue.is_turn_of(a) && queue.is_turn_of(b));
        assert!(!queue.is_turn_of(c) && !queue.is_turn_of(d));
        assert!(queue.leave(a));
        assert!(!queue.is_turn_of(c));
        assert!(queue.leave(b));
        assert!(queue.is_turn_of(c) && !queue.is_turn_of(d));
        assert!(queue.leave(c));
        assert!(queue.is_turn_of(d));
        Ok(())
    }

    #[test]
    fn who_left_has_no_turn() -> Result {
        let mut queue = Queue::new()?;
        let a = enter(&mut queue, Range::ALL, Mode::Exclusive)?;
        assert!(!queue.leave(a));
        assert!(!queue.is_turn_of(a));
        Ok(())
    }
}
