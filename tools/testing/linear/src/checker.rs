// SPDX-License-Identifier: GPL-2.0

//! Searches for an order of concurrent requests that a sequential model can explain.
//!
//! The algorithm is that of Wing and Gong with Lowe's cache ("Testing for linearizability", 2017):
//! a depth-first search over the requests that may come next. It never visits the same combination
//! of completed requests and model state twice. A request may also take several steps of the model
//! with other requests between them: see [`Model::steps`].

use crate::history::Entry;
use std::{
    collections::HashSet,
    hash::Hash,
    rc::Rc, //
};

/// A sequential model.
pub trait Model {
    /// The state of the modelled object.
    type State: Clone + Eq + Hash;
    /// A request.
    type Call;
    /// What a request returns.
    type Answer;
    /// The progress of a request that takes several steps.
    type Local: Clone + Default + Eq + Hash;

    /// Returns the possible next steps of a request whose final answer is `answer`. If `answer` is
    /// `None`, any answer is accepted. Each step consists of the state after it, and of the
    /// request's progress, or `None` if the request is done.
    fn steps(
        &self,
        state: &Self::State,
        call: &Self::Call,
        local: &Self::Local,
        answer: Option<&Self::Answer>,
    ) -> Vec<(Self::State, Option<Self::Local>)>;

    /// Returns whether a request with this `answer` never changes the state, whatever the state is.
    /// Such a request need not be tried later than at the first point where it fits.
    fn is_observer(&self, _call: &Self::Call, _answer: Option<&Self::Answer>) -> bool {
        false
    }
}

/// The result of the search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// An order was found: the index of each request, once for each of its steps.
    Linearizable(Vec<usize>),
    /// No order exists. This is the longest partial order that was found.
    Violation(Vec<usize>),
    /// The search exceeded its budget.
    Undecided,
}

impl Verdict {
    /// Returns whether it is certain that no order exists.
    pub fn is_violation(&self) -> bool {
        matches!(self, Self::Violation(_))
    }
}

/// The maximum number of requests in a history.
pub const MOST: usize = 128;

/// A point of the search.
struct Point<M: Model> {
    key: Key<M>,
    /// The number of completed requests among those that returned.
    count: usize,
    path: Option<Rc<Path>>,
}

/// The key that identifies a point of the search.
struct Key<M: Model> {
    done: u128,
    locals: Vec<(usize, M::Local)>,
    state: M::State,
}

impl<M: Model> Clone for Key<M> {
    fn clone(&self) -> Self {
        Self {
            done: self.done,
            locals: self.locals.clone(),
            state: self.state.clone(),
        }
    }
}

impl<M: Model> PartialEq for Key<M> {
    fn eq(&self, other: &Self) -> bool {
        self.done == other.done && self.locals == other.locals && self.state == other.state
    }
}

impl<M: Model> Eq for Key<M> {}

impl<M: Model> Hash for Key<M> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.done, &self.locals, &self.state).hash(state);
    }
}

/// A step, linked to the steps before it.
struct Path {
    index: usize,
    before: Option<Rc<Path>>,
}

fn order(path: &Option<Rc<Path>>) -> Vec<usize> {
    let mut steps = Vec::new();
    let mut next = path.as_ref();
    while let Some(path) = next {
        steps.push(path.index);
        next = path.before.as_ref();
    }
    steps.reverse();
    steps
}

/// Returns whether a bit is set.
fn has(set: u128, index: usize) -> bool {
    (set >> index) & 1 != 0
}

/// Searches for an order. Requests that have not returned may be part of it or not.
///
/// # Panics
///
/// If there are more than [`MOST`] requests.
pub fn check<M: Model>(
    model: &M,
    start: &M::State,
    history: &[Entry<M::Call, M::Answer>],
    budget: usize,
) -> Verdict {
    assert!(history.len() <= MOST, "{} requests", history.len());
    let wanted = history.iter().filter(|e| e.returned.is_some()).count();
    let mut by_return: Vec<_> = (0..history.len()).collect();
    by_return.sort_by_key(|index| history[*index].returned.unwrap_or(u64::MAX));
    let mut seen = HashSet::new();
    let mut best = (0, None);
    let mut stack = vec![Point::<M> {
        key: Key {
            done: 0,
            locals: Vec::new(),
            state: start.clone(),
        },
        count: 0,
        path: None,
    }];
    while let Some(point) = stack.pop() {
        if point.count == wanted {
            return Verdict::Linearizable(order(&point.path));
        }
        if point.count > best.0 {
            best = (point.count, point.path.clone());
        }
        // A request cannot come after a request that was sent after it had returned.
        let first = by_return.iter().find(|index| !has(point.key.done, **index));
        let deadline = first.and_then(|i| history[*i].returned).unwrap_or(u64::MAX);
        let may_come =
            |index: &&usize| !has(point.key.done, **index) && history[**index].invoked <= deadline;
        let observation = by_return.iter().filter(may_come).find_map(|&index| {
            let entry = &history[index];
            let observes = model.is_observer(&entry.call, entry.answer.as_ref());
            observes.then(|| successors(model, &point, index, entry).pop())?
        });
        if let Some(next) = observation {
            if seen.insert(next.key.clone()) {
                stack.push(next);
            }
            continue;
        }
        // Requests that returned first are tried first, so they are pushed last.
        for &index in by_return.iter().rev().filter(may_come) {
            for next in successors(model, &point, index, &history[index]) {
                if seen.insert(next.key.clone()) {
                    stack.push(next);
                }
            }
        }
        if seen.len() > budget {
            return Verdict::Undecided;
        }
    }
    Verdict::Violation(order(&best.1))
}

/// Returns the points that one request leads to.
fn successors<M: Model>(
    model: &M,
    point: &Point<M>,
    index: usize,
    entry: &Entry<M::Call, M::Answer>,
) -> Vec<Point<M>> {
    let key = &point.key;
    let local = key.locals.iter().find(|(i, _)| *i == index);
    let local = local.map(|(_, local)| local.clone()).unwrap_or_default();
    let steps = model.steps(&key.state, &entry.call, &local, entry.answer.as_ref());
    let point = |(state, local): (M::State, Option<M::Local>)| {
        let others = key.locals.iter().filter(|(i, _)| *i != index);
        let mut locals: Vec<_> = others.cloned().collect();
        let is_done = local.is_none();
        locals.extend(local.map(|local| (index, local)));
        locals.sort_by_key(|(i, _)| *i);
        Point {
            key: Key {
                done: key.done | (u128::from(is_done) << index),
                locals,
                state,
            },
            count: point.count + usize::from(is_done && entry.returned.is_some()),
            path: Some(Rc::new(Path {
                index,
                before: point.path.clone(),
            })),
        }
    };
    steps.into_iter().map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A register.
    struct Register;

    #[derive(Clone, Copy, Debug)]
    enum Call {
        Write(u8),
        Read,
        /// Adds to the register by a read and a separate write.
        Add(u8),
    }

    impl Model for Register {
        type State = u8;
        type Call = Call;
        type Answer = u8;
        type Local = Option<u8>;

        fn steps(
            &self,
            state: &u8,
            call: &Call,
            local: &Option<u8>,
            answer: Option<&u8>,
        ) -> Vec<(u8, Option<Option<u8>>)> {
            match (call, local) {
                (Call::Write(value), _) => vec![(*value, None)],
                (Call::Read, _) if answer.is_none_or(|a| a == state) => vec![(*state, None)],
                (Call::Read, _) => Vec::new(),
                (Call::Add(_), None) => vec![(*state, Some(Some(*state)))],
                (Call::Add(more), Some(read)) => vec![(read + more, None)],
            }
        }

        fn is_observer(&self, call: &Call, _answer: Option<&u8>) -> bool {
            matches!(call, Call::Read)
        }
    }

    fn entry(call: Call, invoked: u64, returned: u64, answer: u8) -> Entry<Call, u8> {
        Entry::new(call, invoked, returned, answer)
    }

    fn verdict(history: &[Entry<Call, u8>]) -> Verdict {
        check(&Register, &0, history, 10_000)
    }

    #[test]
    fn nothing_is_linearizable() {
        assert_eq!(verdict(&[]), Verdict::Linearizable(Vec::new()));
    }

    #[test]
    fn times_are_respected() {
        let late = [entry(Call::Write(1), 0, 1, 0), entry(Call::Read, 2, 3, 0)];
        assert_eq!(verdict(&late), Verdict::Violation(vec![0]));
        let meanwhile = [entry(Call::Write(1), 0, 3, 0), entry(Call::Read, 1, 2, 0)];
        assert_eq!(verdict(&meanwhile), Verdict::Linearizable(vec![1, 0]));
    }

    #[test]
    fn two_readers_must_agree() {
        let history = [
            entry(Call::Write(1), 0, 9, 0),
            entry(Call::Read, 1, 2, 1),
            entry(Call::Read, 3, 4, 0),
        ];
        assert!(verdict(&history).is_violation());
    }

    #[test]
    fn a_pending_request_may_have_happened_or_not() {
        let pending = Entry::pending(Call::Write(1), 0);
        for answer in [0, 1] {
            let history = [pending.clone(), entry(Call::Read, 1, 2, answer)];
            assert!(matches!(verdict(&history), Verdict::Linearizable(_)));
        }
        let history = [pending, entry(Call::Read, 1, 2, 2)];
        assert!(verdict(&history).is_violation());
    }

    #[test]
    fn an_open_answer_still_happens() {
        let mut write = entry(Call::Write(1), 0, 1, 0);
        write.answer = None;
        let history = [write, entry(Call::Read, 2, 3, 0)];
        assert!(verdict(&history).is_violation());
    }

    #[test]
    fn several_steps_let_others_between() {
        // Both read 0, so one addition is lost.
        let lost = [
            entry(Call::Add(1), 0, 5, 0),
            entry(Call::Add(1), 1, 4, 0),
            entry(Call::Read, 6, 7, 1),
        ];
        assert!(matches!(verdict(&lost), Verdict::Linearizable(_)));
        let mut apart = lost;
        apart[0].returned = Some(0);
        assert!(verdict(&apart).is_violation());
    }

    #[test]
    fn a_search_can_be_too_long() {
        let history: Vec<_> = (0..40)
            .map(|n| entry(Call::Write(n), 0, 100, 0))
            .chain([entry(Call::Read, 101, 102, 77)])
            .collect();
        assert_eq!(check(&Register, &0, &history, 1000), Verdict::Undecided);
    }
}
