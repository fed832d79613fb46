// SPDX-License-Identifier: GPL-2.0

//! Sets coming and going.

use kernel::{
    prelude::*,
    sync::rcu, //
};

use kernel_ext::gfp::Gfp;

use super::Space;
use crate::{
    account::Left,
    set::{
        Quota,
        Set,
        SetState,
        Token,
        ROOT, //
    },
};

impl Space {
    /// Creates a set. Sleeps.
    ///
    /// # Errors
    ///
    /// `EEXIST` if the process of a [`Token::Mm`] has one; `ENOSPC` if the quota is more than what no
    /// other set was promised, or nothing is left; `EINVAL` for a quota of 0; `ENOMEM`.
    pub fn new_set(&self, token: Token, quota: Quota) -> Result<Set<'_>> {
        let _setup = self.setup.lock();
        if matches!(token, Token::Mm(_)) && self.set_of(token).is_some() {
            return Err(EEXIST);
        }
        let quota = match quota {
            Quota::Exactly(0) => return Err(EINVAL),
            Quota::Exactly(count) => self
                .with_set(ROOT, |root| root.account.take(count))
                .map(|()| count),
            Quota::Rest => self.with_set(ROOT, |root| root.account.take_rest()),
        };
        let quota = quota.map_err(|_| ENOSPC)?;
        let state = SetState::new(token, quota);
        let number = self
            .sets
            .alloc(ROOT + 1, i32::MAX as u32, state, Gfp::Kernel)
            .inspect_err(|_| self.give_quota(ROOT, quota))?;
        Ok(Set::from_handle(self, number))
    }

    /// The set with this token. It may be gone any time.
    fn set_of(&self, token: Token) -> Option<u32> {
        let guard = rcu::Guard::new();
        let mut from = ROOT;
        while let Some((number, set)) = self.sets.next(from, &guard) {
            if set.token == token && !set.account.is_closed() {
                return Some(number);
            }
            from = number + 1;
        }
        None
    }

    /// A handle of the set that belongs to a process, given the address of its `struct mm_struct`.
    ///
    /// # Errors
    ///
    /// `ENOENT` if it has none.
    pub fn find_mm_set(&self, mm: usize) -> Result<Set<'_>> {
        let number = self.set_of(Token::Mm(mm)).ok_or(ENOENT)?;
        self.get_set(number).map_err(|_| ENOENT)
    }

    /// One more handle of a set.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such set, or it is closed.
    pub(crate) fn get_set(&self, number: u32) -> Result<Set<'_>> {
        if number == ROOT {
            return Err(EINVAL);
        }
        self.with_set(number, |set| set.account.get_handle())?;
        Ok(Set::from_handle(self, number))
    }

    /// Drops a handle of a set.
    pub(crate) fn put_set(&self, number: u32) {
        if number == ROOT {
            return;
        }
        let left = self.with_set(number, |set| set.account.put_handle());
        self.end_set(number, left.unwrap_or(Left::Open));
    }

    /// Closes a set that has no ids, and drops the handle of who created it.
    ///
    /// # Errors
    ///
    /// `EBUSY` if it has ids; `EINVAL` if there is no such set, or it is closed.
    pub fn free_set(&self, number: u32) -> Result {
        if number == ROOT {
            return Err(EINVAL);
        }
        let quota = self.with_set(number, |set| set.account.close())?;
        self.give_quota(ROOT, quota);
        self.put_set(number);
        Ok(())
    }

    /// Gives back what was taken from a set's account.
    pub(super) fn give_quota(&self, set: u32, count: u32) {
        let left = self.with_set(set, |state| Ok(state.account.give(count)));
        self.end_set(set, left.unwrap_or(Left::Open));
    }

    /// Forgets a set whose account has ended.
    fn end_set(&self, set: u32, left: Left) {
        if let Left::Ended { quota } = left {
            drop(self.sets.remove(set));
            self.give_quota(ROOT, quota);
        }
    }

    /// Calls `f` for each id of a set, in their order. Others may come and go meanwhile.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such set.
    pub(crate) fn for_each_in(&self, set: u32, mut f: impl FnMut(u32)) -> Result {
        self.with_set(set, |_| Ok(()))?;
        let mut from = 0;
        while let Some((id, its_set)) = self.next_id(from, |id, found| (id, found.set())) {
            if its_set == set {
                f(id);
            }
            from = id + 1;
        }
        Ok(())
    }

    /// Calls `f` for each set, without the ids that are in none.
    pub(crate) fn for_each_set(&self, mut f: impl FnMut(u32, &SetState)) {
        let guard = rcu::Guard::new();
        let mut from = ROOT + 1;
        while let Some((number, set)) = self.sets.next(from, &guard) {
            f(number, &set);
            from = number + 1;
        }
    }
}
