// SPDX-License-Identifier: GPL-2.0

//! The debugfs directory `ioasid/`, with information about the system's space.

use kernel::{
    fmt,
    prelude::*, //
};
use kernel_ext::debugfs::{
    Contents,
    Dir,
    File, //
};

use crate::{
    id::entry::Found,
    set::SetId,
    space::system, //
};

/// The files. Dropping this removes them.
pub(crate) struct Files {
    _space: File<SpaceFile>,
    _sets: File<SetsFile>,
    _allocators: File<AllocatorsFile>,
    _ids: File<IdsFile>,
}

impl Files {
    /// Creates the files for the system's space.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        let dir = Dir::new(c"ioasid")?;
        Ok(Self {
            _space: dir.file(c"space", ()),
            _sets: dir.file(c"sets", ()),
            _allocators: dir.file(c"allocators", ()),
            _ids: dir.file(c"ids", ()),
        })
    }
}

/// The size of the space, and how many of its ids are used.
struct SpaceFile;

#[vtable]
impl Contents for SpaceFile {
    type OwnerModule = crate::LocalModule;
    type Data = ();

    fn show((): (), f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let space = system();
        let left = space
            .with_set(SetId::ROOT, |root| Ok(root.account.left()))
            .map_err(|_| fmt::Error)?;
        let total = space.own_total();
        writeln!(f, "capacity: {}", space.capacity())?;
        writeln!(f, "lowest own id: {}", space.floor())?;
        writeln!(f, "own ids in use: {}", space.own_ids())?;
        writeln!(f, "reserved or in no set: {}", total.saturating_sub(left))?;
        writeln!(f, "available: {left}")?;
        writeln!(f, "orphans: {}", space.orphans())
    }
}

/// One line for each set.
struct SetsFile;

#[vtable]
impl Contents for SetsFile {
    type OwnerModule = crate::LocalModule;
    type Data = ();

    fn show((): (), f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "set quota used owner token")?;
        let mut result = Ok(());
        system().for_each_set(|id, set| {
            let number = id.number();
            let (kind, token) = set.token.parts();
            let (quota, used) = (set.account.quota(), set.account.taken());
            result = result.and_then(|()| writeln!(f, "{number} {quota} {used} {kind} {token:#x}"));
        });
        result
    }
}

/// One line for each allocator, the active ones first.
struct AllocatorsFile;

#[vtable]
impl Contents for AllocatorsFile {
    type OwnerModule = crate::LocalModule;
    type Data = ();

    fn show((): (), f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let space = system();
        let Some(list) = space.allocators.read() else {
            return writeln!(f, "own active {}", space.own_ids());
        };
        let active = list.first().map(|entry| entry.origin);
        for entry in list.iter() {
            let state = if Some(entry.origin) == active {
                "active"
            } else {
                "waiting"
            };
            writeln!(f, "kind {} {state} {}", entry.origin, entry.outstanding())?;
        }
        Ok(())
    }
}

/// One line for each id.
struct IdsFile;

#[vtable]
impl Contents for IdsFile {
    type OwnerModule = crate::LocalModule;
    type Data = ();

    fn show((): (), f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "id set allocator state references spid")?;
        let mut from = Some(0);
        let line = |id, found: &Found<'_>| {
            let lifetime = found.lifetime;
            let fixed = (found.set().number(), found.origin());
            (
                id,
                (fixed, lifetime.state(), lifetime.references(), found.spid()),
            )
        };
        while let Some((id, line)) = from.and_then(|from| system().next_id(from, line)) {
            let ((set, origin), state, references, spid) = line;
            write!(f, "{id} {set} {origin} {} {references} ", state.name())?;
            match spid {
                Some(spid) => writeln!(f, "{spid}")?,
                None => writeln!(f, "-")?,
            }
            from = id.checked_add(1);
        }
        Ok(())
    }
}
