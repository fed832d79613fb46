// SPDX-License-Identifier: GPL-2.0

//! Tests of the targets of windows, and of what is refused.

use kernel::prelude::*;

use super::*;

#[kunit_tests(pamu_sim_windows)]
mod tests {
    use super::*;

    use kernel::sync::atomic::Atomic;

    use vfio_iommu_pamu::{
        liodn::MappedBlock,
        paace::Access, //
    };

    use crate::msi::{
        Interrupt,
        Vector, //
    };

    #[test]
    fn windows_lead_to_their_blocks() -> Result {
        let machine = machine()?;
        for windows in [1, 2, 16, 256] {
            let (a, b) = (memory(0xaaaa)?, memory(0xbbbb)?);
            let mut liodn = liodn(&machine, 3, windows)?;
            let last = windows - 1;
            liodn.set_window(0, &block_of(&a, SIZE, Access::All))?;
            if last != 0 {
                liodn.set_window(last, &block_of(&b, SIZE, Access::All))?;
            }
            liodn.enable()?;
            let end = BASE + u64::from(windows) * SIZE;
            assert_eq!(peek(&machine, 3, BASE), Ok(0xaaaa));
            assert_eq!(peek(&machine, 3, BASE + SIZE - 4), Ok(0xaaaa));
            let expected = if last == 0 { 0xaaaa } else { 0xbbbb };
            assert_eq!(peek(&machine, 3, end - 4), Ok(expected));
            assert_eq!(poke(&machine, 3, end - SIZE + 8, 0x1234), Ok(()));
            let block = if last == 0 { &a } else { &b };
            assert_eq!(block.words()[2].load(Relaxed), 0x1234);
            assert_eq!(peek(&machine, 3, end), Err(Cause::Window));
            // The violation has stopped the LIODN.
            assert_eq!(peek(&machine, 3, BASE), Err(Cause::Liodn));
            assert!(liodn.revive()?);
            assert_eq!(peek(&machine, 3, BASE - 4), Err(Cause::Window));
        }
        Ok(())
    }

    #[test]
    fn claimed_liodn_has_no_access() -> Result {
        let machine = machine()?;
        let block = memory(1)?;
        assert_eq!(peek(&machine, 5, block.phys()), Ok(1));
        let mut liodn = machine.system().claim(5, None)?;
        assert_eq!(peek(&machine, 5, block.phys()), Err(Cause::Liodn));
        assert_eq!(liodn.enable(), Err(ENODEV));
        assert_eq!(
            liodn.set_window(0, &block_of(&block, SIZE, Access::All)),
            Err(ENODEV)
        );
        assert_eq!(machine.system().claim(5, None).err(), Some(EBUSY));
        drop(liodn);
        assert_eq!(peek(&machine, 5, block.phys()), Err(Cause::Liodn));
        assert!(machine.system().claim(5, None).is_ok());
        assert_eq!(machine.system().claim(64, None).err(), Some(ENODEV));
        Ok(())
    }

    #[test]
    fn bad_windows_are_refused() -> Result {
        let machine = machine()?;
        let block = memory(0)?;
        let mut liodn = liodn(&machine, 0, 4)?;
        let window = |size| block_of(&block, size, Access::All);
        for size in [0, 1, 2048, 4097, 3 * 4096, 2 * SIZE, u64::MAX] {
            for index in [0, 1] {
                assert_eq!(liodn.set_window(index, &window(size)), Err(EINVAL));
            }
        }
        let denied = block_of(&block, SIZE, Access::Denied);
        assert_eq!(liodn.set_window(0, &denied), Err(EINVAL));
        assert_eq!(liodn.set_window(4, &window(SIZE)), Err(EINVAL));
        assert_eq!(liodn.set_window(u32::MAX, &window(SIZE)), Err(EINVAL));
        assert_eq!(liodn.clear_window(4), Err(EINVAL));
        for index in 0..4 {
            liodn.set_window(index, &window(SIZE))?;
            assert_eq!(liodn.set_window(index, &window(SIZE)), Err(EBUSY));
            liodn.clear_window(index)?;
            liodn.clear_window(index)?;
            liodn.set_window(index, &window(4096))?;
        }
        for windows in [0, 3, 512, u32::MAX] {
            assert_eq!(liodn.prepare(windows).err(), Some(EINVAL));
        }
        // Windows below a page.
        let spaaces = liodn.prepare(2)?;
        let aperture = Aperture::of_size(0, 4096)?;
        let refused = liodn.configure(aperture, spaaces, Attributes::default());
        assert_eq!(refused, Err(EINVAL));
        Ok(())
    }

    #[test]
    fn doorbell_raises_an_interrupt() -> Result {
        struct Count(Atomic<u32>);
        impl Interrupt for Count {
            fn interrupt(&self) {
                self.0.fetch_add(1, Relaxed);
            }
        }
        let machine = machine()?;
        let mut liodn = liodn(&machine, 1, 4)?;
        let count = Arc::new(Count(Atomic::new(0)), GFP_KERNEL)?;
        let banks = machine.banks();
        let vectors = [
            Vector::of(banks, 0, count.clone())?,
            Vector::of(banks, 1, count.clone())?,
            Vector::of(banks, 1, count.clone())?,
        ];
        assert_eq!(vectors[2].data(), 1);
        assert!(Vector::of(banks, 2, count.clone()).is_err());
        assert_eq!(machine.system().banks()[1].offset(), 0x140);
        liodn.set_window(2, &MappedBlock::of_bank(1, Access::All))?;
        let none = MappedBlock::of_bank(2, Access::All);
        assert_eq!(liodn.set_window(3, &none), Err(ENODEV));
        liodn.enable()?;
        let master = BusMaster::on(machine.clone(), 1);
        let doorbell = BASE + 2 * SIZE + 0x140;
        for (vector, expected) in [(&vectors[1], 1), (&vectors[2], 2)] {
            master.write(doorbell, &vector.data().to_le_bytes())?;
            assert_eq!(count.0.load(Relaxed), expected);
        }
        // Another offset of the page, and a vector that isn't allocated.
        master.write(doorbell + 4, &0u32.to_le_bytes())?;
        master.write(doorbell, &200u32.to_le_bytes())?;
        assert_eq!(count.0.load(Relaxed), 2);
        // Writes are not stored.
        let page = KVVec::from_elem(0xffu8, 4096, GFP_KERNEL)?;
        master.write(BASE + 2 * SIZE, &page)?;
        assert_eq!(count.0.load(Relaxed), 2);
        for offset in [0, 0x140, 4092] {
            assert_eq!(peek(&machine, 1, BASE + 2 * SIZE + offset), Ok(0));
        }
        drop(vectors);
        master.write(doorbell, &0u32.to_le_bytes())?;
        assert_eq!(count.0.load(Relaxed), 2);
        Ok(())
    }

    #[test]
    fn transfers_cross_pages_and_windows() -> Result {
        let machine = machine()?;
        let (a, b) = (memory(0)?, memory(0)?);
        let mut liodn = liodn(&machine, 8, 2)?;
        liodn.set_window(0, &block_of(&a, SIZE, Access::All))?;
        liodn.set_window(1, &block_of(&b, SIZE, Access::All))?;
        liodn.enable()?;
        let master = BusMaster::on(machine.clone(), 8);
        let mut data = KVVec::from_elem(0u8, 10000, GFP_KERNEL)?;
        for (at, byte) in data.iter_mut().enumerate() {
            *byte = (at % 251) as u8;
        }
        master.write(BASE + SIZE - 5001, &data)?;
        let mut back = KVVec::from_elem(0u8, 10000, GFP_KERNEL)?;
        master.read(BASE + SIZE - 5001, &mut back)?;
        assert!(*data == *back);
        let end = master.read(BASE + 2 * SIZE - 100, &mut back);
        let address = BASE + 2 * SIZE;
        assert!(matches!(end, Err(Denied::Violation { address: at, .. }) if at == address));
        Ok(())
    }

    #[test]
    fn configuring_clears_windows_and_frees_entries() -> Result {
        let machine = machine()?;
        let free = machine.system().tables().free_spaaces();
        let block = memory(1)?;
        let window = block_of(&block, SIZE, Access::All);
        {
            let mut liodn = liodn(&machine, 0, 256)?;
            for index in 0..256 {
                liodn.set_window(index, &window)?;
            }
            liodn.enable()?;
            // New windows are prepared beside the old ones, which stay in effect.
            let more = liodn.prepare(256)?;
            assert_eq!(liodn.prepare(128).err(), Some(ENOSPC));
            assert_eq!(peek(&machine, 0, BASE + 255 * SIZE), Ok(1));
            let aperture = Aperture::of_size(BASE, 256 * SIZE)?;
            liodn.configure(aperture, more, Attributes::default())?;
            assert_eq!(machine.system().tables().free_spaaces(), free - 255);
            liodn.enable()?;
            for index in [0, 1, 128, 255] {
                assert_eq!(peek(&machine, 0, BASE + index * SIZE), Err(Cause::Window));
                assert!(liodn.revive()?);
            }
            liodn.unconfigure();
            assert_eq!(machine.system().tables().free_spaaces(), free);
            assert_eq!(liodn.enable(), Err(ENODEV));
        }
        assert_eq!(machine.system().tables().free_spaaces(), free);
        Ok(())
    }
}
