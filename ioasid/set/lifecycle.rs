// SPDX-License-Identifier: GPL-2.0

//! Creating, finding and closing sets.

use kernel::{
    prelude::*,
    sync::rcu, //
};

use super::{
    account::AccountStatus,
    Quota,
    Set,
    SetId,
    SetState,
    Token, //
};
use crate::{
    gfp::Gfp,
    space::Space,
    warn_failed, //
};

impl Space {
    /// Creates a set. Sleeps.
    ///
    /// # Errors
    ///
    /// `EEXIST` if the process of a [`Token::Mm`] already has a set; `ENOSPC` if the quota is more
    /// than the unreserved ids, or no ids are left; `EINVAL` for a quota of 0; `ENOMEM`.
    pub fn new_set(&self, token: Token, quota: Quota) -> Result<Set<'_>> {
        let mut setup = self.setup.lock();
        let open = |set: &SetState| !set.account.is_closed();
        if matches!(token, Token::Mm(_)) && self.set_of(token, open).is_some() {
            return Err(EEXIST);
        }
        let quota = match quota {
            Quota::Exactly(0) => return Err(EINVAL),
            Quota::Exactly(count) => self
                .with_set(SetId::ROOT, |root| root.account.take(count))
                .map(|()| count),
            Quota::Rest => self.with_set(SetId::ROOT, |root| root.account.take_rest()),
        };
        let quota = quota.map_err(|_| ENOSPC)?;
        let generation = setup.last_generation.wrapping_add(1);
        let state = SetState::new(token, quota, generation);
        let first = SetId::ROOT.number() + 1;
        let number = self
            .sets
            .alloc(first, i32::MAX as u32, state, Gfp::Kernel)
            .inspect_err(|_| self.give_quota(SetId::ROOT, quota))?;
        setup.last_generation = generation;
        Ok(Set::from_handle(self, SetId::new(number, generation)))
    }

    /// Returns the set with this token that `accept` accepts. While `accept` is called, the set
    /// cannot be replaced by another set with the same number.
    fn set_of(&self, token: Token, accept: impl Fn(&SetState) -> bool) -> Option<SetId> {
        let guard = rcu::Guard::new();
        let mut from = SetId::ROOT.number();
        while let Some((number, set)) = self.sets.next(from, &guard) {
            if set.token == token && accept(&set) {
                return Some(SetId::new(number, set.generation));
            }
            from = number + 1;
        }
        None
    }

    /// Returns a handle of the set of a process, which is identified by the address of its
    /// `struct mm_struct`.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the process has no set.
    pub fn find_mm_set(&self, mm: usize) -> Result<Set<'_>> {
        let found = self.set_of(Token::Mm(mm), |set| set.account.get_handle().is_ok());
        Ok(Set::from_handle(self, found.ok_or(ENOENT)?))
    }

    /// Returns another handle of a set.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such set, or if it is closed.
    pub(crate) fn get_set(&self, set: SetId) -> Result<Set<'_>> {
        if set == SetId::ROOT {
            return Err(EINVAL);
        }
        self.with_set(set, |state| state.account.get_handle())?;
        Ok(Set::from_handle(self, set))
    }

    /// Drops a handle of a set.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such set, or if it has no handle.
    pub(crate) fn put_set(&self, set: SetId) -> Result {
        if set == SetId::ROOT {
            return Err(EINVAL);
        }
        let status = self.with_set(set, |state| state.account.put_handle())?;
        self.end_set(set, status);
        Ok(())
    }

    /// Closes a set that has no ids, and drops the handle of its creator.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the set has ids; `EINVAL` if there is no such set, or if it is closed.
    pub(crate) fn free_set(&self, set: SetId) -> Result {
        if set == SetId::ROOT {
            return Err(EINVAL);
        }
        let quota = self.with_set(set, |state| state.account.close())?;
        self.give_quota(SetId::ROOT, quota);
        self.put_set(set)
    }

    /// Returns ids to a set's account.
    pub(crate) fn give_quota(&self, set: SetId, count: u32) {
        match self.with_set(set, |state| state.account.give(count)) {
            Ok(status) => self.end_set(set, status),
            // The ids were taken from the account, so the set and its account exist.
            Err(e) => warn_failed(fmt!("return ids to set {}", set.number()), e),
        }
    }

    /// Removes a set whose account has ended.
    fn end_set(&self, set: SetId, status: AccountStatus) {
        if let AccountStatus::Ended { quota } = status {
            self.sets.remove(set.number());
            self.give_quota(SetId::ROOT, quota);
        }
    }

    /// Calls `f` for each id of a set in ascending order. Other ids may be added and removed
    /// meanwhile.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such set.
    pub(crate) fn for_each_in(&self, set: SetId, mut f: impl FnMut(u32)) -> Result {
        self.with_set(set, |_| Ok(()))?;
        let mut from = Some(0);
        while let Some((id, its_set)) =
            from.and_then(|from| self.next_id(from, |id, found| (id, found.set())))
        {
            if its_set == set {
                f(id);
            }
            from = id.checked_add(1);
        }
        Ok(())
    }

    /// Calls `f` for each set except [`SetId::ROOT`].
    pub(crate) fn for_each_set(&self, mut f: impl FnMut(SetId, &SetState)) {
        let guard = rcu::Guard::new();
        let mut from = SetId::ROOT.number() + 1;
        while let Some((number, set)) = self.sets.next(from, &guard) {
            f(SetId::new(number, set.generation), &set);
            from = number + 1;
        }
    }
}
