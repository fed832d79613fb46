// SPDX-License-Identifier: GPL-2.0

//! Lookups of an id by number, by set and by lifetime.

use kernel::prelude::*;

#[kunit_tests(ioasid_entry)]
mod cases {
    use super::super::*;
    use crate::{
        allocator::DEFAULT_ALLOCATOR,
        id::state::Freed, //
    };

    const SET: SetId = SetId::new(3, 1);

    fn begin(entry: &Entry, serial: u32, set: SetId, data: usize) -> Generation {
        let generation = Generation::from_raw(serial);
        entry.begin(generation, set, DEFAULT_ALLOCATOR, data, Right::Anyone);
        generation
    }

    #[test]
    fn an_id_is_found_by_its_number_and_in_its_own_set() -> Result {
        let entry = Entry::default();
        assert_eq!(entry.lookup(Filter::Any).err(), Some(ENOENT));
        begin(&entry, 7, SET, 0x1234);
        assert_eq!(entry.lookup(Filter::Any)?.data(), Ok(0x1234));
        assert_eq!(entry.lookup(Filter::Set(SET))?.data(), Ok(0x1234));
        for other in [SetId::new(4, 1), SetId::new(3, 2), SetId::ROOT] {
            assert_eq!(entry.lookup(Filter::Set(other)).err(), Some(EACCES));
        }
        Ok(())
    }

    #[test]
    fn a_lookup_shows_no_data_of_the_next_id() -> Result {
        let entry = Entry::default();
        let first = begin(&entry, 7, SET, 1);
        entry.set_spid(Some(7));
        let found = entry.lookup(Filter::Set(SET))?;
        assert_eq!(found.lifetime.free_and_put(Right::Anyone), Ok(Freed::Last));
        assert_eq!(found.resources().spid, Some(7));
        let next = SetId::new(4, 1);
        let second = begin(&entry, 8, next, 2);
        // A lookup of the first lifetime shows no data of the second one, and cannot change it.
        assert_eq!(found.data(), Err(ENOENT));
        assert_eq!(found.lifetime.get(), Err(ENOENT));
        assert_eq!(entry.lookup(Filter::Lifetime(first)).err(), Some(ENOENT));
        for filter in [Filter::Set(next), Filter::Lifetime(second)] {
            let found = entry.lookup(filter)?;
            assert_eq!((found.data(), found.spid()), (Ok(2), None));
            assert_eq!(found.lifetime.references(), 1);
        }
        Ok(())
    }

    #[test]
    fn an_entry_has_32_bytes() {
        assert_eq!(size_of::<Entry>(), 32);
    }
}
