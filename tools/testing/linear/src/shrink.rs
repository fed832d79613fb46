// SPDX-License-Identifier: GPL-2.0

//! Reduces a history without an explanation to a short part.

use crate::{
    checker::{
        Model,
        Verdict,
        check, //
    },
    history::Entry, //
};

/// The maximum number of points that each search visits.
const BUDGET: usize = 50_000;

/// A reduced history.
#[derive(Clone, Debug)]
pub struct Core<C, A> {
    /// Requests whose answers cannot all be explained.
    pub needed: Vec<Entry<C, A>>,
    /// Other requests that were sent; their answers do not matter.
    pub others: Vec<Entry<C, A>>,
}

/// Shortens a history that is not linearizable.
///
/// The result has no explanation either, whatever the answers of [`Core::others`] are: no request
/// is removed that could have changed the state.
pub fn shrink<M>(
    model: &M,
    start: &M::State,
    history: &[Entry<M::Call, M::Answer>],
) -> Core<M::Call, M::Answer>
where
    M: Model,
    M::Call: Clone,
    M::Answer: Clone,
{
    let is_violation = |history: &[_]| check(model, start, history, BUDGET).is_violation();
    let mut left = prefix(history, is_violation);
    // The last requests are tried first: they are the least likely to be needed.
    left.sort_by_key(|entry| std::cmp::Reverse(entry.invoked));
    let mut index = 0;
    while index < left.len() {
        let mut fewer = left.clone();
        let entry = fewer.remove(index);
        if model.is_observer(&entry.call, entry.answer.as_ref()) && is_violation(&fewer) {
            left = fewer;
            continue;
        }
        if entry.answer.is_some() {
            let mut open = left.clone();
            open[index].answer = None;
            if is_violation(&open) {
                left = open;
            }
        }
        index += 1;
    }
    left.sort_by_key(|entry| entry.invoked);
    let (needed, others) = left.into_iter().partition(|entry| entry.answer.is_some());
    Core { needed, others }
}

/// Returns the shortest prefix that is not linearizable. Requests that had not returned by then are
/// pending.
fn prefix<C: Clone, A: Clone>(
    history: &[Entry<C, A>],
    is_violation: impl Fn(&[Entry<C, A>]) -> bool,
) -> Vec<Entry<C, A>> {
    let mut ends: Vec<_> = history.iter().filter_map(|entry| entry.returned).collect();
    ends.sort_unstable();
    let until = |end: u64| -> Vec<Entry<C, A>> {
        let sent = history.iter().filter(|entry| entry.invoked <= end);
        sent.map(|entry| match entry.returned {
            Some(returned) if returned <= end => entry.clone(),
            _ => Entry::pending(entry.call.clone(), entry.invoked),
        })
        .collect()
    };
    // If a prefix is not linearizable, longer prefixes are not linearizable either.
    let first = ends.partition_point(|end| !is_violation(&until(*end)));
    ends.get(first)
        .map_or_else(|| history.to_vec(), |end| until(*end))
}

/// Returns the longest explanation of a part of a history, in order.
pub fn explained<'a, C, A>(history: &'a [Entry<C, A>], verdict: &Verdict) -> Vec<&'a Entry<C, A>> {
    match verdict {
        Verdict::Linearizable(order) | Verdict::Violation(order) => {
            order.iter().map(|index| &history[*index]).collect()
        }
        Verdict::Undecided => Vec::new(),
    }
}
