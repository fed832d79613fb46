// SPDX-License-Identifier: GPL-2.0

//! One number, and threads that allocate, find and free it.

use loom::{sync::Arc, thread};

use crate::{
    key::Filter,
    prelude::*,
    set::SetId,
    state::{Freed, Right},
    table::Number,
};

const A: SetId = SetId::new(1, 1);
const B: SetId = SetId::new(2, 2);

/// Runs both functions at once, on a number that is free at first.
fn both(one: fn(&Number), other: fn(&Number)) -> impl Fn() + Sync + Send + 'static {
    move || {
        let number = Arc::new(Number::new());
        let theirs = number.clone();
        let thread = thread::spawn(move || other(&theirs));
        one(&number);
        thread.join().unwrap();
    }
}

/// Allocates for a handle and drops that.
fn own(number: &Number, free: fn(&Number, Filter, Right) -> Result) {
    if let Some(generation) = number.alloc(A, 1, Right::Owner) {
        let filter = Filter::Lifetime(generation);
        assert_eq!(number.find(filter), Ok(1));
        assert_eq!(free(number, filter, Right::Owner), Ok(()));
    }
}

fn in_one_step(number: &Number, filter: Filter, right: Right) -> Result {
    number.free(filter, right).map(drop)
}

/// Frees what it finds, then allocates for itself, and sees that it stays.
fn steal(number: &Number) {
    let stolen = number.free(Filter::Any, Right::Anyone);
    assert!(matches!(stolen, Err(EPERM | ENOENT) | Ok(Freed::Before)));
    if let Some(generation) = number.alloc(B, 2, Right::Anyone) {
        let filter = Filter::Lifetime(generation);
        assert_eq!(number.find(filter), Ok(2));
        assert_eq!(number.free(filter, Right::Anyone), Ok(Freed::Last));
    }
}

/// The same by dropping a reference which is not its own.
fn put_too_much(number: &Number) {
    let put = number.put(Filter::Any, Right::Anyone);
    assert!(matches!(put, Err(EPERM | ENOENT)));
    if let Some(generation) = number.alloc(B, 2, Right::Anyone) {
        let filter = Filter::Lifetime(generation);
        assert_eq!(number.find(filter), Ok(2));
        assert_eq!(number.put(filter, Right::Anyone), Ok(true));
    }
}

#[test]
fn only_its_handle_frees_an_id() {
    loom::model(both(|number| own(number, in_one_step), steal));
}

#[test]
fn only_its_handle_frees_an_id_in_steps() {
    loom::model(both(|number| own(number, Number::free_in_steps), steal));
}

#[test]
fn only_its_handle_drops_its_reference() {
    loom::model(both(
        |number| own(number, Number::free_in_steps),
        put_too_much,
    ));
}

/// An id of one set, then one of another.
fn one_after_the_other(number: &Number) {
    for (set, data) in [(A, 1), (B, 2)] {
        if let Some(generation) = number.alloc(set, data, Right::Anyone) {
            let freed = number.free(Filter::Lifetime(generation), Right::Anyone);
            assert!(freed.is_ok());
        }
    }
}

#[test]
fn a_set_finds_its_own_data() {
    loom::model(both(one_after_the_other, |number| {
        for (set, data) in [(A, 1), (B, 2)] {
            let found = number.find(Filter::Set(set));
            assert!(
                found == Ok(data) || matches!(found, Err(ENOENT | EACCES)),
                "{found:?}"
            );
        }
    }));
}

#[test]
fn a_reference_keeps_the_id() {
    loom::model(both(one_after_the_other, |number| {
        if let Ok(generation) = number.get(Filter::Set(A)) {
            let filter = Filter::Lifetime(generation);
            assert_eq!((number.find(filter), number.entry.set()), (Ok(1), A));
            assert!(number.put(filter, Right::Anyone).is_ok());
        }
    }));
}

#[test]
fn data_is_set_in_one_lifetime() {
    let first_then_next = |number: &Number| {
        let Some(first) = number.alloc(A, 1, Right::Anyone) else {
            return;
        };
        assert!(number.free(Filter::Lifetime(first), Right::Anyone).is_ok());
        // The number is taken as long as the other thread works on the first id.
        if let Some(next) = number.alloc(B, 2, Right::Anyone) {
            assert_eq!(number.find(Filter::Lifetime(next)), Ok(2));
        }
    };
    loom::model(both(first_then_next, |number| {
        let set = number.set_data(Filter::Set(A), 3);
        assert!(matches!(set, Ok(()) | Err(ENOENT | EACCES)), "{set:?}");
    }));
}

#[test]
fn the_last_of_two_references_ends_the_lifetime() {
    loom::model(|| {
        let number = Arc::new(Number::new());
        let generation = number.alloc(A, 1, Right::Anyone);
        let filter = Filter::Lifetime(generation.unwrap());
        assert!(number.get(filter).is_ok());
        let theirs = number.clone();
        let other = thread::spawn(move || theirs.put(filter, Right::Anyone));
        let freed = number.free(filter, Right::Anyone);
        let put = other.join().unwrap();
        let last = [freed == Ok(Freed::Last), put == Ok(true)];
        // If the reference went first, so that the other one was the last: it was freed by that.
        assert_eq!(
            last.iter().filter(|&&last| last).count(),
            1,
            "{freed:?} {put:?}"
        );
        assert!(number.alloc(B, 2, Right::Anyone).is_some());
    });
}
