// SPDX-License-Identifier: GPL-2.0

//! Lookups of an id by number, by set and by life.

use kernel::prelude::*;

#[kunit_tests(ioasid_entry)]
mod cases {
    use super::super::*;
    use crate::{
        life::Freed,
        source::OWN, //
    };

    const SET: SetId = SetId::new(3, 1);

    fn begin(entry: &Entry, serial: u32, set: SetId, data: usize) -> Generation {
        let generation = Generation::from_raw(serial);
        entry.begin(generation, set, OWN, data, Right::Anyone);
        generation
    }

    #[test]
    fn in_a_set_or_nobodys() -> Result {
        let entry = Entry::default();
        assert_eq!(entry.look(Only::Any).err(), Some(ENOENT));
        begin(&entry, 7, SET, 0x1234);
        assert_eq!(entry.look(Only::Any)?.data(), Ok(0x1234));
        assert_eq!(entry.look(Only::Set(SET))?.data(), Ok(0x1234));
        for other in [SetId::new(4, 1), SetId::new(3, 2), SetId::ROOT] {
            assert_eq!(entry.look(Only::Set(other)).err(), Some(EACCES));
        }
        Ok(())
    }

    #[test]
    fn the_next_one_to_have_it_is_not_seen() -> Result {
        let entry = Entry::default();
        let first = begin(&entry, 7, SET, 1);
        entry.set_spid(Some(7));
        let found = entry.look(Only::Set(SET))?;
        assert_eq!(found.life.free_and_put(Right::Anyone), Ok(Freed::Last));
        assert_eq!(found.remains().spid, Some(7));
        let next = SetId::new(4, 1);
        let second = begin(&entry, 8, next, 2);
        // A look at the first life shows no data of the second one, and cannot change it.
        assert_eq!(found.data(), Err(ENOENT));
        assert_eq!(found.life.get(), Err(ENOENT));
        assert_eq!(entry.look(Only::Life(first)).err(), Some(ENOENT));
        for only in [Only::Set(next), Only::Life(second)] {
            let found = entry.look(only)?;
            assert_eq!((found.data(), found.spid()), (Ok(2), None));
            assert_eq!(found.life.references(), 1);
        }
        Ok(())
    }

    #[test]
    fn no_more_memory_than_half_a_line() {
        assert_eq!(size_of::<Entry>(), 32);
    }
}
